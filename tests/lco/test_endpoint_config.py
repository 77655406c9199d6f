"""What a configuration of an endpoint refuses, and what names a server."""

import json
import re
import textwrap
import tomllib
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from evaluation.judge_config import AlpacaEval2Benchmark
from lco.endpoint_config import AzureEndpoint, EndpointConfig, OpenAiEndpoint, Prices, key_variable, origin_of


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com:443"),
        ("HTTP://LocalHost:8000", "http://localhost:8000"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
        ("http://10.0.0.1", "http://10.0.0.1:80"),
    ],
)
def test_a_server_is_scheme_host_and_port(url, origin):
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    "url",
    [
        "", "api.openai.com", "ftp://a", "file:///etc/passwd", "http://", "https://user:secret@host", "https://h?key=secret",
        "https://h#secret", "https://h:port", "https://h:99999", "https://h\\@x", "https://h\n", "https://hö.example",
    ],
)  # fmt: skip
def test_anything_else_is_no_server_and_is_not_repeated(url):
    with pytest.raises(ValueError, match=r"must|is no URL") as error:
        origin_of(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "A", "JUDGE_2"])
def test_a_variable_may_hold_a_key(name):
    assert key_variable(name) == name


@pytest.mark.parametrize(
    "name", ["", "lower", "sk-123", "PATH", "HOME", "LD_PRELOAD", "LCO_DATABASE_URL", "PYTHONPATH", "A B"]
)
def test_other_variables_may_not(name):
    with pytest.raises(ValueError, match="name of an environment variable"):
        key_variable(name)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"api": "other"}, "api"), ({"base_url": "x"}, "base_url"), ({"max_concurrency": 0}, "max_concurrency"),
        ({"requests_per_minute": -1}, "requests_per_minute"), ({"max_attempts": 0}, "max_attempts"),
        ({"timeout_seconds": 0.0}, "timeout_seconds"), ({"spending_cap": 1.0}, "spending_cap"),
        ({"spending_cap": -1.0}, "spending_cap"), ({"api_key_variable": "sk-123"}, "api_key_variable"),
        ({"api_key": "sk-123"}, "api_key"), ({"deployment": "d"}, "deployment"), ({"model": ""}, "model"),
        ({"prices": {"input_per_million": -1.0}}, "prices"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_field_is_refused_by_name(change, field):
    with pytest.raises(ValidationError) as error:
        TypeAdapter(EndpointConfig).validate_python({"api": "openai", "model": "m"} | change)
    assert field in str(error.value)


@pytest.mark.parametrize(
    "change",
    [{"deployment": "a/b"}, {"deployment": ".."}, {"api_version": "newest"}, {"base_url": "https://h"}],
    ids=str,
)
def test_azure_names_a_deployment_and_a_dated_version(change):
    azure = {"api": "azure", "endpoint_url": "https://r.openai.azure.com", "deployment": "d", "model": "m"}
    assert isinstance(TypeAdapter(EndpointConfig).validate_python(azure), AzureEndpoint)
    with pytest.raises(ValidationError):
        TypeAdapter(EndpointConfig).validate_python(azure | change)


def test_the_identity_names_the_model_and_nothing_of_patience_or_price():
    plain = OpenAiEndpoint(model="m")
    patient = OpenAiEndpoint(model="m", max_attempts=3, prices=Prices(input_per_million=1.0), spending_cap=2.0)
    assert plain.identity() == patient.identity() != OpenAiEndpoint(model="other").identity()


def test_every_field_says_what_it_is():
    for config in (OpenAiEndpoint, AzureEndpoint, Prices):
        assert all(field.description for name, field in config.model_fields.items() if name != "api")


def test_the_configurations_that_the_documentation_shows_are_valid():
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    blocks = [textwrap.dedent(block) for block in re.findall(r"(?:^ {4,}\S.*\n|^\n(?= {4}))+", page, re.MULTILINE)]
    shown = [tomllib.loads(block) for block in blocks if "[benchmarks.judge.endpoint]" in block]
    apis = set()
    for document in shown:
        benchmark = document["benchmarks"]
        benchmark = benchmark[0] if isinstance(benchmark, list) else {"reference": "r.json"} | benchmark
        apis.add(AlpacaEval2Benchmark.model_validate_json(json.dumps(benchmark)).judge.endpoint.api)
    assert apis == {"openai", "azure"}
