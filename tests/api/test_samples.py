"""Samplings over HTTP: a job is made of a question, and completions are told as they come."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api import cli
from api.client import Client
from store.artifacts import run_directory
from store.settings import Settings
from tests.api.conftest import Hand

ASK = {"policies": [{"policy": "model:tiny", "label": "mine"}, {"policy": "model:tiny"}], "prompts": ["1+1="]}


@pytest.fixture
def tiny(sqlite_settings: Settings) -> Path:
    """An imported model, as far as a submission looks."""
    directory = sqlite_settings.models / "tiny"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    return directory


def line(policy: int, **changes: object) -> str:
    row = {
        "policy": policy,
        "prompt": 0,
        "decoding": "t1.0",
        "eval_seed": 0,
        "completion": "2\x1b",
        "pieces": ["2\x1b", ""],
    }
    row |= {"logprobs": [-0.5, None], "is_truncated": False, "error": None}
    return json.dumps(row | changes) + "\n"


@pytest.mark.usefixtures("tiny")
def test_completions_are_told_while_they_come(http: TestClient, hand: Hand, sqlite_settings: Settings) -> None:
    answer = http.post("/v1/samples", json=ASK)
    assert answer.status_code == 201, answer.text
    asked = answer.json()
    assert answer.headers["location"] == f"/v1/samples/{asked['id']}"
    assert (asked["status"], asked["num_completions"], asked["rows"]) == ("queued", 2, [])
    assert [policy["label"] for policy in asked["policies"]] == ["mine", "model:tiny"]
    claim = hand.claim()
    assert claim.kind == "sample"
    directory = run_directory(sqlite_settings, claim.run_id, claim.attempt)
    directory.mkdir(parents=True)
    (directory / "samples.jsonl").write_text(line(1) + line(0, error="too long") + line(0)[:30])
    found = http.get(f"/v1/samples/{asked['id']}").json()
    assert (found["status"], [row["policy"] for row in found["rows"]]) == ("running", [1, 0])
    assert (found["rows"][0]["logprobs"], found["rows"][1]["error"]) == ([-0.5, None], "too long")
    listed = http.get("/v1/samples").json()["data"]
    assert [item["id"] for item in listed] == [asked["id"]] and listed[0]["rows"] == []


@pytest.mark.usefixtures("tiny")
def test_what_is_no_sampling_is_refused_by_field(http: TestClient, job: dict) -> None:
    for changes, pointer in (
        ({"policies": []}, "/policies"),
        ({"policies": [{"policy": "model:none"}]}, "/policies/0/policy"),
        ({"policies": [{"policy": "../etc"}]}, ""),
        ({"prompts": [""]}, "/prompts/0"),
        ({"decodings": ["hot"]}, "/decodings/0"),
        ({"max_tokens": 10**6}, "/max_tokens"),
    ):
        answer = http.post("/v1/samples", json=ASK | changes)
        assert answer.status_code == 422, (changes, answer.text)
        assert pointer in answer.json()["errors"][0]["pointer"]
    other = http.post("/v1/jobs", json=job).json()["id"]
    assert http.get(f"/v1/samples/{other}").status_code == 404


@pytest.mark.usefixtures("tiny")
def test_client_and_command_line_ask(
    live: str, make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("LCO_URL", live)
    monkeypatch.setenv("LCO_API_KEY", make_key())
    command = ["sample", "model:tiny", "--against", "model:tiny", "--prompt", "1+1=", "--no-wait"]
    assert cli.main(command) == 0
    identifier = capsys.readouterr().out.split()[0]
    with Client(live, make_key()) as client:
        assert client.sample(identifier).num_completions == 2
        assert [one.id for one in client.samples()] == [identifier]
        assert client.submit_sample(ASK).num_completions == 2
        client.cancel(identifier)
    assert cli.main(["sample", "model:none", "--prompt", "x"]) == 1
    assert "there is no imported model" in capsys.readouterr().err
    assert cli.main(["sample", "model:tiny"]) != 0
    assert "--prompt: say what is asked" in capsys.readouterr().err
