"""Rollouts over HTTP, through both clients and on the command line."""

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from api import cli
from api.client import Client
from store.database import Database
from store.ids import encode_id
from store.queue import append_rollouts
from store.rows import RolloutRow
from tests.api.conftest import BASE_URL, Hand


@pytest.fixture
def run(http: TestClient, hand: Hand, database: Database, job: dict) -> str:
    """A run that keeps rollouts of two iterations."""
    assert http.post("/v1/jobs", json=job).status_code == 201
    claim = hand.claim()
    rows = [
        RolloutRow(
            iteration=iteration, position=position, prompt_id="p", prompt="1+1=", reference="2", num_tokens=3,
            is_truncated=position == 1, reward=None if position else 1.5, is_correct=not position,
            parts={"format": 0.5}, pieces=["\x1b2", ""], advantages=[0.5, None], logprobs=[-0.1, -0.2],
        )
        for iteration in (0, 10) for position in (0, 1)
    ]  # fmt: skip
    with database.write() as session:
        append_rollouts(session, claim, rows)
    return encode_id("run", claim.run_id)


def test_pages_go_on_where_they_ended(http: TestClient, run: str) -> None:
    first = http.get(f"/v1/runs/{run}/rollouts?limit=3").json()
    assert [item["cursor"] for item in first["data"]] == ["0.0", "0.1", "10.0"] and first["has_more"]
    second = http.get(f"/v1/runs/{run}/rollouts?limit=3&after={first['last_id']}").json()
    assert [item["cursor"] for item in second["data"]] == ["10.1"] and not second["has_more"]
    one = first["data"][0]
    assert (one["completion"], one["advantages"], one["parts"]) == ("\x1b2", [0.5, None], {"format": 0.5})
    assert http.get(f"/v1/runs/{run}/rollouts?iteration=10").json()["data"] == [first["data"][2], *second["data"]]


def test_a_cursor_of_another_form_is_refused(http: TestClient, run: str) -> None:
    answer = http.get(f"/v1/runs/{run}/rollouts?after=7")
    assert answer.status_code == 422 and answer.json()["errors"][0]["pointer"] == "/query/after"
    assert http.get("/v1/runs/run_00000000000000000000000000/rollouts").status_code == 404


def test_the_client_reads_all_of_them(http: TestClient, run: str, make_key: Callable[..., str]) -> None:
    with Client(BASE_URL, make_key(), http=http) as client:
        assert [one.cursor for one in client.rollouts(run, order="desc")] == ["10.1", "10.0", "0.1", "0.0"]
        assert [one.reward for one in client.rollouts(run, iteration=0)] == [1.5, None]


def test_the_command_line_prints_them(
    live: str, run: str, make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("LCO_URL", live)
    monkeypatch.setenv("LCO_API_KEY", make_key())
    assert cli.main(["rollouts", run, "--iteration", "0"]) == 0
    printed = capsys.readouterr().out
    assert "iteration 0, completion 0: reward 1.5, format 0.5, 3 tokens, reference 2" in printed
    assert "reward none, format 0.5, 3 tokens, truncated" in printed and "\x1b" not in printed
