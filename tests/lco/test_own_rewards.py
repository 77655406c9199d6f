"""Rewards of one's own: patterns and numbers by rule; judges, servers and functions in a process beside the run."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from evaluation.reward_worker import score_of
from lco.advantages import compared_known, group_centered, group_normalized, leave_one_out
from lco.grading.patterns import PatternMatcher
from lco.prompts import Prompt
from lco.reward_config import JudgeReward, Reward
from lco.reward_process import RewardFailure, RewardItem, RewardProcess
from lco.rewarder import Rewarder
from lco.rewards import Rule
from lco.stage import Stage, Stopped
from lco.train import train
from tests.evaluation.judge_server import Answer, JudgeServer
from tests.lco.launcher import ROOT, metrics, records

REWARD = TypeAdapter(Reward)


def reward_of(document: dict):
    return REWARD.validate_python(document)


def by_rule(document: dict, completion: str, reference: str = "12") -> tuple[float, bool]:
    with closing(Rule(reward_of(document))) as rule:
        graded = rule.reward(Prompt("p", "6+6=", reference), completion)
    return graded.reward, graded.is_correct


ANSWER = {"name": "regex", "pattern": r"<answer>(.*?)</answer>", "target": "reference", "group": 1}


@pytest.mark.parametrize(
    ("document", "completion", "expected"),
    [
        ({"name": "regex", "pattern": "^The answer"}, "The answer is 3", (1.0, True)),
        ({"name": "regex", "pattern": "^The answer", "match": "full"}, "The answer is 3", (0.0, False)),
        ({"name": "regex", "pattern": "(?i)THE.*", "match": "full", "correct": 5}, "The answer is 3", (5.0, True)),
        (ANSWER, "<answer>3</answer> no: <answer> 12.0 </answer>", (1.0, True)),
        (ANSWER, "<answer>12</answer> no: <answer>3</answer>", (0.0, False)),
        (ANSWER, "", (0.0, False)),
        ({"name": "numeric"}, "so it is 12.0", (1.0, True)),
        ({"name": "numeric"}, "so it is 12.1", (0.0, False)),
        ({"name": "numeric", "absolute_tolerance": 0.1}, "so it is 12.1", (1.0, True)),
        ({"name": "numeric", "relative_tolerance": 0.01, "incorrect": -1.0}, "about 12.13", (-1.0, False)),
        ({"name": "numeric", "relative_tolerance": 0.01}, "about 11.88", (1.0, True)),
        ({"name": "numeric"}, "no number at all \ud800", (0.0, False)),
    ],
)
def test_a_rule_rewards(document, completion, expected):
    assert by_rule(document, completion) == expected


def test_a_pattern_that_takes_too_long_is_a_miss_and_the_next_text_is_matched():
    with PatternMatcher(r"^(a+)+$", "search", None, wall_seconds=0.5) as matcher:
        started = time.monotonic()
        found = list(matcher.find(["aaa", "a" * 40 + "!", "aa", "b", "\x00a\ud800"]))
        assert time.monotonic() - started < 10
    assert [(one.text is not None, one.is_timed_out) for one in found] == [
        (True, False),
        (False, True),
        (True, False),
        (False, False),
        (False, False),
    ]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"name": "regex", "pattern": "(a"}, "pattern: "),
        ({"name": "regex", "pattern": "(a)", "group": 2, "target": "reference"}, "the pattern has 1 groups"),
        ({"name": "judge", "endpoint": {"api": "openai", "model": "m"}, "template": "rate it"}, "the judge must see"),
        ({"name": "judge", "endpoint": {"api": "openai", "model": "m"}, "lowest": 3.0, "highest": 3.0}, "highest"),
        ({"name": "python", "function": "os.system:x"}, "function"),
        ({"name": "weighted", "parts": []}, "parts"),
        ({"name": "weighted", "parts": [{"name": "a", "reward": {"name": "step-verifier"}}]}, "step-verifier"),
    ],
)
def test_a_reward_that_means_nothing_is_refused(document, message):
    with pytest.raises(ValidationError, match=message):
        reward_of(document)


def test_braces_of_a_completion_stay_and_its_marks_are_not_ours():
    config = JudgeReward.model_validate({"endpoint": {"api": "openai", "model": "m"}})
    said = config.told("p {reference}", "{prompt} mark-0000", "r")
    assert "p {reference}" in said and "{prompt} mark-0000" in said
    assert config.told("p", "c", "r").split()[9:] != config.told("p", "d", "r").split()[9:]


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("7", 7.0),
        ("It is good.\nScore: 8.5", 8.5),
        ("Score: 3 ... final **Score**: 9", 9.0),
        ("Score: 11", None),
        ("Thought process:", None),
        ("", None),
    ],
)
def test_a_score_is_read_or_there_is_none(reply, score):
    assert score_of(reply, 1.0, 10.0) == score


# Missing rewards.


def test_a_missing_reward_leaves_the_advantages_of_the_others_as_if_it_had_not_been_sampled():
    rewards = torch.tensor([1.0, float("nan"), 3.0, 5.0, 2.0, float("nan"), float("nan"), float("nan")])
    rest = torch.tensor([1.0, 3.0, 5.0])
    for estimator, function in (
        ("group-normalized", group_normalized),
        ("group-centered", group_centered),
        ("leave-one-out", leave_one_out),
    ):
        found = compared_known(rewards, 4, estimator)
        assert torch.allclose(found[[0, 2, 3]], function(rest, 3))
        assert not found[[1, 4, 5, 6, 7]].any(), "one alone is compared with nothing"
    assert compared_known(rewards, 4, "reward").tolist() == [1.0, 0.0, 3.0, 5.0, 2.0, 0.0, 0.0, 0.0]
    whole = compared_known(rewards, 4, "batch-normalized")
    assert whole[[0, 2, 3, 4]].mean().item() == pytest.approx(0, abs=1e-6) and not whole[[1, 5, 6, 7]].any()


# Processes.


def item(completion: str, prompt: str = "6+6=") -> RewardItem:
    return RewardItem(prompt_id="p", prompt=prompt, completion=completion, reference="12")


@pytest.fixture(autouse=True)
def declared(monkeypatch) -> None:
    """Functions that the operator declared."""
    names = ("length", "raises", "odd", "short", "hangs", "dies", "none")
    monkeypatch.setenv("LCO_REWARDS", ",".join(f"{name}=tests.lco.declared_rewards:{name}" for name in names))


def process(document: dict, run_dir: Path, *earlier: Path):
    return closing(RewardProcess(reward_of(document), run_dir, earlier))


def function(name: str, **more) -> dict:
    return {"name": "python", "function": name, **more}


def test_a_declared_function_rewards(tmp_path):
    with process(function("length", batch_size=2), tmp_path) as rewards:
        found = rewards.checked([item("a" * n) for n in range(5)])
    assert [graded.reward for graded in found] == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises", "the function raises raised RuntimeError: the tokenizer is gone"),
        ("short", "returned 3 rewards for 4"),
        ("odd", "no finite number"),
    ],
)
def test_a_functions_fault_is_no_reward_and_too_many_end_the_run(name, reason, tmp_path):
    with process(function(name), tmp_path) as rewards:
        items = [item(str(n)) for n in range(4)]
        missing = [graded for graded in rewards.rewards(items) if graded.reward is None]
        assert missing and all(reason in graded.reason for graded in missing)
        with pytest.raises(RewardFailure, match=f"(?s)of 4 completions got none.*{reason[:20]}"):
            rewards.checked(items)


@pytest.mark.parametrize("word", ["hang", "die"])
def test_a_function_that_hangs_or_dies_costs_its_batch_and_no_more(word, tmp_path):
    name = {"hang": "hangs", "die": "dies"}[word]
    with process(function(name, batch_size=1, timeout_seconds=2.0), tmp_path) as rewards:
        found = rewards.rewards([item("x"), item(word), item("y")])
    assert [graded.reward for graded in found] == [1.0, None, 1.0]
    assert "no answer within" in found[1].reason


@pytest.mark.parametrize(("name", "message"), [("none", "cannot be imported"), ("other", "is declared nowhere")])
def test_a_function_that_is_not_there_is_refused_at_the_start(name, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        RewardProcess(reward_of(function(name)), tmp_path)


class RewardServer:
    """A server of one's own: rewards the length, with a fault for some completions."""

    def __init__(self) -> None:
        outer = self
        self.requests: list[dict] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append({"headers": dict(self.headers), **body})
                said = [item["completion"] for item in body["items"]]
                if "down" in said:
                    self.send_error(500)
                    return
                rewards = [
                    None if text == "unsure" else {"reward": len(text), "is_correct": len(text) > 2, "parts": {"n": 1}}
                    for text in said
                ]
                content = json.dumps({"rewards": rewards[1:] if "lost" in said else rewards}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/reward"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[RewardServer]:
    made = RewardServer()
    yield made
    made.close()


def test_a_server_rewards_each_completion_once_in_the_life_of_a_run(server, tmp_path, monkeypatch):
    monkeypatch.setenv("REWARD_KEY", "s3cret")
    (tmp_path / "second").mkdir()
    document = {"name": "http-endpoint", "url": server.url, "api_key_variable": "REWARD_KEY", "batch_size": 2}
    document |= {"max_attempts": 2, "backoff_seconds": 0.01, "max_concurrency": 1}
    with process(document, tmp_path) as rewards:
        found = rewards.rewards([item(text) for text in ("a", "bbb", "a", "unsure", "lost", "x", "down")])
    assert [graded.reward for graded in found] == [1.0, 3.0, 1.0, None, None, None, None]
    assert found[1].is_correct and found[1].parts == (("n", 1.0),)
    reasons = [graded.reason for graded in found[3:]]
    assert reasons[:2] == ["the server answered no list of 2 rewards"] * 2
    assert reasons[2:] == [f"{server.url.split('/')[2]}: http_500"] * 2
    assert {request["headers"]["authorization"] for request in server.requests} == {"Bearer s3cret"}
    assert server.requests[0]["items"][0] == {
        "prompt": "6+6=", "completion": "a", "reference": "12", "metadata": {"prompt_id": "p"},
    }  # fmt: skip
    asked = len(server.requests)
    with process(document, tmp_path / "second", tmp_path) as rewards:
        assert [graded.reward for graded in rewards.checked([item("a"), item("bbb")])] == [1.0, 3.0]
    assert len(server.requests) == asked


def test_a_server_that_may_not_be_asked_refuses_the_run(server, tmp_path):
    document = {"name": "http-endpoint", "url": server.url, "api_key_variable": "NO_SUCH_KEY"}
    with pytest.raises(ValueError, match="NO_SUCH_KEY holds no key"):
        RewardProcess(reward_of(document), tmp_path)


def judged(server: JudgeServer, **more) -> dict:
    endpoint = {
        "api": "openai",
        "base_url": f"{server.origin}/v1",
        "model": "judge",
        "max_attempts": 2,
        "backoff_seconds": 0.01,
    }
    return {"name": "judge", "endpoint": endpoint, "worst_reward": -1.0, **more}


def test_the_process_ends_with_the_run_however_that_one_ended(tmp_path):
    code = "import sys, tests.lco.test_own_rewards as t; t.hold(sys.argv[1])"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT) as run:
        assert run.stdout is not None
        child = psutil.Process(int(run.stdout.readline()))
        run.kill()
    psutil.wait_procs([child], timeout=20)
    assert not child.is_running()


def hold(run_dir: str) -> None:
    """Starts a function's process, tells its id, and waits to be killed."""
    rewards = RewardProcess(reward_of(function("length")), Path(run_dir))
    assert rewards._process is not None
    print(rewards._process.pid, flush=True)
    time.sleep(600)


def test_a_judge_scores_and_an_empty_completion_costs_no_call(tmp_path):
    def answer(call) -> Answer:
        text = call.body["messages"][0]["content"]
        return Answer("Score: 10" if "right" in text else "I like it" if "odd" in text else "Score: 1", None)

    with JudgeServer(answer) as server:
        document = judged(server, template="Rate {completion}")
        document["endpoint"]["prices"] = {"output_per_million": 1e6}
        with process(document, tmp_path) as rewards:
            found = rewards.rewards([item(text) for text in ("right", "wrong", "odd", " ", "right")])
            assert rewards.spent > 0
        assert [graded.reward for graded in found] == [1.0, -1.0, None, -1.0, 1.0]
        assert found[2].reason == "the judge's reply has no score on the scale"
        assert len(server.calls) == 3


# Runs.


def test_a_weighted_sum_is_trained_on_and_its_parts_are_reported(config_of, stage):
    parts = [
        {"name": "answer", "weight": 2.0, "reward": {"extraction": "final-number"}},
        {"name": "length", "weight": -0.1, "reward": function("length")},
        {"name": "equals", "reward": {"name": "regex", "pattern": "="}},
    ]
    train(config_of("grpo", reward={"name": "weighted", "parts": parts}, iterations=1), stage)
    (first, *_) = (record["values"] for record in records(stage.run_dir) if record["type"] == "metrics")
    found = {name: first[f"train/reward/{name}"] for name in ("answer", "length", "equals")}
    assert first["train/reward"] == pytest.approx(2 * found["answer"] - 0.1 * found["length"] + found["equals"])
    kept = json.loads((stage.run_dir / "rollouts.jsonl").read_text().splitlines()[0])
    assert kept["parts"].keys() == found.keys()


def test_a_run_asks_nobody_twice_after_a_stop_and_learns_the_same(config_of, tmp_path):
    """The judge's scores are noise, new at every call: only what was recorded can make both runs equal."""
    numbers = iter(range(10**6))

    def answer(call) -> Answer:
        return Answer(f"Score: {1 + next(numbers) * 7919 % 10}", None)

    with JudgeServer(answer) as server:
        config = config_of("grpo", reward=judged(server), iterations=2, checkpoint_every_steps=1)
        with closing(Stage(tmp_path / "whole", [])) as stage:
            train(config, stage)
        asked = len(server.calls)
        attempts = [tmp_path / "first"]
        with closing(Stage(attempts[0], [tmp_path / "whole"])) as stage:
            stage.stop()
            with pytest.raises(Stopped):
                train(config, stage)
        assert len(server.calls) == asked, "a first attempt's replies are those of the earlier directory"
        with closing(Stage(tmp_path / "second", [attempts[0], tmp_path / "whole"])) as stage:
            train(config, stage)
        assert len(server.calls) == asked
    assert metrics(attempts[0], tmp_path / "second") == metrics(tmp_path / "whole")
    weights = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("whole", "second")]
    assert weights[0] == weights[1]


def test_of_two_processes_only_the_first_asks(config_of, server, launcher, tmp_path):
    """A server is asked for each distinct completion once, and both processes learn what one learns."""
    reward = {"name": "http-endpoint", "url": server.url, "max_error_rate": 1.0, "max_attempts": 1}
    config = config_of("grpo", reward=reward, iterations=1, steps_per_epoch=1)
    with closing(Stage(tmp_path / "alone", [])) as stage:
        train(config, stage)
    alone = [one["completion"] for request in server.requests for one in request["items"]]
    server.requests.clear()
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json())
    ranks = launcher.start_ranks(2, "lco.train", path, tmp_path / "two")
    assert [rank.wait() for rank in ranks] == [0, 0], "\n".join(rank.log.read_text() for rank in ranks)
    assert sorted(one["completion"] for request in server.requests for one in request["items"]) == sorted(alone)
    one, two = metrics(tmp_path / "alone")[1], metrics(tmp_path / "two")[1]
    for name in ("train/reward", "train/loss", "train/grad_norm"):
        assert one[name] == pytest.approx(two[name], abs=1e-5)


def test_missing_rewards_are_counted_and_left_out_of_the_step(config_of, stage):
    reward = function("odd", max_error_rate=0.9)
    train(config_of("grpo", reward=reward, iterations=1, steps_per_epoch=1), stage)
    (values, *_) = (record["values"] for record in records(stage.run_dir) if record["type"] == "metrics")
    assert (values["train/num_unrewarded"], values["train/reward"]) == (8, 1.0)
    assert "train/accuracy" not in values and values["train/loss"] == 0.0, "equal rewards teach nothing"


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (function("raises"), "the dry run on 2 references gave no reward: the function raises raised"),
        ({"name": "numeric"}, "is no number"),
        (function("other"), "is declared nowhere"),
    ],
)
def test_a_reward_that_cannot_work_is_refused_before_a_model_is_loaded(reward, message, config_of, stage, tmp_path):
    rows = tmp_path / "words.jsonl"
    rows.write_text('{"prompt": "1+1=", "reference": "two"}\n{"prompt": "2+2=", "reference": "four"}\n')
    prompts = {"name": "jsonl", "path": str(rows)}
    config = config_of("grpo", reward=reward, prompts=prompts, policy=str(tmp_path / "no-model"))
    with pytest.raises(ValueError, match=message):
        train(config, stage)


def test_without_a_run_directory_there_is_no_remote_reward(config_of):
    with pytest.raises(ValueError, match="recorded in a run directory"):
        Rewarder(config_of("grpo", reward=function("length")))
