"""Data sets made of others and of what runs published."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from api import cli
from api.client import Client
from lco.manifest import write_manifest
from store.artifacts import run_directory
from store.derived_datasets import part_of
from store.ids import encode_id
from store.settings import Settings
from tests.api.conftest import Hand
from tests.api.test_datasets import upload

ROWS = b"".join(b'{"prompt": "%d", "n": %d}\n' % (number % 40, number) for number in range(400))


def rows(http: TestClient, identifier: str) -> list[Any]:
    found: list[Any] = []
    while True:
        page = http.get(f"/v1/datasets/{identifier}/rows?limit=100&after={len(found)}").json()
        found += [row["fields"] for row in page["data"]]
        if not page["has_more"]:
            return found


def test_a_split_keeps_rows_of_one_key_together_and_loses_none(http: TestClient) -> None:
    whole = upload(http, ROWS).json()
    answer = http.post(
        f"/v1/datasets/{whole['id']}/splits", json={"parts": {"train": 0.7, "test": 0.3}, "key": "prompt"}
    )
    assert answer.status_code == 201
    train, test = answer.json()["data"]
    assert (train["source"], test["source"]) == ("dataset:mine-train@1", "dataset:mine-test@1")
    assert train["origin"] == {
        "kind": "split",
        "dataset": "dataset:mine@1",
        "part": "train",
        "fraction": 0.7,
        "key": "prompt",
    }
    keys = [{row["prompt"] for row in rows(http, part["id"])} for part in (train, test)]
    assert not keys[0] & keys[1] and len(keys[0] | keys[1]) == 40
    assert train["num_rows"] + test["num_rows"] == 400
    again = http.post(
        f"/v1/datasets/{whole['id']}/splits", json={"parts": {"train": 0.7, "test": 0.3}, "key": "prompt"}
    )
    assert [part["id"] for part in again.json()["data"]] == [train["id"], test["id"]]


def test_a_later_version_leaves_every_row_in_its_part(http: TestClient) -> None:
    request = {"parts": {"train": 0.5, "test": 0.5}, "key": "n"}
    first = http.post(f"/v1/datasets/{upload(http, ROWS).json()['id']}/splits", json=request).json()["data"]
    more = ROWS + b'{"prompt": "x", "n": 401}\n'
    second = http.post(f"/v1/datasets/{upload(http, more).json()['id']}/splits", json=request).json()["data"]
    for before, after in zip(first, second, strict=True):
        assert [row for row in rows(http, after["id"]) if row["n"] < 400] == rows(http, before["id"])


@given(st.text(max_size=20), st.lists(st.floats(0.01, 0.4), min_size=1, max_size=2))
def test_the_share_of_a_part_does_not_depend_on_what_comes_after_it(key: str, shares: list[float]) -> None:
    fractions = {str(position): share for position, share in enumerate(shares)}
    found = part_of(key, fractions)
    if found is not None:
        assert part_of(key, {**fractions, "more": 0.1}) == found


def test_shares_are_shares_of_the_keys() -> None:
    counts = [part_of(str(number), {"a": 0.2, "b": 0.5}) for number in range(10_000)]
    assert abs(counts.count("a") - 2000) < 150 and abs(counts.count("b") - 5000) < 200
    assert abs(counts.count(None) - 3000) < 180


@pytest.mark.parametrize(
    ("request_body", "pointer"),
    [
        ({"parts": {"a": 0.7, "b": 0.4}}, ""),
        ({"parts": {"a": 0.0}}, "/parts/a"),
        ({"parts": {}}, "/parts"),
        ({"parts": {"../x": 0.5}}, "/parts/../x/[key]"),
        ({"parts": {"a": 1.0}, "key": "absent"}, "/key"),
        ({"parts": {"a": 1e-12}}, "/parts/a"),
    ],
)
def test_a_wrong_split_names_its_field(http: TestClient, request_body: dict[str, Any], pointer: str) -> None:
    identifier = upload(http, ROWS).json()["id"]
    answer = http.post(f"/v1/datasets/{identifier}/splits", json=request_body)
    assert answer.status_code == 422
    if pointer and "[" not in pointer:
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert len(http.get("/v1/datasets").json()["data"]) == 1


def publish_pairs(client: Client, hand: Hand, settings: Settings, job: dict[str, Any]) -> str:
    """A finished run that published rows."""
    client.submit(job)
    claim = hand.claim()
    directory = run_directory(settings, claim.run_id, claim.attempt)
    directory.mkdir(parents=True)
    (directory / "pairs.jsonl").write_text('{"prompt": "1+1=", "chosen": "2", "rejected": "3"}\n')
    write_manifest(directory, step=1, outputs={"pairs": "pairs.jsonl"}, include=["pairs.jsonl"])
    hand.finish(claim)
    return encode_id("run", claim.run_id)


def test_what_a_run_published_becomes_a_data_set(
    client: Client, hand: Hand, sqlite_settings: Settings, job: dict[str, Any]
) -> None:
    run = publish_pairs(client, hand, sqlite_settings, job)
    kept = client.keep_output(run, "pairs", "preferences")
    assert (kept.source, kept.num_rows, kept.columns) == ("dataset:preferences@1", 1, ["prompt", "chosen", "rejected"])
    assert kept.origin == {"kind": "run", "run": run, "output": "pairs"}
    assert client.keep_output(run, "pairs", "preferences").id == kept.id


def test_the_command_line_splits_and_keeps(
    lco: Any, client: Client, hand: Hand, sqlite_settings: Settings, job: dict[str, Any], http: TestClient
) -> None:
    upload(http, ROWS)
    code, out, _ = lco("datasets", "split", "mine", "--part", "train=0.5", "--part", "test=0.5", "--key", "n")
    assert (code, [line.split()[0] for line in out.splitlines()]) == (
        0,
        ["dataset:mine-train@1", "dataset:mine-test@1"],
    )
    assert lco("datasets", "split", "mine", "--part", "half")[0] == 2
    run = publish_pairs(client, hand, sqlite_settings, job)
    code, out, _ = lco("datasets", "keep", "preferences", run, "--json")
    assert json.loads(out)["origin"]["output"] == "pairs"
    assert "no hub source" in lco("datasets", "upload", "x", "hub:nowhere/main.jsonl")[2]
    assert cli.make_parser().parse_args(["datasets", "keep", "a", "run_x"]).output is None
