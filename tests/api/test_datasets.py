"""Data sets over HTTP, by the client, on the command line and as pages."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api import cli
from api.client import AsyncClient, Client
from api.transport import ApiFailure
from store.settings import Settings
from tests.api.conftest import BASE_URL

JSONL = {"Content-Type": "application/jsonl"}
ROWS = b"".join(b'{"prompt": "%d+1=", "n": %d}\n' % (number, number) for number in range(1, 51))


def upload(http: TestClient, content: bytes = ROWS, name: str = "mine", **headers: str) -> Any:
    return http.post(f"/v1/datasets?name={name}", content=content, headers=headers or JSONL)


def test_an_upload_is_a_version_and_its_repetition_is_none(http: TestClient) -> None:
    first = upload(http)
    assert first.status_code == 201
    found = first.json()
    assert first.headers["location"] == f"/v1/datasets/{found['id']}"
    assert (found["source"], found["num_rows"], found["columns"]) == ("dataset:mine@1", 50, ["prompt", "n"])
    again = upload(http)
    assert (again.status_code, again.json()) == (200, found)
    assert upload(http, b"prompt,n\n1,2\n", **{"Content-Type": "text/csv; charset=utf-8"}).json()["version"] == 2
    assert [item["version"] for item in http.get("/v1/datasets?name=mine").json()["data"]] == [2, 1]
    assert http.get(f"/v1/datasets/{found['id']}").json() == found


def test_a_retry_with_the_same_key_gets_the_first_reply(http: TestClient) -> None:
    key = {**JSONL, "Idempotency-Key": "one"}
    first = upload(http, **key)
    upload(http, b'{"a": 1}\n')
    again = upload(http, **key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert upload(http, b'{"a": 2}\n', **key).json()["code"] == "idempotency_key_reused"


def test_rows_come_in_pages(http: TestClient) -> None:
    identifier = upload(http).json()["id"]
    page = http.get(f"/v1/datasets/{identifier}/rows?limit=2&after=7").json()
    assert page["data"][0] == {"object": "dataset.row", "number": 8, "fields": {"prompt": "8+1=", "n": 8}}
    assert (page["has_more"], page["last_id"]) == (True, "9")
    assert http.get(f"/v1/datasets/{identifier}/rows?after=50").json()["data"] == []


def test_wrong_rows_are_named_and_never_repeated(http: TestClient) -> None:
    answer = upload(http, b'{"prompt": "a"}\n{"prompt": "secret-value\n[1]\n')
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_rows")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/rows/2", "/rows/3"]
    assert "secret" not in answer.text
    assert http.get("/v1/datasets").json()["data"] == []
    answer = http.post("/v1/datasets?name=mine&text_fields=prompt,n", content=ROWS, headers=JSONL)
    assert answer.json()["errors"][0]["pointer"] == "/rows/1"


def test_other_media_types_names_and_sizes_are_refused(
    app: FastAPI, http: TestClient, sqlite_settings: Settings
) -> None:
    assert upload(http, **{"Content-Type": "application/json"}).status_code == 415
    assert upload(http, name="../x").status_code == 422
    app.state.settings = sqlite_settings.model_copy(update={"dataset_max_bytes": 100})
    assert upload(http).status_code == 413
    parts = (b'{"a": 1}\n' for _ in range(20))
    assert http.post("/v1/datasets?name=mine", content=parts, headers=JSONL).status_code == 413
    incoming = sqlite_settings.data / "datasets" / ".incoming"
    assert list(incoming.iterdir()) == []


def test_an_upload_may_be_larger_than_other_bodies(http: TestClient) -> None:
    row = b'{"a": "%s"}\n' % (b"x" * 500_000)
    assert upload(http, row * 4).status_code == 201
    assert http.post("/v1/jobs", content=row * 4, headers=JSONL).status_code == 413


def test_reading_keys_upload_nothing(http: TestClient, make_key: Callable[..., str]) -> None:
    http.headers["Authorization"] = f"Bearer {make_key('read')}"
    assert upload(http).status_code == 403


def test_a_job_takes_a_data_set_by_its_name(http: TestClient, job: dict[str, Any]) -> None:
    upload(http)
    job["config"]["prompts"] = {"name": "jsonl", "path": "dataset:mine"}
    made = http.post("/v1/jobs", json=job)
    assert made.status_code == 201, made.text
    assert made.json()["spec"]["config"]["prompts"]["path"] == "dataset:mine@1"
    job["config"]["prompts"]["path"] = "dataset:nothing"
    refused = http.post("/v1/jobs", json=job).json()
    assert refused["errors"][0]["pointer"] == "/config/prompts/path"


def test_clients_upload_and_find(http: TestClient, app: FastAPI, make_key: Callable[..., str]) -> None:
    client = Client(BASE_URL, make_key(), http=http)
    made = client.upload_dataset("mine", ROWS, "jsonl", text_fields=["prompt"])
    assert made == client.dataset("mine") == client.dataset("dataset:mine@1") == client.dataset(made.id)
    assert made == client.show(made.id)
    assert [row.number for row in client.dataset_rows(made.id, after=45)] == [46, 47, 48, 49, 50]
    assert list(client.datasets(name="other")) == []
    with pytest.raises(ApiFailure, match="no data set"):
        client.dataset("mine@2")

    async def go() -> None:
        transport = httpx2.ASGITransport(app=app)
        async with AsyncClient(
            BASE_URL, make_key(), http=httpx2.AsyncClient(transport=transport, base_url=BASE_URL)
        ) as other:
            assert await other.dataset("mine") == made
            assert (await other.upload_dataset("mine", b'{"a": 1}', "jsonl")).version == 2
            assert len([row async for row in other.dataset_rows(made.id)]) == 50

    asyncio.run(go())


def test_the_command_line_uploads_lists_shows_and_previews(
    live: str,
    make_key: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LCO_URL", live)
    monkeypatch.setenv("LCO_API_KEY", make_key())
    (tmp_path / "rows.jsonl").write_bytes(ROWS)
    (tmp_path / "bad.csv").write_text("a,b\n1\n")
    assert cli.main(["datasets", "upload", "mine", str(tmp_path / "rows.jsonl"), "--text-fields", "prompt"]) == 0
    assert capsys.readouterr().out == "dataset:mine@1  50 rows, prompt, n\n"
    assert cli.main(["datasets", "list"]) == 0
    assert "dataset:mine@1" in capsys.readouterr().out
    assert cli.main(["datasets", "show", "mine"]) == 0
    assert json.loads(capsys.readouterr().out)["num_rows"] == 50
    assert cli.main(["datasets", "preview", "mine@1", "--limit", "1", "--after", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["2", "2+1=", "2"]
    assert cli.main(["datasets", "upload", "mine", str(tmp_path / "bad.csv")]) == 1
    assert "/rows/1" in capsys.readouterr().err
    assert cli.main(["datasets", "upload", "mine", str(tmp_path / "rows.txt")]) == 2


def test_pages_show_the_rows_as_text(http: TestClient) -> None:
    identifier = upload(http, b'{"prompt": "<script>alert(1)</script>", "n": {"deep": [1]}}\n' + ROWS).json()["id"]
    assert "mine@1" in http.get("/datasets").text
    text = http.get(f"/datasets/{identifier}").text
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text
    assert f"/datasets/{identifier}?after=25" in text
    assert "50+1=" in http.get(f"/datasets/{identifier}?after=26").text
