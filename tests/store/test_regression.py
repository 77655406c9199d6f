import threading
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from store import holders
from store.errors import Conflict, Invalid, NotFound
from store.ids import decode_id, encode_id
from store.models.base import utc_now
from store.models.job import Job
from store.models.project import DEFAULT_PROJECT_ID
from store.models.record import Checkpoint
from store.models.run import Run
from store.models.suite import Suite, SuiteEvaluation, Verdict
from store.regression import request_verdict, retry_verdict
from store.repositories.aliases import Aliases
from store.repositories.suites import Suites, Verdicts
from store.triggers import fire_due
from store.verdicts import advance, conclude
from tests.store.laboratory import BAD, GOOD, Laboratory, answers

on_each_engine = pytest.mark.usefixtures("rig")
"""For claims that depend on the engine; the others are made on SQLite alone."""


@pytest.fixture
def lab(request):
    return Laboratory(request.getfixturevalue("rig" if "rig" in request.fixturenames else "sqlite_rig"))


@pytest.fixture
def champion(lab):
    """The baseline, under its name."""
    checkpoint_id = lab.checkpoint()
    lab.name("champion", checkpoint_id)
    return checkpoint_id


def num_evaluations(lab):
    with lab.database.read() as session:
        return session.scalar(select(func.count()).select_from(Job).where(Job.kind == "evaluation"))


def decided(lab, suite, checkpoint_id, told):
    """The verdict on a checkpoint, after the evaluations that it needs."""
    verdict = lab.request(suite, checkpoint_id)
    lab.evaluate(told)
    advance(lab.database)
    return lab.verdict(verdict.id)


@on_each_engine
def test_a_worsened_checkpoint_is_flagged_and_a_good_one_passes(lab, champion):
    suite, good, bad = lab.suite(), lab.checkpoint(), lab.checkpoint()
    told = {champion: answers(GOOD), good: answers(0.92), bad: answers(BAD)}
    passed, flagged = (decided(lab, suite, one, told) for one in (good, bad))
    assert (passed.state, passed.outcome) == ("decided", "pass")
    assert (flagged.state, flagged.outcome) == ("decided", "regressed")
    assert flagged.reason == "sums pass@1 t0.6-p0.95: dropped by more than allowed"
    figures = flagged.figures[0]
    assert (figures["value"], figures["baseline_value"], figures["difference"]) == (0.3, 0.9, pytest.approx(-0.6))
    assert (figures["num_losses"], figures["num_ties"], figures["num_wins"]) == (60, 40, 0)


def test_a_clearly_better_checkpoint_is_improved(lab, champion):
    better = lab.checkpoint()
    verdict = decided(lab, lab.suite(), better, {champion: answers(BAD), better: answers(GOOD)})
    assert verdict.outcome == "improved"


def test_a_checkpoint_is_evaluated_once_per_version_however_often_a_verdict_is_asked_for(lab, champion):
    suite, checkpoint_id = lab.suite(), lab.checkpoint()
    first = lab.request(suite, checkpoint_id)
    assert lab.request(suite, checkpoint_id, "checkpoint filter").id == first.id
    assert lab.request(suite, lab.checkpoint()).baseline_job_id == first.baseline_job_id
    assert num_evaluations(lab) == 3
    assert lab.verdict(first.id).cause == "manual"


def test_the_evaluation_of_a_judged_checkpoint_serves_it_as_a_baseline_too(lab, champion):
    suite, next_one, last = lab.suite(), lab.checkpoint(), lab.checkpoint()
    first = lab.request(suite, next_one)
    lab.name("champion", next_one)
    second = lab.request(suite, last)
    assert (second.baseline_id, second.baseline_job_id) == (next_one, first.job_id)
    assert lab.verdict(first.id).baseline_id == champion


def test_the_baseline_itself_passes(lab, champion):
    verdict = decided(lab, lab.suite(), champion, {champion: answers(GOOD)})
    assert (verdict.outcome, verdict.job_id) == ("pass", verdict.baseline_job_id)


@on_each_engine
def test_several_at_once_ask_for_one_verdict(lab, champion):
    suite, checkpoint_id = lab.suite(), lab.checkpoint()
    found = []
    threads = [threading.Thread(target=lambda: found.append(lab.request(suite, checkpoint_id).id)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert num_evaluations(lab) == 2


def test_a_verdict_is_pending_then_running_then_decided(lab, champion):
    suite, checkpoint_id = lab.suite(), lab.checkpoint()
    verdict = lab.request(suite, checkpoint_id)
    assert advance(lab.database) == []
    assert lab.verdict(verdict.id).state == "pending"
    taken = lab.rig.started()
    advance(lab.database)
    assert lab.verdict(verdict.id).state == "running"
    lab.end(taken, answers(GOOD))
    advance(lab.database)
    assert lab.verdict(verdict.id).state == "running"
    lab.evaluate({champion: answers(GOOD), checkpoint_id: answers(GOOD)})
    assert advance(lab.database) == [verdict.id]
    found = lab.verdict(verdict.id)
    assert (found.state, found.outcome) == ("decided", "pass")
    assert found.decided_at >= found.created_at


@on_each_engine
def test_several_reconcilers_decide_a_verdict_once(lab, champion):
    suite, checkpoint_id = lab.suite(), lab.checkpoint()
    lab.request(suite, checkpoint_id)
    lab.evaluate({champion: answers(GOOD), checkpoint_id: answers(GOOD)})
    found = []
    threads = [threading.Thread(target=lambda: found.extend(advance(lab.database))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1


@on_each_engine
def test_a_failed_evaluation_is_an_error_that_can_be_tried_again(lab, champion):
    suite, checkpoint_id = lab.suite(), lab.checkpoint()
    verdict = lab.request(suite, checkpoint_id)
    lab.fail("no such prompt")
    advance(lab.database)
    found = lab.verdict(verdict.id)
    assert found.state == "error"
    assert "evaluation failed (run_" in found.reason
    assert "no such prompt" in found.reason
    with lab.database.write() as session:
        again = retry_verdict(session, lab.rig.settings, verdict.id)
    assert (again.state, again.reason) == ("pending", "")
    assert (again.job_id, again.baseline_job_id) != (verdict.job_id, verdict.baseline_job_id)
    lab.evaluate({champion: answers(GOOD), checkpoint_id: answers(GOOD)})
    advance(lab.database)
    assert lab.verdict(verdict.id).outcome == "pass"
    with pytest.raises(Conflict, match="only a verdict that ended in an error"), lab.database.write() as session:
        retry_verdict(session, lab.rig.settings, verdict.id)


def test_a_baseline_that_is_gone_is_an_error_with_the_reason(lab, champion):
    suite, checkpoint_id = lab.suite(), lab.checkpoint()
    with lab.database.write() as session:
        Aliases(session).remove("champion")
    verdict = lab.request(suite, checkpoint_id)
    assert (verdict.state, verdict.reason) == ("error", "baseline alias:champion: there is no alias champion")
    assert num_evaluations(lab) == 0
    lab.name("champion", champion)
    with lab.database.write() as session:
        assert retry_verdict(session, lab.rig.settings, verdict.id).state == "pending"


def test_what_was_not_measured_alike_is_no_verdict(lab, champion):
    suite, checkpoint_id = lab.suite(), lab.checkpoint()
    verdict = lab.request(suite, checkpoint_id)
    for hash_ in ("a", "b"):
        lab.end(lab.rig.started(), answers(GOOD), hash_ * 64)
    advance(lab.database)
    found = lab.verdict(verdict.id)
    assert found.state == "error"
    assert "were not measured alike" in found.reason


def test_unscored_examples_are_left_out_and_too_many_decide_nothing(lab, champion):
    few, many = lab.checkpoint(), lab.checkpoint()
    suite = lab.suite()
    told = {champion: answers(GOOD)}
    told[few] = {seed: [*scores[:97], None, None, None] for seed, scores in answers(GOOD).items()}
    told[many] = {seed: [None] * 20 + list(scores[20:]) for seed, scores in answers(GOOD).items()}
    first, second = (decided(lab, suite, one, told) for one in (few, many))
    assert (first.outcome, first.figures[0]["num_left_out"], first.figures[0]["num_examples"]) == ("pass", 3, 97)
    assert second.outcome == "inconclusive"
    assert "20 of 100 examples have no value" in second.reason


def test_an_example_that_one_eval_seed_failed_on_keeps_the_value_of_the_others(lab, champion):
    checkpoint_id = lab.checkpoint()
    told = {champion: answers(GOOD), checkpoint_id: {0: answers(GOOD)[0], 1: [None] * 100}}
    verdict = decided(lab, lab.suite(), checkpoint_id, told)
    assert (verdict.outcome, verdict.figures[0]["num_left_out"]) == ("pass", 0)


@on_each_engine
def test_a_change_of_the_plan_makes_a_version_and_verdicts_name_theirs(lab, champion):
    suite, checkpoint_id = lab.suite(), lab.checkpoint()
    first = lab.request(suite, checkpoint_id)
    assert lab.change(suite, description="other words", triggers={"aliases": ["candidate"]}).version == 1
    assert lab.change(suite, gates=[{"benchmark": "sums", "max_drop": 0.2}]).version == 2
    assert lab.change(suite, gates=[{"benchmark": "sums", "max_drop": 0.2}]).version == 2
    second = lab.request(suite, checkpoint_id)
    assert (first.version, second.version) == (1, 2)
    with lab.database.read() as session:
        assert [Suites(session).plan(suite.id, n).gates[0].max_drop for n in (1, 2)] == [0.1, 0.2]


def test_a_suite_is_refused_where_its_baseline_does_not_exist(lab):
    with pytest.raises(Invalid, match="/baseline: there is no alias champion"):
        lab.suite()
    with pytest.raises(Invalid, match="/baseline"):
        lab.suite(baseline=encode_id("ckpt", decode_id("ckpt", "ckpt_" + "0" * 26)))


@on_each_engine
def test_two_suites_of_a_project_have_two_names(lab, champion):
    first = lab.suite()
    with pytest.raises(Conflict, match="nightly"):
        lab.suite()
    other = lab.suite(name="weekly")
    with pytest.raises(Conflict, match="nightly"):
        lab.change(other, name="nightly")
    assert lab.change(other, name="monthly").name == "monthly"
    assert first.name == "nightly"


def test_what_is_no_model_gets_no_verdict(lab, champion):
    suite = lab.suite()
    unknown = decode_id("ckpt", "ckpt_" + "0" * 26)
    with pytest.raises(NotFound):
        lab.request(suite, unknown)
    with lab.database.write() as session:
        Suites(session).archive(suite.id)
    with pytest.raises(Conflict, match="archived"):
        lab.request(suite, champion)


def test_a_foreign_project_has_no_such_suite(lab, champion):
    suite = lab.suite()
    with pytest.raises(NotFound), lab.database.write() as session:
        request_verdict(
            session,
            lab.rig.settings,
            suite_id=suite.id,
            checkpoint_id=champion,
            cause="manual",
            project_id=decode_id("prj", "prj_" + "0" * 25 + "7"),
        )


def held(lab, checkpoint_id):
    with lab.database.read() as session:
        return holders.of_checkpoints(session, [session.get_one(Checkpoint, checkpoint_id)]).get(checkpoint_id, [])


@on_each_engine
def test_an_open_verdict_and_a_suite_with_a_fixed_baseline_hold_checkpoints(lab):
    base, checkpoint_id = lab.checkpoint(), lab.checkpoint()
    name = encode_id("ckpt", base)
    assert held(lab, base) == []
    suite = lab.suite(baseline=name)
    assert held(lab, base) == ["it is the baseline of the suite nightly"]
    verdict = lab.request(suite, checkpoint_id)
    reason = f"{encode_id('vrd', verdict.id)} is not decided yet"
    assert reason in held(lab, checkpoint_id)
    assert reason in held(lab, base)
    lab.evaluate(dict.fromkeys((base, checkpoint_id), answers(GOOD)))
    advance(lab.database)
    assert held(lab, checkpoint_id) == []
    with lab.database.write() as session:
        Suites(session).archive(suite.id)
    assert held(lab, base) == []


def test_a_deleted_checkpoint_is_refused(lab, champion):
    suite, checkpoint_id = lab.suite(), lab.checkpoint()
    with lab.database.write() as session:
        row = session.get_one(Checkpoint, checkpoint_id)
        row.deleted_at, row.deleted_reason = utc_now(), "it expired"
    with pytest.raises(Invalid, match="was deleted on"):
        lab.request(suite, checkpoint_id)


@on_each_engine
def test_a_baseline_whose_completions_are_gone_is_evaluated_anew(lab, champion):
    suite, first, second = lab.suite(), lab.checkpoint(), lab.checkpoint()
    told = dict.fromkeys((champion, first, second), answers(GOOD))
    before = decided(lab, suite, first, told)
    open_one = lab.request(suite, second)
    assert open_one.baseline_job_id == before.baseline_job_id
    with lab.database.write() as session:
        purge = update(Run).where(Run.job_id == before.baseline_job_id)
        session.execute(purge.values(purged={"completions": "2026-01-01"}))
    lab.evaluate(told)
    advance(lab.database)
    found = lab.verdict(open_one.id)
    assert (found.state, found.reason) == (
        "error",
        "the completions of the baseline's evaluation were deleted by age",
    )
    with lab.database.write() as session:
        again = retry_verdict(session, lab.rig.settings, open_one.id)
    assert again.baseline_job_id != before.baseline_job_id
    assert again.job_id == open_one.job_id
    lab.evaluate(told)
    advance(lab.database)
    assert lab.verdict(open_one.id).outcome == "pass"


class TestTriggers:
    def fire(self, lab):
        return fire_due(lab.database, lab.rig.settings)

    @on_each_engine
    def test_new_checkpoints_that_meet_the_filter_are_judged_once(self, lab, champion):
        lab.suite(triggers={"checkpoints": {"kinds": ["sft"], "metadata": {"team": "a"}, "step_multiple": 10}})
        lab.checkpoint(metadata={"team": "b"})
        lab.checkpoint(metadata={"team": "a"}, step=15)
        wanted = lab.checkpoint(metadata={"team": "a", "more": "x"}, step=20)
        assert len(self.fire(lab)) == 1
        assert self.fire(lab) == []
        (verdict,) = lab.verdicts()
        assert (verdict.checkpoint_id, verdict.cause) == (wanted, "checkpoint filter")

    def test_checkpoints_from_before_the_filter_are_not_judged(self, lab, champion):
        suite = lab.suite()
        lab.checkpoint()
        lab.change(suite, triggers={"checkpoints": {}})
        assert self.fire(lab) == []
        later = lab.checkpoint()
        self.fire(lab)
        assert [verdict.checkpoint_id for verdict in lab.verdicts()] == [later]

    def test_a_new_version_judges_no_old_checkpoint_anew(self, lab, champion):
        suite = lab.suite(triggers={"checkpoints": {}})
        lab.checkpoint()
        self.fire(lab)
        lab.change(suite, level=0.01)
        assert self.fire(lab) == []

    @on_each_engine
    def test_whatever_an_alias_comes_to_mean_is_judged(self, lab, champion):
        suite = lab.suite(triggers={"aliases": ["candidate"]})
        assert self.fire(lab) == []
        first, second = lab.checkpoint(), lab.checkpoint()
        for checkpoint_id in (first, second, first):
            lab.name("candidate", checkpoint_id)
            self.fire(lab)
        assert [verdict.checkpoint_id for verdict in lab.verdicts()] == [first, second]
        assert {verdict.cause for verdict in lab.verdicts()} == {"alias candidate"}
        lab.change(suite, level=0.01)
        assert len(self.fire(lab)) == 1

    @on_each_engine
    def test_several_reconcilers_fire_each_once(self, lab, champion):
        lab.suite(triggers={"checkpoints": {}, "aliases": ["candidate"]})
        for _ in range(3):
            lab.name("candidate", lab.checkpoint())
        threads = [threading.Thread(target=lambda: self.fire(lab)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(lab.verdicts()) == 3
        assert num_evaluations(lab) == 4

    def test_an_archived_suite_fires_nothing_and_forgets_what_it_missed(self, lab, champion):
        suite = lab.suite(triggers={"checkpoints": {}})
        with lab.database.write() as session:
            Suites(session).archive(suite.id)
        lab.checkpoint()
        assert self.fire(lab) == []
        with lab.database.write() as session:
            Suites(session).archive(suite.id, is_archived=False)
        assert self.fire(lab) == []

    @on_each_engine
    def test_the_scan_moves_on_and_finds_what_was_written_late(self, lab, champion):
        suite = lab.suite(triggers={"checkpoints": {}})
        long_ago = utc_now() - timedelta(hours=2)
        with lab.database.write() as session:
            session.execute(update(Suite).values(watched_from=long_ago, scanned_to=long_ago))
        self.fire(lab)
        assert {verdict.checkpoint_id for verdict in lab.verdicts()} == {champion}
        with lab.database.read() as session:
            assert Suites(session).get(suite.id).scanned_to > long_ago
        late = lab.checkpoint()  # written, as its row says, before the scan
        self.fire(lab)
        assert lab.verdicts()[-1].checkpoint_id == late


class TestPromotion:
    @on_each_engine
    def test_a_passing_checkpoint_gets_the_name_and_a_regressed_one_does_not(self, lab, champion):
        suite = lab.suite(promote={"alias": "champion"})
        good, bad = lab.checkpoint(), lab.checkpoint()
        told = {champion: answers(GOOD), good: answers(GOOD), bad: answers(BAD)}
        assert decided(lab, suite, good, told).promoted_alias == "champion"
        assert lab.named("champion") == good
        assert decided(lab, suite, bad, told).promoted_alias == ""
        assert lab.named("champion") == good

    def test_only_an_improved_one_where_the_suite_says_so(self, lab, champion):
        suite = lab.suite(promote={"alias": "best", "on": "improved"})
        equal, better = lab.checkpoint(), lab.checkpoint()
        told = {champion: answers(0.5), equal: answers(0.5), better: answers(GOOD)}
        assert decided(lab, suite, equal, told).outcome == "pass"
        assert decided(lab, suite, better, told).promoted_alias == "best"
        assert lab.named("best") == better

    @on_each_engine
    def test_an_older_checkpoint_never_replaces_a_newer_promotion(self, lab, champion):
        suite = lab.suite(promote={"alias": "production"})
        older, newer = lab.checkpoint(), lab.checkpoint()
        told = dict.fromkeys((champion, older, newer), answers(GOOD))
        assert decided(lab, suite, newer, told).promoted_alias == "production"
        late = decided(lab, suite, older, told)
        assert (late.outcome, late.promoted_alias) == ("pass", "")
        assert late.promotion_note.endswith("which has the name, is newer")
        assert lab.named("production") == newer

    def test_a_name_that_went_on_meanwhile_stays_where_it_is(self, lab, champion):
        suite = lab.suite(promote={"alias": "champion"})
        other, checkpoint_id = lab.checkpoint(), lab.checkpoint()
        verdict = lab.request(suite, checkpoint_id)
        lab.name("champion", other)
        lab.evaluate(dict.fromkeys((champion, checkpoint_id), answers(GOOD)))
        advance(lab.database)
        found = lab.verdict(verdict.id)
        assert (found.outcome, found.promoted_alias) == ("pass", "")
        assert "with which it was not compared" in found.promotion_note
        assert lab.named("champion") == other


@on_each_engine
def test_history_counts_and_latest_follow_the_verdicts(lab, champion):
    suite, other = lab.suite(), lab.suite(name="weekly")
    older, newer = lab.checkpoint(), lab.checkpoint()
    told = {champion: answers(GOOD), older: answers(BAD), newer: answers(GOOD)}
    later, earlier = decided(lab, suite, newer, told), decided(lab, suite, older, told)
    with lab.database.read() as session:
        verdicts = Verdicts(session)
        assert [verdict.id for verdict, _ in verdicts.history(suite.id, 10)] == [earlier.id, later.id]
        assert verdicts.latest([suite.id, other.id])[suite.id].id == earlier.id
        counts = verdicts.counts([suite.id, other.id])
    assert counts[suite.id].by_outcome == {"pass": 1, "regressed": 1}
    assert (counts[other.id].by_outcome, counts[other.id].num_open) == ({}, 0)


def test_a_verdict_that_is_decided_stays_as_it_is(lab, champion):
    verdict = decided(lab, lab.suite(), champion, {champion: answers(GOOD)})
    assert not conclude(lab.database.confined(DEFAULT_PROJECT_ID), verdict.id)
    with lab.database.read() as session:
        assert session.scalar(select(func.count()).select_from(SuiteEvaluation)) == 1
        assert session.scalar(select(func.count()).select_from(Verdict)) == 1
