"""Names for checkpoints, and pins: over HTTP, by the client, on the command line, as inputs of jobs."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from api import cli
from api.client import Client
from api.transport import ApiFailure
from store.database import Database
from store.ids import encode_id, new_id
from store.models.record import Checkpoint
from tests.api.conftest import BASE_URL, Hand


@pytest.fixture
def checkpoints(http: TestClient, job: dict[str, Any], hand: Hand, database: Database) -> dict[str, str]:
    """Ids of two published models and a resumable state, of runs that succeeded."""
    assert http.post("/v1/jobs", json=job).status_code == 201
    claims = [hand.claim(), hand.claim()]
    for claim in claims:
        hand.finish(claim)
    with database.write() as session:
        rows = [
            Checkpoint(
                run_id=claim.run_id, attempt=1, kind=kind, step=5, path="p", manifest_sha256="0" * 64, size_bytes=7
            )
            for claim, kind in ((claims[0], "model"), (claims[1], "model"), (claims[1], "state"))
        ]
        session.add_all(rows)
        session.flush()
        return {name: encode_id("ckpt", row.id) for name, row in zip(("first", "second", "state"), rows, strict=True)}


def put(http: TestClient, checkpoint: str, name: str = "champion") -> Any:
    return http.put(f"/v1/aliases/{name}", json={"checkpoint": checkpoint})


def test_a_name_moves_from_one_checkpoint_to_another(http: TestClient, checkpoints: dict[str, str]) -> None:
    made = put(http, checkpoints["first"])
    assert (made.status_code, made.json()["source"]) == (201, "alias:champion")
    assert put(http, checkpoints["first"]).json() == made.json()
    moved = put(http, checkpoints["second"])
    assert (moved.status_code, moved.json()["checkpoint_id"]) == (200, checkpoints["second"])
    assert http.get(f"/v1/checkpoints/{checkpoints['first']}").json()["aliases"] == []
    assert http.get(f"/v1/checkpoints/{checkpoints['second']}").json()["aliases"] == ["champion"]
    put(http, checkpoints["first"], "candidate")
    assert [item["name"] for item in http.get("/v1/aliases").json()["data"]] == ["candidate", "champion"]
    page = http.get("/v1/aliases?limit=1").json()
    assert (page["has_more"], page["last_id"]) == (True, "candidate")
    assert [item["name"] for item in http.get("/v1/aliases?after=candidate").json()["data"]] == ["champion"]
    assert http.delete("/v1/aliases/champion").status_code == 204
    assert http.get("/v1/aliases/champion").status_code == 404
    assert http.delete("/v1/aliases/champion").status_code == 404


def test_a_name_means_a_published_model_that_exists(http: TestClient, checkpoints: dict[str, str]) -> None:
    for wrong in (checkpoints["state"], encode_id("ckpt", new_id()), "nothing"):
        refused = put(http, wrong)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/checkpoint")
    assert put(http, checkpoints["first"], "Not-A-Name").status_code == 422
    assert http.put("/v1/aliases/x", json={"checkpoint": checkpoints["first"], "more": 1}).status_code == 422


def test_a_job_keeps_the_checkpoint_that_had_the_name_when_it_was_submitted(
    http: TestClient, checkpoints: dict[str, str]
) -> None:
    put(http, checkpoints["first"])
    evaluation = {
        "name": "again",
        "kind": "evaluation",
        "config": {"policy": "alias:champion", "benchmarks": [{"name": "sums"}], "decodings": ["greedy"]},
    }
    made = http.post("/v1/jobs", json=evaluation)
    assert made.status_code == 201, made.text
    put(http, checkpoints["second"])
    found = http.get(f"/v1/jobs/{made.json()['id']}").json()
    assert (found["spec"]["config"]["policy"], found["method"]) == (checkpoints["first"], "champion")
    evaluation["config"]["policy"] = "alias:nobody"  # type: ignore[index]
    refused = http.post("/v1/jobs", json=evaluation).json()
    assert refused["errors"][0]["pointer"] == "/config/policy"


def test_pins_are_set_and_taken_away(http: TestClient, checkpoints: dict[str, str]) -> None:
    here = f"/v1/checkpoints/{checkpoints['first']}"
    assert http.get(here).json()["is_pinned"] is False
    for _ in range(2):
        assert http.post(f"{here}/pin").json()["is_pinned"] is True
    assert http.get(here).json()["is_pinned"] is True
    assert http.post(f"{here}/unpin").json()["is_pinned"] is False
    assert http.post(f"/v1/checkpoints/{encode_id('ckpt', new_id())}/pin").status_code == 404


def test_client_and_command_line_name_and_pin(
    http: TestClient,
    live: str,
    checkpoints: dict[str, str],
    make_key: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client = Client(BASE_URL, make_key(), http=http)
    assert client.set_alias("champion", checkpoints["first"]).checkpoint_id == checkpoints["first"]
    assert client.pin(checkpoints["first"]).is_pinned
    assert not client.unpin(checkpoints["first"]).is_pinned
    client.remove_alias("champion")
    with pytest.raises(ApiFailure, match="no such alias"):
        client.remove_alias("champion")
    monkeypatch.setenv("LCO_URL", live)
    monkeypatch.setenv("LCO_API_KEY", make_key())
    assert cli.main(["alias", "set", "champion", checkpoints["second"]]) == 0
    assert cli.main(["alias", "list"]) == 0
    assert cli.main(["checkpoints", "pin", checkpoints["second"]]) == 0
    assert cli.main(["checkpoints", "list", "--kind", "model"]) == 0
    printed = capsys.readouterr().out
    assert f"alias:champion is {checkpoints['second']}" in printed
    assert printed.count(checkpoints["first"]) == 1
    assert "champion  pinned" in printed
    assert cli.main(["checkpoints", "unpin", checkpoints["second"]]) == 0
    assert cli.main(["alias", "remove", "champion"]) == 0
    assert list(client.aliases()) == []
