"""The endpoint against a real server on loopback: troubles delay, never falsify; bounds hold; the key goes nowhere."""

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from evaluation.endpoint import (
    CircuitOpen,
    Closed,
    Endpoint,
    EndpointFailure,
    EndpointRejected,
    SpendingCapReached,
)
from evaluation.records import Journal
from lco.endpoint_config import AzureEndpoint, OpenAiEndpoint, Prices
from tests.evaluation.judge_server import Answer, JudgeServer

QUICK = {"backoff_seconds": 0.01, "max_backoff_seconds": 0.02, "breaker_seconds": 0.05, "timeout_seconds": 5.0}
KEY = "sk-CANARY-0123456789"


def endpoint_of(server, *, journal=None, environment=None, **changes):
    config = OpenAiEndpoint.model_validate(
        {"base_url": f"{server.origin}/v1", "model": "judge"} | QUICK | changes, strict=False
    )
    return closing(Endpoint(config, journal=journal, environment=environment or {}, seed=0))


def ask(endpoint, text="hello", **changes):
    asked = {"max_tokens": 1, "temperature": 1.0, "top_logprobs": 5} | changes
    return endpoint.chat([{"role": "user", "content": text}], **asked)


def test_a_call_is_the_request_that_it_says_and_its_reply_is_read_whole():
    with JudgeServer() as server, endpoint_of(server, prices={"input_per_million": 10, "output_per_million": 30}) as e:
        reply = ask(e, "hi", seed=7, stop=["x"], top_p=0.9)
        assert server.calls[0].path == "/v1/chat/completions"
        assert server.calls[0].body == {
            "model": "judge", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "temperature": 1.0,
            "top_p": 0.9, "seed": 7, "logprobs": True, "top_logprobs": 5, "stop": ["x"],
        }  # fmt: skip
        assert (reply.text, reply.finish_reason, reply.top_logprobs) == ("m", "length", {"m": -0.1, "M": -2.3})
        assert (reply.prompt_tokens, reply.completion_tokens) == (100, 1)
        assert reply.price == pytest.approx((100 * 10 + 30) / 1e6)
        usage = e.usage()
        assert (usage.num_calls, usage.num_tries, usage.prompt_tokens, usage.price) == (1, 1, 100, reply.price)


def test_the_field_of_newer_models_is_sent_where_the_configuration_names_it():
    with JudgeServer() as server, endpoint_of(server, max_tokens_field="max_completion_tokens") as endpoint:
        ask(endpoint)
        assert server.calls[0].body["max_completion_tokens"] == 1 and "max_tokens" not in server.calls[0].body


def test_azure_is_asked_by_deployment_and_version_with_its_own_header():
    with JudgeServer() as server:
        config = AzureEndpoint(endpoint_url=server.origin, deployment="gpt4o", model="gpt-4o-2024-11-20")
        with closing(Endpoint(config, environment={"AZURE_OPENAI_API_KEY": KEY})) as endpoint:
            assert ask(endpoint).text == "m"
        call = server.calls[0]
        assert call.path == "/openai/deployments/gpt4o/chat/completions?api-version=2024-10-21"
        assert call.headers["api-key"] == KEY and "authorization" not in call.headers


def test_only_listed_headers_leave_whatever_the_environment_of_the_sdk_says(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "AZURE_OPENAI_AD_TOKEN", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, f"{KEY}-{name}")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with JudgeServer() as server:
        with endpoint_of(server) as endpoint:
            ask(endpoint)
        config = AzureEndpoint(endpoint_url=server.origin, deployment="d", model="m", api_key_variable="")
        with closing(Endpoint(config)) as endpoint:
            ask(endpoint)
        allowed = {"host", "content-type", "content-length", "accept", "accept-encoding", "user-agent", "connection"}
        for call in server.calls:
            assert set(call.headers) <= allowed
            assert KEY not in json.dumps([call.headers, call.body])


@pytest.mark.parametrize("key", ["", " ", "two words", "line\nbreak", "schlüssel"])
def test_a_key_that_is_none_is_refused_before_any_call_and_not_repeated(key):
    with pytest.raises(ValueError, match="JUDGE_KEY holds no key") as error:
        Endpoint(OpenAiEndpoint(model="m", api_key_variable="JUDGE_KEY"), environment={"JUDGE_KEY": key})
    assert not key.strip() or key not in str(error.value)


@pytest.mark.parametrize(
    "faults",
    [
        ["500"], ["503", "502", "500"], ["429"], ["429 0.05"], ["408"], ["409 conflict"], ["cut"], ["garbage"],
        ["html"], ["gzip"], ["huge"], ["500", "429", "cut", "garbage", "html"],
    ],
    ids=str,
)  # fmt: skip
def test_trouble_delays_a_call_and_changes_nothing(faults):
    with JudgeServer(faults=faults) as server, endpoint_of(server, max_response_bytes=1 << 16) as endpoint:
        assert ask(endpoint).top_logprobs == {"m": -0.1, "M": -2.3}
        assert server.stats()["requests"] == len(faults) + 1 == endpoint.usage().num_tries


@pytest.mark.parametrize("fault", ["stall", "drip"])
def test_silence_and_dripping_end_at_the_time_of_a_try(fault):
    with JudgeServer(faults=[fault]) as server, endpoint_of(server, timeout_seconds=0.4) as endpoint:
        started = time.monotonic()
        assert ask(endpoint).text == "m"
        assert 0.4 <= time.monotonic() - started < 30


def test_a_date_in_retry_after_is_waited_for():
    with JudgeServer(faults=["429-date"]) as server, endpoint_of(server) as endpoint:
        ask(endpoint)
        assert server.calls[1].at - server.calls[0].at >= 0.4


def test_what_one_call_is_told_to_wait_all_wait():
    with JudgeServer(faults=["429 0.6"]) as server, endpoint_of(server) as endpoint:
        thread = threading.Thread(target=ask, args=(endpoint, "first"))
        thread.start()
        while not server.calls:
            time.sleep(0.01)
        time.sleep(0.1)
        ask(endpoint, "second")
        thread.join()
        assert all(call.at - server.calls[0].at >= 0.55 for call in server.calls[1:])


def test_a_wait_beyond_the_time_of_the_call_fails_it_at_once():
    with JudgeServer(faults=lambda call: "429 3600") as server, endpoint_of(server, max_seconds=5) as endpoint:
        started = time.monotonic()
        with pytest.raises(EndpointFailure) as error:
            ask(endpoint)
        assert error.value.reason == "rate_limited" and time.monotonic() - started < 60
        assert server.stats()["requests"] == 1


def test_tries_are_bounded_and_the_reason_is_a_word():
    with JudgeServer(faults=lambda call: "503") as server, endpoint_of(server, max_attempts=3) as endpoint:
        with pytest.raises(EndpointFailure) as error:
            ask(endpoint)
        assert error.value.reason == "http_503"
        assert server.stats()["requests"] == 3 and endpoint.usage().num_failed_calls == 1


def test_a_call_that_the_server_will_never_take_is_not_repeated():
    with JudgeServer(faults=["400 content_filter"]) as server, endpoint_of(server) as endpoint:
        with pytest.raises(EndpointFailure) as error:
            ask(endpoint)
        assert error.value.reason == "rejected_content_filter" and server.stats()["requests"] == 1
        assert ask(endpoint).text == "m"


@pytest.mark.parametrize("fault", ["401", "403", "404 model_not_found", "429 insufficient_quota", "redirect"])
def test_what_refuses_every_call_is_told_as_the_users_mistake_without_the_servers_words(fault, caplog):
    caplog.set_level(logging.DEBUG)
    with (
        JudgeServer(faults=lambda call: fault) as server,
        endpoint_of(server, environment={"JUDGE_KEY": KEY}, api_key_variable="JUDGE_KEY") as endpoint,
    ):
        with pytest.raises(EndpointRejected) as error:
            ask(endpoint)
        assert server.calls[0].headers["authorization"] == f"Bearer {KEY}"
        assert server.stats()["requests"] == 1 and server.calls[0].path == "/v1/chat/completions"
        assert isinstance(error.value, ValueError)
        assert "CANARY" not in str(error.value) + caplog.text


def test_a_closed_port_is_a_failed_connection_and_costs_nothing():
    with JudgeServer() as server:
        pass
    prices = {"input_per_million": 1e6}
    with endpoint_of(server, max_attempts=2, prices=prices, spending_cap=1e9) as endpoint:
        with pytest.raises(EndpointFailure) as error:
            ask(endpoint)
        assert error.value.reason == "connection" and endpoint.budget.spent == 0


def test_the_circuit_opens_probes_and_closes_again():
    with JudgeServer(faults=["500"] * 6) as server, endpoint_of(server, breaker_failures=3, max_attempts=8) as endpoint:
        assert ask(endpoint).text == "m"
        assert endpoint.usage().num_circuit_openings == 1
        waits = [b.at - a.at for a, b in zip(server.calls, server.calls[1:], strict=False)]
        assert all(wait >= least for wait, least in zip(waits[2:], (0.05, 0.1, 0.2, 0.4), strict=False))


def test_a_refused_call_is_a_sign_of_life():
    faults = ["500", "500", "400 too_long", "500", "500"]
    with JudgeServer(faults=faults) as server, endpoint_of(server, breaker_failures=3) as endpoint:
        with pytest.raises(EndpointFailure):
            ask(endpoint)
        assert ask(endpoint).text == "m" and endpoint.usage().num_circuit_openings == 0


def test_an_endpoint_that_stays_down_is_given_up_for_all_callers():
    with JudgeServer(faults=lambda call: "500") as server:
        settings = {"breaker_failures": 4, "breaker_probes": 2, "max_attempts": 50, "breaker_seconds": 0.02}
        with endpoint_of(server, **settings) as endpoint, ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(ask, endpoint, str(n)) for n in range(8)]:
                with pytest.raises(CircuitOpen, match="kept and not asked again"):
                    future.result()
            # Calls under way when the circuit opens still end: at most one a thread beyond the failures and probes.
            assert server.stats()["requests"] <= 4 + 3 + 2


def test_no_more_requests_are_in_flight_than_allowed():
    with JudgeServer(seconds=0.1) as server, endpoint_of(server, max_concurrency=3) as endpoint:
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda n: ask(endpoint, str(n)), range(12)))
        assert server.stats()["most_in_flight"] == 3


def test_requests_a_minute_are_paced():
    with JudgeServer() as server, endpoint_of(server, requests_per_minute=600) as endpoint:
        started = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: ask(endpoint, str(n)), range(16)))
        # A second's worth (10) may go at once, the rest at one each 0.1 s.
        assert server.calls[-1].at - started >= 0.45


def test_tokens_a_minute_are_paced_by_what_calls_really_used():
    with JudgeServer() as server, endpoint_of(server, tokens_per_minute=60_000) as endpoint:
        started = time.monotonic()
        for n in range(14):  # 101 tokens each of 1,000 a second, although the texts are short
            ask(endpoint, str(n))
        assert server.calls[-1].at - started >= 0.2


def test_the_cap_is_never_exceeded_and_named():
    price = {"input_per_million": 10_000.0, "output_per_million": 0.0}
    with JudgeServer(seconds=0.01) as server, endpoint_of(server, prices=price, spending_cap=10.5) as endpoint:
        failures = []

        def work(n):
            try:
                ask(endpoint, f"{n:090d}")
            except SpendingCapReached as error:
                failures.append(str(error))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(40)))
        assert server.stats()["answered"] == 10 and endpoint.budget.spent == pytest.approx(10)
        assert len(failures) == 30 and "spending_cap: 10.5 is the cap" in failures[0]


def test_a_try_whose_answer_was_lost_counts_as_spent():
    price = {"input_per_million": 1e6, "output_per_million": 1e6}
    with JudgeServer(faults=["cut"]) as server, endpoint_of(server, prices=price, spending_cap=1000) as endpoint:
        ask(endpoint, "x" * 50)
        assert endpoint.budget.spent == pytest.approx(101 + (50 + 4 + 16) + 1)


def test_a_recorded_reply_is_never_asked_for_again_and_its_price_stays_spent(tmp_path):
    price = {"prices": {"input_per_million": 10_000.0}, "spending_cap": 2.5}
    with JudgeServer() as server:
        with Journal(tmp_path / "a.jsonl") as journal, endpoint_of(server, journal=journal, **price) as endpoint:
            first = [ask(endpoint, text) for text in ("one", "two")]
        with (
            Journal(tmp_path / "b.jsonl", [tmp_path / "a.jsonl"]) as journal,
            endpoint_of(server, journal=journal, **price) as endpoint,
        ):
            assert [ask(endpoint, text) for text in ("one", "two")] == first
            with pytest.raises(SpendingCapReached, match="2 is spent"):
                ask(endpoint, "x" * 60)
            assert (endpoint.usage().num_from_journal, endpoint.usage().num_calls) == (2, 0)
        assert server.asked_stats()["requests"] == 2


@pytest.mark.parametrize(
    "change", [{"top_p": 0.5}, {"temperature": 0.5}, {"max_tokens": 2}, {"seed": 1}, {"stop": ["a"]}]
)
def test_another_request_is_another_entry(tmp_path, change):
    with (
        JudgeServer() as server,
        Journal(tmp_path / "a.jsonl") as journal,
        endpoint_of(server, journal=journal) as endpoint,
    ):
        ask(endpoint)
        ask(endpoint, **change)
        assert server.stats()["requests"] == 2


def test_closing_ends_calls_that_wait():
    with JudgeServer(faults=["429 30"]) as server, endpoint_of(server) as endpoint, ThreadPoolExecutor(1) as pool:
        future = pool.submit(ask, endpoint)
        while not server.calls:
            time.sleep(0.01)
        endpoint.close()
        with pytest.raises(Closed):
            future.result(timeout=5)


@pytest.mark.parametrize(
    "text", ["\ud800 lone", "{output_2}", "\x00\x1b", "é" * 10, "x" * 2_000_000], ids=lambda t: repr(t)[:12]
)
def test_any_text_can_be_asked_about(text):
    with JudgeServer() as server, endpoint_of(server) as endpoint:
        assert ask(endpoint, text).text == "m"
        assert len(server.calls[0].body["messages"][0]["content"]) == len(text)


@pytest.mark.parametrize("form", ["chat", "older"])
def test_both_forms_of_candidates_are_read(form):
    with JudgeServer(lambda call: Answer(form=form)) as server, endpoint_of(server) as endpoint:
        assert ask(endpoint).top_logprobs == {"m": -0.1, "M": -2.3}


def test_a_server_without_candidates_or_usage_says_so_and_is_estimated():
    with JudgeServer(lambda call: Answer(logprobs=None, usage=None)) as server, endpoint_of(server) as endpoint:
        reply = ask(endpoint, "x" * 36)
        assert reply.top_logprobs is None and (reply.prompt_tokens, reply.completion_tokens) == (10, 1)


def test_numbers_that_are_no_log_probabilities_are_garbage():
    with JudgeServer(lambda call: Answer(logprobs={"m": float("nan")})) as server:
        with endpoint_of(server, max_attempts=2) as endpoint, pytest.raises(EndpointFailure) as error:
            ask(endpoint)
        assert error.value.reason == "garbage"


def test_an_estimate_is_at_four_bytes_a_token():
    config = OpenAiEndpoint(model="m", prices=Prices(input_per_million=2.0, output_per_million=8.0))
    with closing(Endpoint(config)) as endpoint:
        assert endpoint.estimated_price(4_000_000, 500_000) == pytest.approx(2 + 4)
