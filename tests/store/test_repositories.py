import math
from datetime import timedelta

import pytest

from store.database import database_time
from store.errors import NotFound
from store.ids import new_id
from store.models.access import Session as BrowserSession
from store.queue import add_event, append_log, append_metrics
from store.repositories.jobs import Experiments, Jobs
from store.repositories.keys import Keys
from store.repositories.metrics import Metrics
from store.repositories.records import Checkpoints, Events, Logs, Results
from store.repositories.runs import Runs
from store.repositories.workers import Workers
from store.rows import Collected, CompletionRow, ResultRow
from store.states import Outcome


@pytest.fixture
def names(rig):
    """Seven jobs; gives a way to list the names of a page."""
    for number in range(7):
        rig.submit("sft", name=f"job-{number}")

    def listed(*args, **filters):
        with rig.database.read() as session:
            page = Jobs(session).page(*args, **filters)
        return [int(job.name[-1]) for job in page.rows], page.has_more, [job.id for job in page.rows]

    return listed


def test_pages_follow_each_other_without_gap_or_repetition(names):
    for order, expected in (("desc", list(range(6, -1, -1))), ("asc", list(range(7)))):
        seen, after, has_more = [], None, True
        while has_more:
            numbers, has_more, identifiers = names(3, after, order=order)
            seen += numbers
            after = identifiers[-1]
        assert seen == expected


def test_a_page_before_a_cursor_ends_next_to_it_in_the_order_of_the_list(names):
    _, _, identifiers = names(7)
    assert names(3, before=identifiers[5])[:2] == ([4, 3, 2], True)
    assert names(5, before=identifiers[3])[:2] == ([6, 5, 4], False)
    _, _, rising = names(7, order="asc")
    assert names(3, before=rising[5], order="asc")[:2] == ([2, 3, 4], True)


def test_a_cursor_outlives_its_row(names):
    _, _, identifiers = names(7)
    between = type(identifiers[3])(int=identifiers[3].int - 1)
    assert names(2, after=between)[0] == [2, 1]


def test_jobs_are_filtered_by_every_filter_given(rig):
    experiment = rig.submit_experiment(rig.spec("sft"), rig.spec("evaluation", name="other"))
    mine = rig.submit("sft", name="mine", metadata={"team": "a", "x": "1"}, method="m")
    rig.submit("sft", name="theirs", metadata={"team": "b"})

    def listed(**filters):
        with rig.database.read() as session:
            return [job.name for job in Jobs(session).page(20, order="asc", **filters).rows]

    assert listed(metadata={"team": "a", "x": "1"}) == ["mine"]
    assert listed(metadata={"team": "a", "x": "2"}) == []
    assert listed(kind="evaluation") == ["other"]
    assert listed(experiment_id=experiment.id) == ["sft", "other"]
    assert listed(status="queued", kind="sft") == ["sft", "mine", "theirs"]
    assert (listed(name="mine"), listed(method="m")) == (["mine"], ["mine"])
    assert listed(created_after=mine.created_at) == ["theirs"]
    assert listed(created_before=mine.created_at) == ["sft", "other"]
    with rig.database.read() as session:
        assert [row.id for row in Experiments(session).page(name="experiment").rows] == [experiment.id]
        assert Experiments(session).page(metadata={"a": "b"}).rows == []


def test_runs_attempts_and_gauges_are_counted(rig):
    job = rig.submit("sft", seeds=[0, 1, 2])
    taken = rig.started()
    rig.finish(taken)
    rig.finish(rig.started(), Outcome.USER, "bad")
    with rig.database.read() as session:
        runs = Runs(session)
        assert runs.counts() == {("succeeded", "lco.cpu"): 1, ("failed", "lco.cpu"): 1, ("queued", "lco.cpu"): 1}
        assert runs.attempt_outcomes() == {"succeeded": 1, "user": 1}
        assert 0 <= runs.oldest_queued_seconds()["lco.cpu"] < 60
        assert [run.id for run in runs.page(job_id=job.id, state="succeeded").rows] == [taken.run_id]


def test_curves_are_thinned_without_losing_their_extremes(rig):
    rig.submit()
    taken = rig.started()
    values = [float(step % 10) for step in range(1, 101)]
    with rig.database.write() as session:
        append_metrics(session, taken, [(step, {"a": values[step - 1], "b": 1.0}) for step in range(1, 101)])
    with rig.database.read() as session:
        whole = Metrics(session).series(taken.run_id, ["a"])
        thin = Metrics(session).series(taken.run_id, max_points=10)
        late = Metrics(session).series(taken.run_id, ["a"], from_step=91)
        assert Metrics(session).keys([taken.run_id]) == ["a", "b"]
    assert [point.mean for point in whole["a"]] == values
    assert [(point.step, point.min, point.max, point.num_steps) for point in thin["a"]] == [
        (step, 0.0, 9.0, 10) for step in range(10, 101, 10)
    ]
    assert [point.mean for point in thin["a"]] == pytest.approx([4.5] * 10)
    assert [point.step for point in late["a"]] == list(range(91, 101))


def test_points_that_are_not_finite_are_counted_apart(sqlite_rig):
    sqlite_rig.submit()
    taken = sqlite_rig.started()
    with sqlite_rig.database.write() as session:
        append_metrics(session, taken, [(1, {"a": 2.0}), (2, {"a": None})])
    with sqlite_rig.database.read() as session:
        (point,) = Metrics(session).series(taken.run_id, max_points=1)["a"]
        assert Metrics(session).series(new_id()) == {}
    assert (point.mean, point.num_steps, point.num_not_finite) == (2.0, 2, 1)


def test_a_metric_over_seeds_names_the_seeds_that_are_missing(rig):
    job = rig.submit("sft", seeds=[0, 1, 2])
    for value in (1.0, 2.0):
        taken = rig.started()
        with rig.database.write() as session:
            append_metrics(session, taken, [(1, {"a": value}), (2, {"a": value if value > 1 else None})])
    missing = [run.seed for run in rig.runs(job.id) if run.state == "queued"]
    with rig.database.read() as session:
        first, second = Metrics(session).over_seeds([job.id], ["a"])[job.id]["a"]
    assert (first.spread.n, first.spread.mean, first.missing_seeds) == (2, 1.5, missing)
    assert first.spread.std == pytest.approx(0.7071067811865476)
    assert (second.spread.n, second.spread.std, len(second.missing_seeds)) == (1, None, 2)


def test_curves_over_seeds_are_thinned_at_the_same_steps_for_every_job(rig):
    short, long = rig.submit("sft", name="short", seeds=[0, 1]), rig.submit("sft", name="long", seeds=[0])
    for _ in range(3):
        taken = rig.started()
        num_steps = 10 if taken.job_id == short.id else 40
        with rig.database.write() as session:
            append_metrics(session, taken, [(step, {"a": float(step), "b": 0.0}) for step in range(1, num_steps + 1)])
    with rig.database.read() as session:
        curves = Metrics(session).over_seeds([short.id, long.id], ["a"], max_points=8)
        assert Metrics(session).over_seeds([new_id()]) == {}
    assert [curves[job.id].keys() for job in (short, long)] == [{"a"}, {"a"}]
    assert [(point.step, point.spread.mean, point.spread.n) for point in curves[short.id]["a"]] == [
        (5, 3.0, 2),
        (10, 8.0, 2),
    ]
    assert [point.step for point in curves[long.id]["a"]] == list(range(5, 41, 5))
    assert {point.spread.std for point in curves[short.id]["a"]} == {0.0}


def test_logs_go_on_after_the_last_piece_seen_across_attempts(rig):
    rig.submit()
    for attempt in (1, 2):
        taken = rig.started()
        with rig.database.write() as session:
            for chunk in range(3):
                append_log(session, taken, chunk, f"{attempt}.{chunk}")
        rig.finish(taken, Outcome.STOPPED)
    with rig.database.read() as session:
        logs = Logs(session)
        first = logs.chunks(taken.run_id, limit=4)
        rest = logs.chunks(taken.run_id, after=(2, 0))
        assert [piece.text for piece in first.rows] == ["1.0", "1.1", "1.2", "2.0"]
        assert ([piece.text for piece in rest.rows], rest.has_more) == (["2.1", "2.2"], False)
        assert first.has_more
        assert [piece.text for piece in logs.tail(taken.run_id, 2)] == ["2.1", "2.2"]
        assert [piece.text for piece in logs.tail(taken.run_id, 9, attempt=1)] == ["1.0", "1.1", "1.2"]


def test_events_are_paged_by_their_number(sqlite_rig):
    job = sqlite_rig.submit()
    taken = sqlite_rig.started()
    with sqlite_rig.database.write() as session:
        for number in range(5):
            add_event(session, taken, str(number), "warning" if number == 3 else "info")
    with sqlite_rig.database.read() as session:
        events = Events(session)
        last = events.page(job.id, limit=2, order="desc").rows
        assert [event.message for event in last] == ["4", "3"]
        assert [event.message for event in events.page(job.id, after=last[1].seq).rows] == ["4"]
        assert [event.message for event in events.page(job.id, level="warning").rows] == ["3"]


def test_results_know_the_seeds_that_were_to_be_evaluated(rig):
    experiment = rig.submit_experiment(rig.spec("sft", seeds=[0, 1]), rig.spec("evaluation", seeds=[0, 1]))
    rig.finish(rig.started())
    rig.finish(rig.started())
    taken = rig.started()
    row = ResultRow(benchmark="sums", metric="pass@1", decoding="t1.0", eval_seed=0, value=0.5, num_examples=4)
    rig.finish(taken, collected=Collected(results=[row]))
    with rig.database.read() as session:
        results = Results(session)
        assert results.expected_seeds(experiment_id=experiment.id) == {"sft": {0, 1}}
        assert results.expected_seeds(job_id=taken.job_id) == {"sft": {0, 1}}
        (found,) = results.page(experiment_id=experiment.id, eval_seed=0, decoding="t1.0").rows
        assert (found.run_id, results.all(job_id=taken.job_id)) == (taken.run_id, [found])
        assert results.page(train_seed=9).rows == []


def test_results_name_what_they_measured_once_for_all_runs(rig):
    rig.submit_experiment(rig.spec("sft", seeds=[0, 1]), rig.spec("evaluation", seeds=[0, 1]))
    rig.finish(rig.started())
    rig.finish(rig.started())
    name, document = "a" * 64, {"benchmark": "sums", "note": "\x00", "top_p": math.nan}
    for _ in range(2):
        row = {"benchmark": "sums", "metric": "pass@1", "decoding": "t1.0", "eval_seed": 0, "num_examples": 4}
        result = ResultRow(**row, value=0.5, stderr_over_examples=0.25, configuration=name)
        rig.finish(rig.started(), collected=Collected(results=[result], configurations={name: document}))
    with rig.database.read() as session:
        results = Results(session)
        assert [(found.stderr_over_examples, found.configuration) for found in results.page().rows] == [
            (0.25, name)
        ] * 2
        known = {name: {"benchmark": "sums", "note": "\ufffd", "top_p": None}}
        assert results.configurations([name, "b" * 64]) == known


def test_a_completion_keeps_all_that_was_made_of_it(rig):
    rig.submit_experiment(rig.spec("sft"), rig.spec("evaluation"))
    rig.finish(rig.started())
    taken = rig.started()
    text = {"prompt": "p", "completion": "c", "reference": "r", "extracted": None}
    row = {"benchmark": "mmlu", "example_id": "1", "decoding": "likelihood", "eval_seed": None, "truncated": False}
    more = {"sample_index": 3, "value": math.inf, "reason": "why\x00", "num_tokens": 7, "choice_logprobs": [-1.5, -2.0]}
    kept = {"values": {"chars": 12.0, "none": None}, "details": {"subject": ["a\ud800", math.nan]}}
    completion = CompletionRow(**row, **text, **more, **kept, verdict="scored", correct=None)
    rig.finish(taken, collected=Collected(completions=[completion]))
    with rig.database.read() as session:
        (found,) = Results(session).all_completions(taken.run_id)
    assert (found.sample_index, found.value, found.reason, found.num_tokens) == (3, None, "why\ufffd", 7)
    assert (found.choice_logprobs, found.values) == ([-1.5, -2.0], {"chars": 12.0, "none": None})
    assert found.details == {"subject": ["a\ufffd", None]}


def test_what_does_not_exist_is_not_found(sqlite_rig):
    with sqlite_rig.database.read() as session:
        for repository in (Jobs, Experiments, Runs, Checkpoints, Workers, Keys):
            with pytest.raises(NotFound):
                repository(session).get(new_id())


def test_workers_come_are_seen_and_go(rig):
    with rig.database.write() as session:
        workers = Workers(session)
        worker_id = workers.register(
            host="h", pid=1, dispatcher="local", queues=["lco.cpu"], labels=["a"], slots=2, gpus=[0]
        )
        before = workers.get(worker_id).last_seen_at
    with rig.database.write() as session:
        assert Workers(session).seen(worker_id, is_draining=True)
        assert not Workers(session).seen(new_id())
    with rig.database.write() as session:
        worker = Workers(session).get(worker_id)
        assert (worker.is_draining, worker.last_seen_at > before) == (True, True)
        assert [row.id for row in Workers(session).page().rows] == [worker_id]
        Workers(session).remove(worker_id)
    with rig.database.read() as session:
        assert Workers(session).page().rows == []


@pytest.fixture
def key(rig):
    """An API key."""
    with rig.database.write() as session:
        return Keys(session).create(name="k", secret_sha256="0" * 64, scope="write")


def test_a_key_is_valid_until_it_expires_or_is_revoked(rig, key):
    with rig.database.write() as session:
        keys = Keys(session)
        past = database_time(session) - timedelta(seconds=1)
        old = keys.create(name="old", secret_sha256="1" * 64, scope="read", expires_at=past)
        assert keys.exist()
        assert keys.valid(key.id).id == key.id
        assert keys.valid(old.id) is None
        keys.open_session(token_sha256="a", api_key_id=key.id, lifetime=timedelta(hours=1))
        assert keys.session_key("a").id == key.id
        keys.revoke(key.id)
        assert keys.valid(key.id) is None
        assert keys.session_key("a") is None
        assert keys.revoke(key.id).revoked_at is not None


def test_the_use_of_a_key_is_noted_at_most_once_a_minute(rig, key):
    with rig.database.write() as session:
        Keys(session).touch(key.id)
    with rig.database.write() as session:
        first = Keys(session).get(key.id).last_used_at
        Keys(session).touch(key.id)
    with rig.database.read() as session:
        assert Keys(session).get(key.id).last_used_at == first


def test_a_login_link_works_once_and_is_no_session(rig, key):
    with rig.database.write() as session:
        keys = Keys(session)
        keys.open_session(token_sha256="l", api_key_id=key.id, lifetime=timedelta(hours=1), is_link=True)
        assert keys.session_key("l") is None
        assert keys.use_link("l").id == key.id
        assert keys.use_link("l") is None


def test_ended_sessions_are_no_use_and_are_removed(rig, key):
    with rig.database.write() as session:
        keys = Keys(session)
        for token, is_link in (("s", False), ("l", True)):
            keys.open_session(token_sha256=token, api_key_id=key.id, lifetime=timedelta(seconds=-1), is_link=is_link)
        keys.open_session(token_sha256="closed", api_key_id=key.id, lifetime=timedelta(hours=1))
        keys.close_session("closed")
        assert (keys.session_key("s"), keys.use_link("l"), keys.session_key("closed")) == (None, None, None)
        keys.prune()
        assert session.query(BrowserSession).count() == 0


def test_an_idempotency_key_is_taken_once_and_gives_the_reply_back(rig, key):
    request = {"api_key_id": key.id, "key": "k"}
    with rig.database.write() as session:
        assert Keys(session).reserve(**request, request_sha256="a" * 64) is None
        Keys(session).keep_reply(**request, status_code=201, body={"id": "job_x"})
    with rig.database.write() as session:
        kept = Keys(session).reserve(**request, request_sha256="b" * 64)
        assert (kept.request_sha256, kept.status_code, kept.body) == ("a" * 64, 201, {"id": "job_x"})
        Keys(session).prune(keep_replies=timedelta(seconds=-1))
    with rig.database.write() as session:
        assert Keys(session).reserve(**request, request_sha256="b" * 64) is None


def test_a_request_that_failed_frees_its_idempotency_key(rig, key):
    request = {"api_key_id": key.id, "key": "k", "request_sha256": "a" * 64}
    with pytest.raises(RuntimeError), rig.database.write() as session:
        Keys(session).reserve(**request)
        raise RuntimeError
    with rig.database.write() as session:
        assert Keys(session).reserve(**request) is None
