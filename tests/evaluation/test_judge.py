"""The judge over HTTP: the published preferences come back, through every trouble, and no recorded call is repeated."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from evaluation.endpoint import CircuitOpen, EndpointRejected, SpendingCapReached
from evaluation.judge import Comparison, Judge
from evaluation.judge_config import JudgeConfig
from evaluation.preferences import is_switched
from evaluation.records import Journal
from evaluation.scoring.alpaca_eval import judge_outputs, score_annotations
from tests.evaluation.alpaca_files import SHARED, published_example
from tests.evaluation.judge_server import Answer, JudgeServer
from tests.evaluation.replay import replaying, shown

needs_data = pytest.mark.skipif(not SHARED.exists(), reason=f"no AlpacaEval data at {SHARED}")
ENDPOINT = {
    "api": "openai", "model": "judge", "backoff_seconds": 0.01, "max_backoff_seconds": 0.02, "breaker_seconds": 0.05,
    "timeout_seconds": 5.0,
}  # fmt: skip


def judge_config(server, endpoint=None, **changes):
    endpoint = ENDPOINT | {"base_url": f"{server.origin}/v1"} | (endpoint or {})
    return JudgeConfig.model_validate({"endpoint": endpoint} | changes)


def judge_of(server, journal=None, endpoint=None, **changes):
    return closing(Judge(judge_config(server, endpoint, **changes), journal=journal, environment={}))


def comparison(number=0, output="mine"):
    return Comparison(instruction=f"do {number}", reference="theirs", output=output)


def preferring_the_model(call):
    """A judge that likes the output `mine` with probability 0.9, wherever it is shown."""
    _, first, _ = shown(call)
    return Answer(
        logprobs={"m": -0.105360516, "M": -2.302585093}
        | ({} if first == "mine" else {"m": -2.302585093, "M": -0.105360516})
    )


def test_the_call_is_alpaca_evals():
    with JudgeServer(preferring_the_model) as server, judge_of(server) as judge:
        judge.compare(comparison())
        body = server.calls[0].body
        assert {name: body[name] for name in ("max_tokens", "temperature", "logprobs", "top_logprobs")} == {
            "max_tokens": 1, "temperature": 1.0, "logprobs": True, "top_logprobs": 5,
        }  # fmt: skip


def test_a_preference_does_not_depend_on_the_order_in_which_outputs_are_shown():
    with JudgeServer(preferring_the_model) as server, judge_of(server) as judge:
        found = dict(judge.compare_all(comparison(number) for number in range(20)))
        assert {one.is_model_first for one in found.values()} == {True, False}
        for number, one in found.items():
            assert one.preference == pytest.approx(1.9) and one.is_model_first is is_switched(f"do {number}")
        for call in server.calls:
            instruction, first, _ = shown(call)
            assert (first == "mine") is is_switched(instruction)


def test_equal_outputs_are_a_tie_without_a_call():
    with JudgeServer() as server, judge_of(server) as judge:
        one = judge.compare(comparison(output="theirs"))
        assert (one.preference, one.reason, server.calls) == (1.5, "equal outputs", [])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(logprobs={"x": -0.1}), "neither_token"),
        (Answer(logprobs=None), "no_logprobs"),
        (b"not json", "garbage"),
    ],
)
def test_a_reply_that_says_nothing_is_no_preference_with_its_reason(answer, reason):
    with JudgeServer(lambda call: answer) as server, judge_of(server, endpoint={"max_attempts": 2}) as judge:
        one = judge.compare(comparison())
        assert (one.preference, one.reason) == (None, reason)


def test_a_refused_comparison_is_no_preference_and_the_others_go_on():
    def fault(call):
        return "400 content_filter" if shown(call)[0] == "do 3" else ""

    with JudgeServer(preferring_the_model, fault) as server, judge_of(server) as judge:
        found = dict(judge.compare_all(comparison(number) for number in range(8)))
        assert {n for n, one in found.items() if one.preference is None} == {3}
        assert found[3].reason == "rejected_content_filter"


def test_a_server_without_log_probabilities_is_found_out_early():
    with JudgeServer(lambda call: Answer(logprobs=None)) as server, judge_of(server) as judge:
        with pytest.raises(ValueError, match="sampled-token"):
            list(judge.compare_all(comparison(number) for number in range(200)))
        assert server.stats()["requests"] <= 8 + 8


def test_sampled_answers_count_alone_where_the_configuration_says_so():
    def answer(call):
        return Answer(text="m" if shown(call)[1] == "mine" else "M")

    with JudgeServer(answer) as server, judge_of(server, weighting="sampled-token", max_tokens=9) as judge:
        found = dict(judge.compare_all(comparison(number) for number in range(6)))
        assert {one.preference for one in found.values()} == {2.0}
        assert "logprobs" not in server.calls[0].body and server.calls[0].body["max_tokens"] == 9


def test_the_annotator_is_named_after_weighting_and_model():
    names = {
        JudgeConfig.model_validate({"endpoint": {"api": "openai", "model": model}} | change).annotator
        for model, change in (("gpt-4-1106-preview", {}), ("x", {}), ("x", {"weighting": "sampled-token"}))
    }
    assert names == {"weighted_alpaca_eval_gpt4_turbo", "weighted_alpaca_eval_x", "unweighted_alpaca_eval_x"}


def test_log_probabilities_of_several_tokens_are_refused():
    with pytest.raises(ValueError, match="max_tokens"):
        JudgeConfig.model_validate({"endpoint": {"api": "openai", "model": "m"}, "max_tokens": 2})


def test_an_estimate_beyond_the_cap_is_refused_before_any_call():
    endpoint = {"prices": {"input_per_million": 10.0}, "spending_cap": 0.5}
    with JudgeServer() as server, judge_of(server, endpoint=endpoint) as judge:
        price = judge.check_estimate([comparison(number) for number in range(50)])
        assert 0.5 > price == pytest.approx(50 * 1600 / 4 * 10 / 1e6, rel=0.2)
        with pytest.raises(SpendingCapReached, match="spending_cap"):
            judge.check_estimate([comparison(number) for number in range(500)])
        assert judge.check_estimate([comparison(number, "theirs") for number in range(500)]) == 0
        assert server.calls == []


@pytest.mark.parametrize(("fault", "error"), [("401", EndpointRejected), ("500", CircuitOpen)])
def test_what_ends_every_call_ends_the_comparisons(fault, error):
    endpoint = {"breaker_failures": 2, "breaker_probes": 1, "max_attempts": 20}
    with (
        JudgeServer(faults=lambda call: fault) as server,
        judge_of(server, endpoint=endpoint) as judge,
        pytest.raises(error),
    ):
        list(judge.compare_all(comparison(number) for number in range(20)))


@pytest.mark.parametrize("text", ["\ud800", "{instruction} {output_1}", "\x00\x07", "<|im_end|>", "x" * 2_000_000])
def test_no_output_raises(text):
    with JudgeServer() as server, judge_of(server) as judge:
        assert judge.compare(comparison(output=text)).preference is not None
        assert judge.compare(Comparison(instruction=text, reference="a", output="b")).preference is not None


@needs_data
def test_a_replayed_judge_gives_the_published_preferences_through_every_trouble(tmp_path):
    rows, _ = published_example("claude-2")
    faults = ["429", "500", "cut", "garbage", "html", "503", "408", "429 0.01"]

    def fault(call):
        troubled = hash_of(shown(call)[0]) % 10 < 3  # three in ten calls fail, some of them twice
        return faults[hash_of(shown(call)[0]) % len(faults)] if troubled and call.repeat < 1 + call.number % 2 else ""

    comparisons = [
        Comparison(instruction=row["instruction"], reference=row["output_1"], output=row["output_2"]) for row in rows
    ]
    with (
        JudgeServer(replaying(rows), fault) as server,
        Journal(tmp_path / "j.jsonl") as journal,
        judge_of(server, journal, endpoint={"breaker_failures": 30}) as judge,
    ):
        found = dict(judge.compare_all(comparisons))
        assert len(found) == 805
        for place, row in enumerate(rows):
            assert found[place].preference == pytest.approx(row["preference"], abs=1e-6)
        stats = server.asked_stats()
        assert stats["answered"] == stats["different"] == 804 and stats["repeated"] > 200
        assert judge.usage()["num_calls"] == 804 and judge.usage()["num_tries"] == stats["requests"]


def hash_of(text):
    return sum(text.encode())


def test_outputs_that_exist_are_judged_into_annotations(tmp_path):
    reference = [{"instruction": f"do {n}", "output": "theirs", "generator": "base", "dataset": "d"} for n in range(6)]
    outputs = [{"instruction": f"do {n}", "output": "mine", "generator": "model"} for n in (4, 2, 0)]
    with JudgeServer(preferring_the_model) as server, judge_of(server) as judge:
        rows = judge_outputs(outputs, reference, judge)
        assert [row["instruction"] for row in rows] == ["do 0", "do 2", "do 4"]
        assert [row["preference"] for row in rows] == pytest.approx([1.9] * 3)
        assert (rows[0]["generator_1"], rows[0]["generator_2"], rows[0]["dataset"]) == ("base", "model", "d")
        per_row, summary = score_annotations(rows, instructions=reference)
        assert summary["win_rate"] == pytest.approx(90) and (summary["n_total"], summary["n_missing"]) == (3, 3)
        assert all(row["preference"] == pytest.approx(row["preference_from_logprobs"]) for row in per_row)


@pytest.mark.parametrize(
    ("outputs", "complaint"),
    [
        ([{"instruction": "do 1", "output": "a"}] * 2, "outputs: row 2 repeats"),
        ([{"instruction": "do 1"}], "outputs: row 1 has no text"),
        ([{"instruction": "other", "output": "a"}], "1 instructions are not the reference's, such as 'other'"),
    ],
)
def test_outputs_of_another_form_are_refused_before_any_call(outputs, complaint):
    with JudgeServer() as server, judge_of(server) as judge:
        with pytest.raises(ValueError, match=complaint):
            judge_outputs(outputs, [{"instruction": "do 1", "output": "b"}], judge)
        assert server.calls == []


KILLED = """
import json, sys
from pathlib import Path
from evaluation.judge import Comparison, Judge
from evaluation.judge_config import JudgeConfig
from evaluation.records import Journal
config, directory, *earlier = sys.argv[1:]
journal = Journal(Path(directory, "j.jsonl"), [Path(one, "j.jsonl") for one in earlier])
judge = Judge(JudgeConfig.model_validate_json(config), journal=journal)
comparisons = [Comparison(instruction=f"do {n}", reference="theirs", output="mine") for n in range(60)]
found = {place: judgement.preference for place, judgement in judge.compare_all(comparisons)}
print(json.dumps([found[n] for n in range(60)]))
"""


def test_no_recorded_call_is_repeated_after_kills_and_repeats_never_exceed_the_calls_in_flight(tmp_path):
    in_flight, num_kills = 4, 2
    with JudgeServer(preferring_the_model, seconds=0.02) as server:
        config = judge_config(server, endpoint={"max_concurrency": in_flight}).model_dump_json()
        directories = [tmp_path / str(number) for number in range(num_kills + 1)]
        for number, directory in enumerate(directories):
            directory.mkdir()
            command = [sys.executable, "-c", KILLED, config, str(directory), *map(str, directories[:number][::-1])]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], env=os.environ | {"PYTHONPATH": "."}
            )
            if number < num_kills:
                at = server.stats()["requests"] + 9 + 3 * number
                while server.stats()["requests"] < at:
                    time.sleep(0.002)
                process.send_signal(signal.SIGKILL)
            answer, _ = process.communicate()
        assert json.loads(answer) == pytest.approx([1.9] * 60)
        stats = server.asked_stats()
        assert stats["different"] == 60 and stats["repeated"] <= num_kills * in_flight
        recorded = [
            json.loads(line)["key"] for path in directories for line in (path / "j.jsonl").read_text().splitlines()
        ]
        replies = [key for key in recorded if recorded.count(key) == 1]
        assert len(replies) == 60  # no reply was recorded twice; the running total of the spending is
