"""The registry over HTTP, by the client and on the command line."""

import asyncio
import io
import json
import tarfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api import cli
from api.client import AsyncClient, Client
from api.transport import ApiFailure
from lco.manifest import read_manifest, write_manifest
from store.artifacts import relative_path, run_directory
from store.database import Database
from store.ids import decode_id, encode_id, new_id
from store.models.base import utc_now
from store.models.project import Project
from store.models.record import Checkpoint
from store.models.run import Run
from store.queue import Claim
from store.rows import CheckpointRow, Collected, ResultRow
from store.settings import Settings
from store.states import Outcome
from tests.api.conftest import BASE_URL, Hand


class Trained:
    """Two seeds of a policy, each with its evaluation."""

    def __init__(self, http: TestClient, hand: Hand, settings: Settings, experiment: dict[str, Any]) -> None:
        self.experiment = http.post("/v1/experiments", json=experiment).json()
        self.jobs = {job["name"]: job["id"] for job in self.experiment["jobs"]}
        for _ in range(2):
            publish(settings, hand, hand.claim(), with_adapter=True)
        for value in (0.25, 0.75):
            claim = hand.claim()
            rows = [
                ResultRow(
                    benchmark="sums", metric="pass@1", decoding="greedy", eval_seed=None, value=value, num_examples=20
                )
            ]
            hand.finish(claim, collected=Collected(results=rows))
        models = http.get("/v1/checkpoints", params={"job": self.jobs["warm-up"], "order": "asc"}).json()["data"]
        self.first, self.second = (model["id"] for model in models)


def publish(settings: Settings, hand: Hand, claim: Claim, *, with_adapter: bool = False) -> None:
    directory = run_directory(settings, claim.run_id, claim.attempt)
    (directory / "model" / "adapter").mkdir(parents=True)
    files = {"model.safetensors": b"w" * 1000, "config.json": b"{}", "tokenizer.json": b"{}"}
    if with_adapter:
        files["adapter/adapter_model.safetensors"] = b"a" * 10
    for name, content in files.items():
        (directory / "model" / name).write_bytes(content)
    write_manifest(directory, step=5, outputs={"model": "model"}, include=["model"])
    manifest = read_manifest(directory)
    path = relative_path(settings, directory / "model")
    row = CheckpointRow(step=5, path=path, manifest_sha256=manifest.sha256, size_bytes=manifest.size_bytes)
    hand.finish(claim, collected=Collected(models=[row]))


@pytest.fixture
def trained(http: TestClient, hand: Hand, sqlite_settings: Settings, experiment: dict[str, Any]) -> Trained:
    return Trained(http, hand, sqlite_settings, experiment)


def test_expiry_and_pin_change_only_the_version_that_was_read(http: TestClient, trained: Trained) -> None:
    here = f"/v1/checkpoints/{trained.first}"
    etag = http.get(here).headers["etag"]
    assert http.patch(here, json={"pinned": True}).json()["code"] == "if_match_required"
    changed = http.patch(here, json={"pinned": True, "expires_in_days": 2}, headers={"If-Match": etag})
    assert changed.status_code == 200
    assert changed.json()["is_pinned"]
    assert changed.json()["expires_at"] is not None
    stale = http.patch(here, json={"expires_in_days": None}, headers={"If-Match": etag})
    assert (stale.status_code, stale.json()["code"]) == (412, "stale")
    again = http.patch(here, json={"expires_in_days": None}, headers={"If-Match": changed.headers["etag"]})
    assert (again.json()["expires_at"], again.json()["is_pinned"]) == (None, True)
    wrong = http.patch(here, json={"expires_in_days": -1}, headers={"If-Match": again.headers["etag"]})
    assert wrong.json()["errors"][0]["pointer"] == "/expires_in_days"


def test_a_deleted_checkpoint_is_gone_with_its_reason_and_its_results_stay(
    http: TestClient, trained: Trained, sqlite_settings: Settings, database: Database
) -> None:
    here = f"/v1/checkpoints/{trained.first}"
    with database.read() as session:
        place = sqlite_settings.artifacts / session.get_one(Checkpoint, decode_id("ckpt", trained.first)).path
    assert http.post(f"{here}/pin").status_code == 200
    held = http.delete(here)
    assert (held.status_code, held.json()["code"]) == (409, "held")
    assert "it is pinned" in held.json()["detail"]
    http.post(f"{here}/unpin")
    assert [http.delete(here).status_code for _ in range(2)] == [204, 204]
    assert not place.exists()
    gone = http.get(here)
    assert (gone.status_code, gone.json()["code"]) == (410, "gone")
    assert "on request of the key test" in gone.json()["detail"]
    assert [item["id"] for item in http.get("/v1/checkpoints").json()["data"]] == [trained.second]
    (deleted,) = http.get("/v1/checkpoints", params={"deleted": "true"}).json()["data"]
    assert (deleted["id"], deleted["deleted_reason"]) == (trained.first, "on request of the key test")
    assert len(http.get("/v1/results", params={"checkpoint": trained.first}).json()["data"]) == 1
    for path in ("/export", "/pin"):
        method = http.post if path == "/pin" else http.get
        assert method(f"{here}{path}").status_code == 410
    nodes = http.get(f"{here}/lineage").json()["nodes"]
    assert [node["is_deleted"] for node in nodes if node["checkpoint_id"] == trained.first] == [True]
    refused = http.put("/v1/aliases/champion", json={"checkpoint": trained.first})
    assert refused.status_code == 422


def test_jobs_and_experiments_are_deleted_once_they_have_ended(
    http: TestClient, trained: Trained, job: dict[str, Any], hand: Hand
) -> None:
    live = http.post("/v1/jobs", json={**job, "seeds": [0]}).json()["id"]
    refused = http.delete(f"/v1/jobs/{live}")
    assert (refused.status_code, refused.json()["current"]) == (409, "queued")
    held = http.delete(f"/v1/jobs/{trained.jobs['warm-up']}")
    assert (held.status_code, held.json()["code"]) == (409, "held")
    assert trained.jobs["eval-warm-up"] in held.json()["detail"]
    experiment = f"/v1/experiments/{trained.experiment['id']}"
    copy = http.post(f"{experiment}/clone", json={"reuse": False}).json()["id"]
    assert http.delete(experiment).status_code == 204
    for path in (experiment, f"/v1/jobs/{trained.jobs['warm-up']}", f"/v1/checkpoints/{trained.first}"):
        assert http.get(path).json()["code"] == "gone"
    assert http.get(f"/v1/experiments/{copy}/diff").status_code == 410
    page = http.get(f"/experiments/{copy}", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert http.delete(experiment).status_code == 410
    assert http.delete(f"/v1/jobs/{encode_id('job', new_id())}").status_code == 404


def test_lineage_names_what_it_was_made_from_and_what_was_made_of_it(http: TestClient, trained: Trained) -> None:
    found = http.get(f"/v1/checkpoints/{trained.first}/lineage").json()
    kinds = [(node["kind"], node["seed"]) for node in found["nodes"]]
    assert kinds == [("sft", 0), ("evaluation", 0)]
    subject = found["nodes"][0]
    assert subject["id"] == found["subject"]
    assert len(subject["config_sha256"]) == len(subject["content_sha256"]) == 64
    assert {"python", "torch", "transformers", "program"} <= subject["software"].keys()
    assert found["edges"] == [{"source": subject["id"], "target": found["nodes"][1]["id"], "role": "policy"}]


def test_an_export_holds_the_model_its_card_and_its_hashes(
    http: TestClient, trained: Trained, make_key: Callable[..., str], tmp_path: Path
) -> None:
    whole = http.get(f"/v1/checkpoints/{trained.first}/export")
    assert int(whole.headers["content-length"]) == len(whole.content)
    with tarfile.open(fileobj=io.BytesIO(whole.content)) as tar:
        names = sorted(tar.getnames())
        card = tar.extractfile(f"{trained.first}/README.md")
        assert card is not None
        text = card.read().decode()
    files = ["README.md", "SHA256SUMS", "config.json", "model.safetensors", "tokenizer.json"]
    assert names == [f"{trained.first}/{name}" for name in files]
    assert text.startswith("---\nlicense:")
    assert "| sums | pass@1 | greedy | 25.0 % | 50.0 % ± 35.4 % (2 seeds) | 20 |" in text
    assert trained.first in text
    tmp_path = tmp_path / "exports"
    client = Client(BASE_URL, make_key(), http=http)
    assert client.export(trained.first, tmp_path / "model") == [name for name in files if name != "SHA256SUMS"]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == b"w" * 1000
    assert client.export(trained.first, tmp_path / "a", form="adapter") == ["README.md", "adapter_model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "model"]
    with pytest.raises(ValueError, match="holds something"):
        client.export(trained.first, tmp_path / "a")


def test_an_export_goes_on_where_it_was_cut_off(
    http: TestClient, trained: Trained, make_key: Callable[..., str], tmp_path: Path
) -> None:
    here = f"/v1/checkpoints/{trained.first}/export"
    whole = http.get(here)
    etag = whole.headers["etag"]
    for start, end in ((0, 3), (511, 600), (1500, None)):
        wanted = f"bytes={start}-{'' if end is None else end}"
        part = http.get(here, headers={"Range": wanted, "If-Range": etag})
        stop = len(whole.content) if end is None else end + 1
        assert (part.status_code, part.content) == (206, whole.content[start:stop])
    assert http.get(here, headers={"Range": "bytes=99999999-"}).status_code == 416
    assert http.get(here, headers={"Range": "bytes=5-", "If-Range": '"other"'}).content == whole.content
    tmp_path = tmp_path / "exports"
    tmp_path.mkdir()
    client = Client(BASE_URL, make_key(), http=http)
    (tmp_path / ".model.tar.part").write_bytes(whole.content[:700])
    note = {"what": f"{BASE_URL} {trained.first} merged", "etag": etag}
    (tmp_path / ".model.tar.etag").write_text(json.dumps(note))
    client.export(trained.first, tmp_path / "model")
    (tmp_path / ".bad.tar.part").write_bytes(b"x" * 700)
    (tmp_path / ".bad.tar.etag").write_text(json.dumps(note))
    with pytest.raises(ApiFailure, match="the export is damaged"):
        client.export(trained.first, tmp_path / "bad")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_an_export_refuses_states_and_adapters_that_are_none(
    http: TestClient, trained: Trained, database: Database, sqlite_settings: Settings
) -> None:
    with database.write() as session:
        row = session.get_one(Checkpoint, decode_id("ckpt", trained.second))
        place = sqlite_settings.artifacts / row.path
        session.get_one(Checkpoint, decode_id("ckpt", trained.first)).kind = "state"
    (place / "config.json").write_bytes(b"changed")
    damaged = http.get(f"/v1/checkpoints/{trained.second}/export")
    assert (damaged.status_code, damaged.json()["code"]) == (409, "damaged")
    state = http.get(f"/v1/checkpoints/{trained.first}/export")
    assert (state.status_code, state.json()["errors"][0]["pointer"]) == (422, "/path/ckpt_id")


def test_usage_counts_what_is_there(http: TestClient, trained: Trained) -> None:
    before = http.get("/v1/usage").json()
    (project,) = before["projects"]
    kinds = {kind["kind"]: kind for kind in project["kinds"]}
    assert (kinds["models"]["count"], kinds["models"]["size_bytes"]) == (2, 2 * 1014)
    assert before["database_bytes"] > 0
    assert before["disk"]["status"] in ("ok", "low", "full")
    http.delete(f"/v1/checkpoints/{trained.first}")
    assert http.get("/v1/usage").json()["size_bytes"] == before["size_bytes"] - 1014
    assert http.get("/readyz").json()["disk"] == before["disk"]["status"]


def test_a_full_disk_takes_nothing_new_and_lets_delete(
    app: FastAPI, http: TestClient, trained: Trained, job: dict[str, Any], sqlite_settings: Settings
) -> None:
    app.state.settings = sqlite_settings.model_copy(update={"disk_full_percent": 1e-9, "disk_warning_percent": 1e-9})
    refused = http.post("/v1/jobs", json=job)
    assert (refused.status_code, refused.json()["code"]) == (507, "disk_full")
    upload = http.post(
        "/v1/datasets", params={"name": "rows"}, content=b'{"a": "b"}\n', headers={"Content-Type": "application/jsonl"}
    )
    assert upload.status_code == 507
    assert http.get("/readyz").json()["disk"] == "full"
    assert http.delete(f"/v1/checkpoints/{trained.first}").status_code == 204


def test_a_collection_is_for_admins_and_a_dry_one_changes_nothing(
    http: TestClient, trained: Trained, make_key: Callable[..., str], database: Database
) -> None:
    with database.write() as session:
        row = session.get_one(Checkpoint, decode_id("ckpt", trained.first))
        row.expires_at = utc_now() - timedelta(days=1)
    writer = {"Authorization": f"Bearer {make_key('write')}"}
    assert http.post("/v1/gc", json={}, headers=writer).status_code == 403
    plan = http.post("/v1/gc", json={"dry_run": True}).json()
    (item,) = plan["items"]
    assert (item["kind"], item["subject"], item["size_bytes"]) == ("model", trained.first, 1014)
    assert http.get(f"/v1/checkpoints/{trained.first}").status_code == 200
    done = http.post("/v1/gc", json={}).json()
    assert done["freed_bytes"] > 1000
    assert http.get(f"/v1/checkpoints/{trained.first}").status_code == 410
    assert http.post("/v1/gc", json={"dry_run": True}).json()["items"] == []


def test_records_that_ended_by_age_are_told_to_be_gone(http: TestClient, trained: Trained, database: Database) -> None:
    run_id = http.get("/v1/runs", params={"kind": "evaluation"}).json()["data"][0]["id"]
    with database.write() as session:
        run = session.get_one(Run, decode_id("run", run_id))
        run.purged = dict.fromkeys(("logs", "metrics", "completions"), "2026-01-01T00:00:00+00:00")
    for kind in ("logs", "metrics", "completions"):
        gone = http.get(f"/v1/runs/{run_id}/{kind}")
        assert (gone.status_code, gone.json()["code"]) == (410, "gone"), kind


@pytest.fixture
def local_model(sqlite_settings: Settings) -> Path:
    place = sqlite_settings.models / "tiny"
    place.mkdir(parents=True)
    for name, content in {"config.json": b"{}", "model.safetensors": b"w" * 50}.items():
        (place / name).write_bytes(content)
    return place


def test_a_local_model_is_registered_measured_and_removed(
    http: TestClient, local_model: Path, experiment: dict[str, Any], hand: Hand
) -> None:
    missing = http.post("/v1/models", json={"name": "other", "source": {"kind": "local"}})
    assert missing.status_code == 422
    made = http.post("/v1/models", json={"name": "tiny", "source": {"kind": "local"}})
    assert made.status_code == 201
    model = made.json()
    assert (model["state"], model["origin"], model["size_bytes"], model["job_id"]) == ("ready", "local", 52, None)
    again = http.post("/v1/models", json={"name": "tiny", "source": {"kind": "local"}})
    assert (again.status_code, again.json()["code"]) == (409, "taken")
    evaluation = {**experiment["jobs"][0], "seeds": [0], "config": {**experiment["jobs"][0]["config"]}}
    evaluation["config"]["policy"] = "model:tiny"
    job = http.post("/v1/jobs", json=evaluation).json()
    assert job["spec"]["config"]["policy"] == model["checkpoint_id"]
    held = http.delete(f"/v1/models/{model['id']}")
    assert (held.status_code, held.json()["code"]) == (409, "held")
    rows = [ResultRow(benchmark="sums", metric="pass@1", decoding="greedy", eval_seed=None, value=1, num_examples=2)]
    hand.finish(hand.claim(), collected=Collected(results=rows))
    (result,) = http.get("/v1/results", params={"checkpoint": model["checkpoint_id"]}).json()["data"]
    assert result["checkpoint_id"] == model["checkpoint_id"]
    shown = http.get(f"/v1/checkpoints/{model['checkpoint_id']}").json()
    assert (shown["run_id"], shown["model"], shown["path"]) == (None, "tiny", "tiny")
    with tarfile.open(fileobj=io.BytesIO(http.get(f"/v1/checkpoints/{shown['id']}/export").content)) as tar:
        assert f"{shown['id']}/model.safetensors" in tar.getnames()
    lineage = http.get(f"/v1/checkpoints/{shown['id']}/lineage").json()
    assert [node["type"] for node in lineage["nodes"]] == ["model", "run"]
    assert http.delete(f"/v1/checkpoints/{shown['id']}").json()["code"] == "held"
    assert http.delete(f"/v1/models/{model['id']}").status_code == 204
    assert http.get(f"/v1/models/{model['id']}").status_code == 410
    assert local_model.is_dir(), "it is the operator's"
    http.post("/v1/gc", json={})
    assert local_model.is_dir()


def test_a_hub_model_is_named_by_jobs_while_it_is_fetched(
    http: TestClient, hand: Hand, sqlite_settings: Settings, experiment: dict[str, Any]
) -> None:
    source = {"kind": "hub", "hub_id": "owner/tiny", "revision": "main"}
    wrong = http.post("/v1/models", json={"name": "tiny", "source": source})
    assert wrong.json()["errors"][0]["pointer"] == "/source/revision"
    model = http.post("/v1/models", json={"name": "tiny", "source": {**source, "revision": "a" * 40}}).json()
    assert (model["state"], model["checkpoint_id"]) == ("fetching", None)
    assert http.delete(f"/v1/models/{model['id']}").json()["code"] == "invalid_state"
    evaluation = {**experiment["jobs"][0], "config": {**experiment["jobs"][0]["config"], "policy": "model:tiny"}}
    job = http.post("/v1/jobs", json=evaluation).json()
    assert job["needs"] == [model["job_id"]]
    assert {run["state"] for run in job["runs"]} == {"blocked"}
    publish(sqlite_settings, hand, hand.claim())
    ready = http.get(f"/v1/models/{model['id']}").json()
    assert ready["state"] == "ready"
    assert {run["state"] for run in http.get(f"/v1/jobs/{job['id']}").json()["runs"]} == {"queued"}
    lineage = http.get(f"/v1/checkpoints/{ready['checkpoint_id']}/lineage").json()
    assert (lineage["nodes"][0]["hub_id"], lineage["nodes"][0]["revision"]) == ("owner/tiny", "a" * 40)
    later = http.post("/v1/jobs", json=evaluation).json()
    assert later["spec"]["config"]["policy"] == ready["checkpoint_id"]


def test_a_model_that_could_not_be_fetched_is_refused_and_can_be_registered_again(
    http: TestClient, hand: Hand, experiment: dict[str, Any]
) -> None:
    spec = {"name": "tiny", "source": {"kind": "hub", "hub_id": "owner/tiny", "revision": "a" * 40}}
    model = http.post("/v1/models", json=spec).json()
    hand.finish(hand.claim(), Outcome.USER, message="no such model")
    assert http.get(f"/v1/models/{model['id']}").json()["state"] == "failed"
    evaluation = {**experiment["jobs"][0], "config": {**experiment["jobs"][0]["config"], "policy": "model:tiny"}}
    refused = http.post("/v1/jobs", json=evaluation)
    assert refused.json()["errors"][0]["pointer"] == "/config/policy"
    assert http.delete(f"/v1/jobs/{model['job_id']}").json()["code"] == "held"
    assert http.delete(f"/v1/models/{model['id']}").status_code == 204
    assert http.post("/v1/models", json=spec).status_code == 201


def test_the_command_line_keeps_the_registry(
    live: str,
    trained: Trained,
    local_model: Path,
    make_key: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("LCO_URL", live)
    monkeypatch.setenv("LCO_API_KEY", make_key())
    monkeypatch.setenv("LCO_MODELS_ROOT", str(local_model.parent))

    def lco(*arguments: str, code: int = 0) -> str:
        assert cli.main(arguments) == code
        captured = capsys.readouterr()
        return captured.out + captured.err

    assert f"{trained.first} expires 2" in lco("checkpoints", "expire", trained.first, "--days", "1.5")
    assert "never expires" in lco("checkpoints", "expire", trained.first, "--never")
    assert "evaluation eval-warm-up, seed 0" in lco("checkpoints", "lineage", trained.first)
    assert "SHA256SUMS" in lco("checkpoints", "export", trained.first, str(tmp_path / "out"))
    assert json.loads(lco("checkpoints", "show", trained.first))["id"] == trained.first
    lco("checkpoints", "pin", trained.first)
    assert trained.first in lco("checkpoints", "list", "--pinned")
    assert "it is pinned" in lco("checkpoints", "delete", trained.first, code=1)
    assert "is deleted" in lco("checkpoints", "delete", trained.second)
    assert trained.second in lco("checkpoints", "list", "--deleted")
    assert "model:tiny is ready" in lco("models", "register", "tiny")
    assert "model:tiny" in lco("models", "list")
    assert "model:tiny" in lco("models", "list", "--local")
    assert json.loads(lco("models", "show", "tiny"))["origin"] == "local"
    assert "is gone" in lco("models", "remove", "model:tiny")
    assert "needs --revision" in lco("models", "register", "x", "--hub", "a/b", code=2)
    assert "0 things would go" in lco("gc", "--dry-run")
    assert json.loads(lco("gc", "--json"))["dry_run"] is False
    assert "% used" in lco("usage")
    assert "is deleted" in lco("delete", trained.jobs["eval-warm-up"])
    assert "was deleted" in lco("delete", trained.jobs["eval-warm-up"], code=1)


def test_the_asynchronous_client_does_the_same(
    live: str, trained: Trained, tmp_path: Path, make_key: Callable[..., str]
) -> None:
    async def play() -> None:
        async with AsyncClient(live, make_key()) as client:
            assert (await client.expire(trained.first, 3)).expires_at is not None
            assert (await client.lineage(trained.first)).checkpoint_id == trained.first
            assert "README.md" in await client.export(trained.first, tmp_path / "out")
            await client.delete(trained.first)
            assert (await client.usage()).size_bytes > 0
            assert [model async for model in client.models()] == []

    asyncio.run(play())


def test_what_is_of_another_project_is_unknown(
    http: TestClient, trained: Trained, local_model: Path, make_key: Callable[..., str], database: Database
) -> None:
    other = Project(id=new_id(), name="other")
    with database.write() as session:
        session.add(other)
    theirs = {"Authorization": f"Bearer {make_key(project_id=other.id)}"}
    model = http.post("/v1/models", json={"name": "tiny", "source": {"kind": "local"}}).json()["id"]
    for path in (f"checkpoints/{trained.first}", f"jobs/{trained.jobs['warm-up']}", f"models/{model}"):
        assert http.delete(f"/v1/{path}", headers=theirs).status_code == 404
        assert http.get(f"/v1/{path}").status_code == 200
    assert http.delete(f"/v1/jobs/{trained.jobs['eval-warm-up']}").status_code == 204
    assert http.get(f"/v1/jobs/{trained.jobs['eval-warm-up']}", headers=theirs).status_code == 404
