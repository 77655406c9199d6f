"""A model comes from a hub: every byte of one commit, safetensors alone; a stand-in hub answers on loopback."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from lco.config import LlamaInit, StageConfig
from lco.hub import is_taken
from lco.hub_config import ImportConfig
from lco.initial import initial_policy
from lco.manifest import read_manifest
from store.database import Database
from store.models.record import LogChunk
from store.registration import register_hub
from store.repositories.models import Models
from store.settings import Settings
from worker.kinds import KINDS
from worker.supervisor import Supervisor

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A hub with one repository, `owner/tiny`."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    sent: dict[str, bytes] = field(default_factory=dict)
    """What it sends in place of a file."""
    url: str = ""


@pytest.fixture
def hub() -> Iterator[Hub]:
    found = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            found.asked.append(path)
            found.tokens.add(self.headers.get("authorization"))
            info = f"/api/models/owner/tiny/revision/{COMMIT}"
            files = f"/owner/tiny/resolve/{COMMIT}/"
            if path == info:
                self.answer(json.dumps(self.info()).encode(), {"Content-Type": "application/json"})
            elif path.startswith(files) and path.removeprefix(files) in found.files:
                name = path.removeprefix(files)
                content = found.sent.get(name, found.files[name])
                etag = hashlib.sha256(found.files[name]).hexdigest()
                self.answer(content, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})
            elif path.startswith("/api/models/owner/tiny/"):
                self.answer(b"{}", {"X-Error-Code": "RevisionNotFound"}, 404)
            else:
                self.answer(b"{}", {"X-Error-Code": "RepoNotFound"}, 401)

        def info(self) -> dict[str, Any]:
            siblings = []
            for name, content in found.files.items():
                entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": "x"}
                if name.endswith(".safetensors"):
                    digest = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 1}
                siblings.append(entry)
            return {"id": "owner/tiny", "modelId": "owner/tiny", "sha": COMMIT, "siblings": siblings, "tags": []}

        def answer(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small model."""
    directory = tmp_path_factory.mktemp("tiny")
    initial = LlamaInit(hidden_size=16, intermediate_size=32, num_layers=1, num_heads=2)
    initial_policy(initial, StageConfig(device="cpu")).save(directory)
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def fetch(hub: Hub, run_dir: Path, *, revision: str = COMMIT, hub_id: str = "owner/tiny", **more: Any) -> Any:
    """The process that a worker starts, with the variables that it gets."""
    run_dir.mkdir(exist_ok=True)
    config = run_dir / "config.json"
    config.write_text(json.dumps({"hub_id": hub_id, "revision": revision}))
    settings = Settings(hub_url=hub.url, **more)
    environment = {"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", "HOME": str(run_dir)}
    environment |= KINDS["import"].variables(settings)
    done = subprocess.run(
        [sys.executable, "-m", KINDS["import"].module, str(config), str(run_dir)],
        env=environment, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    error = run_dir / "error.json"
    return done.returncode, json.loads(error.read_bytes()) if error.exists() else {}, done.stdout + done.stderr


def test_a_registered_model_of_one_commit_becomes_a_published_model(
    hub: Hub,
    tiny_files: dict[str, bytes],
    database: Database,
    sqlite_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.files = {**tiny_files, "pytorch_model.bin": b"pickle", "modeling_tiny.py": b"raise", "onnx/config.json": b"{}"}
    monkeypatch.setenv("MY_HUB_TOKEN", "hf_secret")
    settings = sqlite_settings.model_copy(update={"hub_url": hub.url, "hub_token_variable": "MY_HUB_TOKEN"})
    config = ImportConfig(hub_id="owner/tiny", revision=COMMIT)
    with database.write() as session:
        model_id = register_hub(session, settings, "tiny", config).id
    supervisor = Supervisor(settings, database, dispatcher="local", slots=1)
    attempt = supervisor.take(["lco.cpu"])
    assert attempt is not None
    supervisor.supervise(attempt)
    with database.read() as session:
        output = "".join(session.scalars(select(LogChunk.text)))
        found = Models(session).states([Models(session).get(model_id)])[model_id]
    assert found.checkpoint is not None, output
    place = settings.artifacts / found.checkpoint.path
    manifest = read_manifest(place.parent)
    assert (manifest.outputs, manifest.sha256) == ({"model": "model"}, found.checkpoint.manifest_sha256)
    assert manifest.details["source"] == {"hub_id": "owner/tiny", "revision": COMMIT}
    kept = {path.name: path.read_bytes() for path in place.iterdir()}
    assert kept == {name: content for name, content in tiny_files.items() if is_taken(name)}
    assert not any(path.endswith((".bin", ".py", "onnx/config.json")) for path in hub.asked)
    assert hub.tokens == {"Bearer hf_secret"}
    assert "hf_secret" not in output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"revision": "f" * 40}, "has no commit"),
        ({"hub_id": "owner/other"}, "the hub has no owner/other"),
    ],
)
def test_what_the_hub_does_not_have_is_the_users_mistake(
    hub: Hub, tiny_files: dict[str, bytes], tmp_path: Path, change: dict[str, str], message: str
) -> None:
    hub.files = dict(tiny_files)
    code, error, _ = fetch(hub, tmp_path / "run", **change)
    assert (code, error["outcome"]) == (2, "user")
    assert message in error["message"]


def test_other_bytes_than_promised_are_tried_again_and_a_model_without_safetensors_is_refused(
    hub: Hub, tiny_files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.files = dict(tiny_files)
    weights = tiny_files["model.safetensors"]
    hub.sent["model.safetensors"] = weights[:-1] + bytes([weights[-1] ^ 1])
    code, error, output = fetch(hub, tmp_path / "changed")
    assert (code, error["outcome"]) == (1, "infra"), output
    assert "differs from the hash" in error["message"]
    hub.files = {name: content for name, content in tiny_files.items() if name != "model.safetensors"}
    hub.files["pytorch_model.bin"] = b"pickle"
    code, error, _ = fetch(hub, tmp_path / "pickled")
    assert (code, error["outcome"]) == (2, "user")
    assert "no config.json with safetensors" in error["message"]


def test_offline_a_model_comes_from_the_cache_alone(hub: Hub, tmp_path: Path) -> None:
    code, error, _ = fetch(hub, tmp_path / "run", hub_offline=True)
    assert (code, error["outcome"]) == (2, "user")
    assert "is not in the worker's cache" in error["message"]
    assert hub.asked == []
