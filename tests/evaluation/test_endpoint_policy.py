"""A policy behind an endpoint: a whole evaluation over HTTP, its troubles, and its resuming."""

import json
from contextlib import closing

import pytest

from evaluation.config import EvalConfig
from evaluation.limits import CircuitOpen
from evaluation.results import read_completions, read_results
from evaluation.run import TooManyErrors, evaluate
from lco.stage import Stage
from tests.evaluation.judge_server import Answer, JudgeServer

SUMS = {"name": "sums", "problems": {"split": "test", "num_problems": 12, "num_terms": 2}, "max_tokens": 9}


def answer(call):
    """The sum that was asked for; that of an even one is cut."""
    terms = call.body["messages"][-1]["content"].removesuffix("=").split("+")
    total = sum(map(int, terms))
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return Answer(f"={total}", None, usage=usage, finish_reason="length" if total % 2 == 0 else "stop")


def document(server, **changes):
    prices = {"input_per_million": 1000.0, "output_per_million": 2000.0}
    quick = {"backoff_seconds": 0.01, "max_backoff_seconds": 0.02, "breaker_seconds": 0.01, "max_attempts": 3}
    endpoint = {"base_url": f"{server.origin}/v1", "model": "sums-7b", "prices": prices, **quick}
    policy = {"endpoint": {"api": "openai", **endpoint}}
    return {"policy": policy, "benchmarks": [SUMS], "eval_seeds": [0, 1], "seed": 3, **changes}


def run(config, directory, *earlier):
    with closing(Stage(directory, list(earlier))) as stage:
        evaluate(EvalConfig.model_validate(config), stage)
    return list(read_completions(directory))


def spent(directory):
    """US dollars that a run says it cost in all."""
    records = [json.loads(line) for line in (directory / "progress.jsonl").read_text().splitlines()]
    return [record["usd"] for record in records if record["type"] == "spending"][-1]


def test_a_model_behind_an_endpoint_is_evaluated_like_any_other(tmp_path):
    with JudgeServer(answer) as server:
        completions = run(document(server), tmp_path / "run")
        bodies = [call.body for call in server.calls]
    assert len(completions) == len(bodies) == 24
    assert all(completion.correct and completion.num_tokens == 5 for completion in completions)
    even = {completion.example_id for completion in completions if int(completion.reference) % 2 == 0}
    assert {completion.example_id for completion in completions if completion.truncated} == even
    assert {(body["model"], body["temperature"], body["top_p"]) for body in bodies} == {("sums-7b", 0.6, 0.95)}
    assert len({body["seed"] for body in bodies}) == 24 and max(body["seed"] for body in bodies) < 1 << 31
    progress = [json.loads(line) for line in (tmp_path / "run/progress.jsonl").read_text().splitlines()]
    messages = [record["message"] for record in progress if record["type"] == "progress"]
    assert messages[-1] == "all: 24 of 24 scored, $0.48 spent"
    assert spent(tmp_path / "run") == pytest.approx(0.48)


def test_what_an_endpoint_answered_is_never_asked_for_again(tmp_path):
    with JudgeServer(answer) as server:
        whole = run(document(server), tmp_path / "whole")
    with JudgeServer(answer, lambda call: "" if call.number < 7 else "401") as server:
        with pytest.raises(Exception, match="401"):
            run(document(server), tmp_path / "first")
        answered = server.stats()["answered"]
        server.fault = lambda call: ""
        assert run(document(server), tmp_path / "second", tmp_path / "first") == whole
        asked_before = {json.dumps(call.body) for call in server.calls[:7]}
        asked_again = [call for call in server.calls[7:] if json.dumps(call.body) in asked_before]
    assert answered == 7 and asked_again == []
    assert spent(tmp_path / "first") == pytest.approx(7 * 0.02)
    assert spent(tmp_path / "second") == pytest.approx(0.48), "what an earlier attempt paid is paid"


def test_a_completion_that_the_endpoint_fails_to_give_has_no_value_and_is_asked_for_again_by_a_resumed_run(tmp_path):
    with JudgeServer(answer) as server:
        whole = run(document(server), tmp_path / "whole")
        broken = whole[5].prompt
        server.fault = lambda call: "400" if call.body["messages"][0]["content"] == broken else ""
        with pytest.raises(TooManyErrors, match=r"sums: 2 of 24 completions could not be made or scored"):
            run(document(server), tmp_path / "strict")
        completions = run(document(server, max_error_rate=0.5), tmp_path / "lenient", tmp_path / "strict")
        assert [c.verdict for c in completions if c.prompt == broken] == ["error", "error"]
        row = next(row for row in read_results(tmp_path / "lenient").rows if row.metric == "pass@1")
        assert (row.value, row.num_examples, row.num_unscored) == (1.0, 12, 1)
        server.fault = lambda call: ""
        assert run(document(server), tmp_path / "mended", tmp_path / "lenient") == whole


def test_an_endpoint_that_is_down_ends_the_run(tmp_path):
    with JudgeServer(answer, lambda call: "500") as server:
        config = document(server)
        config["policy"]["endpoint"] |= {"breaker_failures": 2, "breaker_probes": 1, "max_attempts": 50}
        with pytest.raises(CircuitOpen):
            run(config, tmp_path / "run")


def test_greedy_requests_have_no_seed_and_stop_strings_and_system_prompt_travel(tmp_path):
    with JudgeServer(answer) as server:
        changes = {"decodings": ["greedy"], "benchmarks": [SUMS | {"stop": ["\n\n"]}], "system_prompt": "Add."}
        run(document(server, **changes), tmp_path / "run")
        assert {json.dumps(call.body["messages"][:-1]) for call in server.calls} == {
            json.dumps([{"role": "system", "content": "Add."}])
        }
        assert all("seed" not in call.body and call.body["stop"] == ["\n\n"] for call in server.calls)


def test_what_needs_the_weights_is_refused_before_anything_is_asked(tmp_path):
    rows = tmp_path / "rows.jsonl"
    question = {"subject": "law", "question": "q?", "choices": ["a", "b", "c", "d"], "answer": 1}
    rows.write_text(json.dumps(question) + "\n")
    benchmark = {"name": "mmlu", "source": str(rows), "dev": str(rows), "num_shots": 0, "form": {"name": "likelihood"}}
    with JudgeServer(answer) as server:
        with pytest.raises(ValueError, match="benchmarks: mmlu needs likelihoods or raw prompts"):
            run(document(server, benchmarks=[SUMS, benchmark]), tmp_path / "run")
        assert server.calls == []
