"""Rates, breaker and budget by their own clocks."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.limits import Breaker, Budget, CircuitOpen, Closed, RateLimit, SpendingCapReached
from lco.endpoint_config import OpenAiEndpoint

CONFIG = OpenAiEndpoint(model="m", breaker_failures=3, breaker_seconds=10.0, breaker_probes=2)


@given(st.integers(30, 6000), st.lists(st.tuples(st.floats(0, 5), st.integers(1, 40)), max_size=60))
def test_no_window_exceeds_the_rate_by_more_than_a_second_and_one_call(per_minute, calls):
    limit = RateLimit(per_minute)
    now, sent = 0.0, []
    for pause, amount in calls:
        now += pause
        sent.append((now + limit.reserve(now, amount), amount))
    for first in range(len(sent)):
        total = 0
        for at, amount in sent[first:]:
            total += amount
            assert total <= (at - sent[first][0] + 1) * per_minute / 60 + amount + 1e-6


def test_no_rate_is_no_wait_and_a_correction_is_waited_for():
    free, slow = RateLimit(0), RateLimit(60)
    assert all(free.reserve(0.0, 1000) == 0 for _ in range(100))
    assert slow.reserve(0.0, 1) == 0
    slow.correct(5)
    assert slow.reserve(0.0, 1) == pytest.approx(5)


def test_a_success_forgets_failures():
    breaker = Breaker(CONFIG)
    for _ in range(10):
        breaker.failed(0.0, is_probe=False)
        breaker.failed(0.0, is_probe=False)
        breaker.succeeded()
    assert breaker.enter(0.0) == (0.0, False) and breaker.num_openings == 0


def test_an_open_circuit_lets_one_probe_through_and_doubles_its_time():
    breaker = Breaker(CONFIG)
    for _ in range(3):
        breaker.failed(0.0, is_probe=False)
    assert breaker.enter(5.0) == (1.0, False)
    assert breaker.enter(10.0) == (0.0, True)
    assert breaker.enter(10.0) == (0.1, False)
    breaker.failed(10.0, is_probe=False)  # of a call that was under way
    breaker.failed(11.0, is_probe=True)
    assert breaker.enter(30.9)[0] > 0
    assert breaker.enter(31.0) == (0.0, True)
    breaker.abandoned(is_probe=True)
    assert breaker.enter(31.0) == (0.0, True)
    breaker.succeeded()
    assert breaker.enter(31.0) == (0.0, False)


def test_probes_that_fail_in_a_row_give_the_endpoint_up():
    breaker = Breaker(CONFIG)
    for _ in range(3):
        breaker.failed(0.0, is_probe=False)
    for now in (10.0, 100.0):
        assert breaker.enter(now) == (0.0, True)
        breaker.failed(now, is_probe=True)
    with pytest.raises(CircuitOpen, match=r"api\.openai\.com"):
        breaker.enter(1000.0)


def test_a_call_waits_for_what_calls_under_way_give_back():
    budget = Budget(10.0)
    budget.reserve(8.0, lambda: False)
    threading.Timer(0.1, budget.settle, (8.0, 3.0)).start()
    started = time.monotonic()
    budget.reserve(6.0, lambda: False)
    assert time.monotonic() - started >= 0.05
    with pytest.raises(SpendingCapReached, match="10 is the cap, 3 is spent, the next call could cost 8"):
        budget.reserve(8.0, lambda: False)


def test_a_closed_endpoint_ends_the_wait_for_a_budget():
    budget = Budget(10.0, spent=1.0)
    budget.reserve(8.0, lambda: False)
    with pytest.raises(Closed):
        budget.reserve(8.0, lambda: True)


def test_without_a_cap_everything_fits():
    budget = Budget(0.0)
    budget.reserve(1e12, lambda: False)
    budget.settle(1e12, 5.0)
    assert budget.spent == 5
