"""The strict reader: by itself and behind a route, every row of what stock FastAPI gets wrong."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from api.strict_json import StrictJsonError, loads, loads_toml

DEEP = b"[" * 900 + b"]" * 900
REFUSED = {
    "NaN": (b'{"lr": NaN}', 400, "json_not_finite", ""),
    "infinity": (b'{"x": {"y": Infinity}}', 400, "json_not_finite", ""),
    "minus infinity": (b"-Infinity", 400, "json_not_finite", ""),
    "too large a float": (b'{"lr": 1e999}', 400, "json_not_finite", ""),
    "lone surrogate": (b'{"a": "\\ud800"}', 400, "json_surrogate", ""),
    "lone surrogate in a key": (b'{"\\udfff": 1}', 400, "json_surrogate", ""),
    "deep nesting": (DEEP, 400, "json_depth", ""),
    "NUL": (b'{"a": ["x", "\\u0000"]}', 422, "control_character", "/a/1"),
    "escape character": (b'{"a/b": "\\u001b[2J"}', 422, "control_character", "/a~1b"),
    "2^63": (b'{"seed": 9223372036854775808}', 422, "integer_out_of_range", "/seed"),
    "-2^63 - 1": (b"[-9223372036854775809]", 422, "integer_out_of_range", "/0"),
    "integer of 100,000 digits": (b"9" * 100_000, 422, "integer_out_of_range", ""),
    "duplicate key": (b'{"lr": 0.1, "lr": 0.5}', 400, "json_duplicate_key", ""),
    "byte order mark": (b'\xef\xbb\xbf{"a": 1}', 400, "json_encoding", ""),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), 400, "json_encoding", ""),
    "UTF-16 without a mark": ('{"a": 1}'.encode("utf-16-le"), 400, "json_syntax", ""),
    "Latin-1": (b'{"a": "\xe4"}', 400, "json_encoding", ""),
    "empty": (b"", 400, "json_syntax", ""),
    "trailing text": (b"{} {}", 400, "json_syntax", ""),
    "single quotes": (b"{'a': 1}", 400, "json_syntax", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_reader_refuses(name: str) -> None:
    body, status, code, pointer = REFUSED[name]
    with pytest.raises(StrictJsonError) as caught:
        loads(body)
    assert (caught.value.status, caught.value.code, caught.value.pointer) == (status, code, pointer)


def test_route_refuses_each_with_a_problem(http: TestClient) -> None:
    for name, (body, status, code, _) in REFUSED.items():
        response = http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
        assert (response.status_code, response.json()["code"]) == (status, code), name


@pytest.mark.parametrize(
    ("field", "value", "pointer"),
    [
        (("config", "optimizer", "learning_rate"), "0.1", "/config/optimizer/learning_rate"),
        (("config", "optimizer", "learning_rate"), True, "/config/optimizer/learning_rate"),
        (("config", "steps"), 1.0, "/config/steps"),
        (("config", "steps"), "3", "/config/steps"),
        (("config", "unknown"), 1, "/config/unknown"),
        (("config", "policy", "unknown"), 1, "/config/policy/unknown"),
        (("config", "prompts", "num_terms"), 1, "/config/prompts/num_terms"),
        (("config", "prompts", "name"), "secret-of-mine", "/config/prompts"),
        (("seeds", 0), -1, "/seeds/0"),
        (("config", "seed"), 3, "/config"),
        (("unknown",), 1, "/unknown"),
        (("name",), None, "/name"),
    ],
)
def test_wrong_field_is_a_422_that_names_it(
    http: TestClient, job: dict[str, Any], field: tuple[Any, ...], value: Any, pointer: str
) -> None:
    place = job
    for key in field[:-1]:
        place = place[key]
    place[field[-1]] = value
    response = http.post("/v1/jobs", json=job)
    assert response.status_code == 422, response.text
    assert pointer in [error["pointer"] for error in response.json()["errors"]]
    assert "secret-of-mine" not in response.text.replace(pointer, "")


def test_missing_field_is_named(http: TestClient, job: dict[str, Any]) -> None:
    del job["config"]["prompts"]
    errors = http.post("/v1/jobs", json=job).json()["errors"]
    assert [(error["pointer"], error["code"]) for error in errors] == [("/config/prompts", "missing")]


def test_refusal_never_repeats_a_value(http: TestClient, job: dict[str, Any]) -> None:
    canary = "sk-CANARY-3f2b6d0e-8a51-4f7e-9a57-1d0f3c1b2a44"
    documents = [
        {**job, "api_key": canary},
        {**job, "name": canary},
        {**job, "kind": canary},
        {**job, "config": {**job["config"], "policy": canary}},
        {**job, "config": {**job["config"], "prompts": {"name": canary}}},
        {**job, "seeds": [canary]},
        {**job, "metadata": {"key": [canary]}},
        {"name": "x", "jobs": [{**job, "after": [canary.lower()]}]},
        [canary],
    ]
    for document in documents:
        for path in ("/v1/jobs", "/v1/experiments"):
            response = http.post(path, json=document)
            assert response.status_code == 422, response.text
            assert canary.lower() not in response.text.lower()


def test_body_of_another_type_is_a_415(http: TestClient, job: dict[str, Any]) -> None:
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "application/xml", ""):
        response = http.post("/v1/jobs", content=json.dumps(job), headers={"Content-Type": media_type})
        assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


def test_lists_are_accepted_where_a_config_has_tuples(http: TestClient, job: dict[str, Any]) -> None:
    response = http.post("/v1/jobs", json=job)
    assert response.status_code == 201, response.text
    assert response.json()["spec"]["config"]["optimizer"]["betas"] == [0.9, 0.95]


def test_toml_is_read_under_the_same_rules() -> None:
    assert loads_toml(b'name = "a"\nseeds = [0, 1]') == {"name": "a", "seeds": [0, 1]}
    for body in (
        b"a = nan",
        b"a = inf",
        b"a = 2024-01-01",
        b"a =",
        b'a = "\\u0000"',
        b"\xff",
        b"a = 9223372036854775808",
    ):
        with pytest.raises(StrictJsonError):
            loads_toml(body)


texts = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]))
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


@given(documents)
def test_reader_accepts_what_json_can_say(document: Any) -> None:
    assert loads(json.dumps(document).encode()) == document
    assert loads(json.dumps(document, ensure_ascii=False).encode()) == document


@given(st.binary(max_size=200))
def test_reader_only_ever_refuses_with_its_own_error(body: bytes) -> None:
    try:
        document = loads(body)
    except StrictJsonError:
        return
    assert loads(json.dumps(document).encode()) == document
