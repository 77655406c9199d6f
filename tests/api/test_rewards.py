"""Rewards over HTTP: kinds, trials, and what is refused when a training job is submitted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api import cli
from api.client import Client
from store.endpoints import key_variables
from store.settings import Settings
from store.specs import TrainingSpec
from tests.api.conftest import BASE_URL

ROWS = [{"prompt": "1+1=", "reference": "2"}, {"prompt": "2+2=", "reference": "4"}]
EXACT = {"extraction": "final-number"}
PROMPTS = {"name": "jsonl", "path": "data:rows.jsonl"}


@pytest.fixture(autouse=True)
def declared(app: FastAPI, sqlite_settings: Settings) -> Settings:
    """The operator declared a function and listed a server; a model and data are there."""
    found = sqlite_settings.model_copy(
        update={"rewards": "short=mine.rewards:short", "endpoints": "http://127.0.0.1:9"}
    )
    app.state.settings = found
    (found.models / "tiny").mkdir(parents=True)
    (found.models / "tiny" / "config.json").write_text("{}")
    found.data.mkdir(parents=True)
    (found.data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return found


def training(reward: dict[str, Any], **changes: Any) -> dict[str, Any]:
    config = {
        "algorithm": {"name": "grpo"},
        "policy": "model:tiny",
        "prompts": PROMPTS,
        "group_size": 4,
        "reward": reward,
    }
    return {"kind": "train", "name": "train", "config": config | changes}


SERVER = {"name": "http-endpoint", "url": "http://127.0.0.1:9/reward"}
ELSEWHERE = {"name": "http-endpoint", "url": "http://127.0.0.1:10/reward"}
JUDGE = {"name": "judge", "endpoint": {"api": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}}


@pytest.mark.parametrize(
    "reward",
    [
        EXACT,
        {"extraction": "last-equals", "comparison": "math"},
        {"name": "numeric"},
        {"name": "regex", "pattern": "="},
        {"name": "python", "function": "short"},
        SERVER,
        JUDGE,
        {"name": "weighted", "parts": [{"name": "a", "reward": EXACT}, {"name": "b", "weight": 0.5, "reward": SERVER}]},
    ],
    ids=lambda reward: reward.get("name", "exact-answer"),
)
def test_a_reward_that_can_work_is_accepted(http: TestClient, reward: dict[str, Any]) -> None:
    answer = http.post("/v1/jobs", json=training(reward))
    assert answer.status_code == 201, answer.text


PART = {"name": "weighted", "parts": [{"name": "a", "reward": {"name": "numeric", "correct": -1.0}}]}


@pytest.mark.parametrize(
    ("reward", "changes", "pointer", "message"),
    [
        ({**EXACT, "correct": -2.0}, {}, "/config/reward", "rewards no right answer more than an empty completion"),
        (PART, {}, "/config/reward/parts/0/reward", "rewards no right answer"),
        ({"name": "python", "function": "os"}, {}, "/config/reward/function", "known: short"),
        (ELSEWHERE, {}, "/config/reward/url", "no server that this platform may ask"),
        ({**JUDGE, "lowest": 99.0}, {}, "/config/reward", "highest"),
        ({"name": "regex", "pattern": "(a"}, {}, "/config/reward", "pattern"),
        (EXACT, {"prompts": {**PROMPTS, "prompt_field": "text"}}, "/config/prompts", "text"),
        ({"name": "step-verifier"}, {"prompts": {**PROMPTS, "prompt_field": "reference"}}, "/config/reward", "no sum"),
    ],
)
def test_a_reward_that_cannot_work_is_refused_by_field(
    http: TestClient, reward: dict[str, Any], changes: dict[str, Any], pointer: str, message: str
) -> None:
    answer = http.post("/v1/jobs", json=training(reward, **changes))
    assert answer.status_code == 422, answer.text
    error = answer.json()["errors"][0]
    assert error["pointer"].startswith(pointer) and message in error["message"]
    assert str(Path.cwd()) not in answer.text and "/tmp" not in answer.text
    document = {"name": "demo", "jobs": [training(reward, **changes)]}
    answer = http.post("/v1/experiments", json=document)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith("/jobs/0" + pointer)
    assert http.get("/v1/jobs").json()["data"] == []


def test_a_reward_that_is_only_reported_is_not_tried(http: TestClient) -> None:
    advantage = {"name": "dpo", "reward_model": "job_00000000000000000000000000"}
    wrong = training({**EXACT, "correct": -2.0}, algorithm={"name": "lco-kld", "advantage": advantage})
    assert (
        http.post("/v1/jobs", json=wrong).json()["errors"][0]["pointer"] == "/config/algorithm/advantage/reward_model"
    )


def test_a_run_gets_the_declaration_only_for_a_function(declared: Settings) -> None:
    for reward, expected in (({"name": "python", "function": "short"}, ("LCO_REWARDS",)), (EXACT, ()), (SERVER, ())):
        spec = TrainingSpec.model_validate_json(json.dumps(training(reward)))
        assert key_variables(declared, spec.config) == expected


def test_kinds_and_trials(http: TestClient, make_key: Callable[..., str]) -> None:
    with Client(BASE_URL, make_key(), http=http) as client:
        kinds = {kind.name: kind for kind in client.rewards()}
        assert kinds["python"].functions == ["short"] and kinds["judge"].is_remote and not kinds["regex"].is_remote
        parts = [{"name": "answer", "reward": {"name": "numeric"}}, {"name": "own", "reward": SERVER}]
        samples = [{"prompt": "1+1=", "completion": "2", "reference": "2"}, {"prompt": "1+1=", "completion": ""}]
        found = client.check_reward({"name": "weighted", "parts": parts}, samples)
        assert found.is_remote and found.rows[0].parts == {"answer": 1.0, "own": None}
        assert found.rows[0].reward is None and "tried when a run starts" in str(found.rows[0].reason)
        assert "is no number" in str(found.rows[1].reason)
        (row,) = client.check_reward(
            {"comparison": "math"}, [{**samples[0], "completion": r"\boxed{\frac{4}{2}}"}]
        ).rows
        assert (row.reward, row.is_correct) == (1.0, True)
        slow = {"name": "regex", "pattern": "^(a+)+$"}
        (row,) = client.check_reward(slow, [{"prompt": "p", "completion": "a" * 50 + "!"}]).rows
        assert (row.reward, row.is_timed_out) == (0.0, True)


def test_the_command_line_lists_and_tries(
    live: str,
    make_key: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("LCO_URL", live)
    monkeypatch.setenv("LCO_API_KEY", make_key())
    assert cli.main(["rewards", "list"]) == 0
    assert "http-endpoint  others" in capsys.readouterr().out
    (tmp_path / "job.json").write_text(json.dumps(training(EXACT)))
    (tmp_path / "samples.jsonl").write_text('{"prompt": "1+1=", "completion": "it is 2", "reference": "2"}\n')
    assert cli.main(["rewards", "check", str(tmp_path / "job.json"), "--samples", str(tmp_path / "samples.jsonl")]) == 0
    printed = capsys.readouterr().out
    assert "exact-answer is sound" in printed and "1.0     True" in printed
    (tmp_path / "reward.toml").write_text('name = "python"\nfunction = "other"\n')
    assert cli.main(["rewards", "check", str(tmp_path / "reward.toml")]) == 1
    assert "/reward/function" in capsys.readouterr().err
