"""Which servers a job may ask, and with which keys."""

import pytest
from pydantic import ValidationError

from store.endpoints import key_variables
from store.errors import Invalid
from store.settings import Settings
from tests.store.conftest import Rig

OPENAI = {"api": "openai", "model": "m", "api_key_variable": "OPENAI_API_KEY"}
LOCAL = {"api": "openai", "model": "m", "base_url": "http://127.0.0.1:8000/v1"}
AZURE = {"api": "azure", "model": "m", "deployment": "d", "endpoint_url": "https://mine.openai.azure.com"}
LISTED = (
    "https://api.openai.com=OPENAI_API_KEY, http://127.0.0.1:8000,https://mine.openai.azure.com=AZURE_OPENAI_API_KEY"
)


def job(rig, endpoint):
    benchmark = {"name": "alpaca-eval-2", "reference": "data:reference.json", "judge": {"endpoint": endpoint}}
    return rig.spec("evaluation", config={"policy": "model:m", "benchmarks": [benchmark]})


def allowing(rig, listed):
    directory = rig.settings.models / "m"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text("{}")
    rig.settings.data.mkdir(parents=True, exist_ok=True)
    (rig.settings.data / "reference.json").write_text("[]")
    return Rig(rig.database, rig.settings.model_copy(update={"endpoints": listed}))


def refusal(rig, endpoint):
    with pytest.raises(Invalid) as refused:
        rig.submit_experiment(job(rig, endpoint))
    return refused.value


@pytest.mark.parametrize(("endpoint", "field"), [(OPENAI, "base_url"), (LOCAL, "base_url"), (AZURE, "endpoint_url")])
def test_a_server_that_is_not_listed_is_refused_even_on_loopback(sqlite_rig, endpoint, field):
    refused = refusal(allowing(sqlite_rig, ""), endpoint)
    assert refused.pointer == f"/jobs/0/config/benchmarks/0/judge/endpoint/{field}"
    assert "LCO_ENDPOINTS" in refused.message and "127.0.0.1" not in refused.message


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "http://127.0.0.1:8001/v1"}, {"base_url": "https://127.0.0.1:8000/v1"},
        {"base_url": "http://localhost:8000/v1"}, {"base_url": "https://api.openai.com.example.org/v1"},
    ],
    ids=str,
)  # fmt: skip
def test_scheme_host_and_port_must_all_be_those_of_the_list(sqlite_rig, change):
    assert refusal(allowing(sqlite_rig, LISTED), LOCAL | change).pointer.endswith("/base_url")


@pytest.mark.parametrize("variable", ["AZURE_OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY"])
@pytest.mark.parametrize("endpoint", [OPENAI, LOCAL])
def test_no_key_goes_to_a_server_that_it_is_not_listed_with(sqlite_rig, endpoint, variable):
    refused = refusal(allowing(sqlite_rig, LISTED), endpoint | {"api_key_variable": variable})
    assert refused.pointer.endswith("/judge/endpoint/api_key_variable")


@pytest.mark.parametrize("endpoint", [OPENAI, LOCAL, AZURE, OPENAI | {"base_url": "https://API.openai.com:443/v1/"}])
def test_a_listed_server_is_accepted_with_its_key(sqlite_rig, endpoint):
    rig = allowing(sqlite_rig, LISTED)
    rig.submit_experiment(job(rig, endpoint))


def test_a_run_has_the_keys_that_its_endpoints_name_and_the_operator_lists_now(sqlite_rig):
    rig = allowing(sqlite_rig, LISTED)
    assert key_variables(rig.settings, job(rig, OPENAI).config) == ("OPENAI_API_KEY",)
    assert key_variables(rig.settings, job(rig, LOCAL).config) == ()
    assert key_variables(rig.settings.model_copy(update={"endpoints": ""}), job(rig, OPENAI).config) == ()


def test_several_variables_may_belong_to_one_server():
    settings = Settings(endpoints="https://a.example=ONE_KEY,https://a.example:443=TWO_KEY,https://b.example")
    assert settings.endpoint_keys == {
        "https://a.example:443": frozenset({"ONE_KEY", "TWO_KEY"}),
        "https://b.example:443": frozenset(),
    }


@pytest.mark.parametrize(
    "listed",
    [
        "api.openai.com", "ftp://a", "https://user:secret@a", "https://a?key=B", "https://a=lower", "https://a=PATH",
        "https://a=LCO_DATABASE_URL", "https://a=LD_PRELOAD", "https://a b",
    ],
)  # fmt: skip
def test_a_list_of_another_form_is_refused_without_repeating_it(listed):
    with pytest.raises(ValidationError, match="LCO_ENDPOINTS: entry 1") as error:
        Settings(endpoints=listed)
    assert "secret" not in str(error.value.errors()[0]["msg"])
