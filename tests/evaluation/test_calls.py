"""Slow calls, several at a time."""

import threading
import time

import pytest

from evaluation.calls import answered


def test_every_item_is_answered_once_and_no_more_calls_run_than_allowed():
    lock, running, most = threading.Lock(), 0, 0

    def call(number):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return number * number

    assert sorted(answered(range(20), call, 3)) == [(number, number * number) for number in range(20)]
    assert most == 3


def test_answers_come_as_they_are_made():
    gate = threading.Event()

    def call(number):
        if number == 0:
            assert gate.wait(10)
        return number

    found = []
    for item, _ in answered(range(4), call, 2):
        found.append(item)
        if len(found) == 3:
            gate.set()
    assert found[-1] == 0


def test_items_are_taken_only_as_threads_get_free():
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    for count, _ in enumerate(answered(items(), lambda number: number, 2), start=1):
        if count == 5:
            break
    assert len(taken) <= 8


def test_what_a_call_raises_ends_the_answers():
    def call(number):
        if number == 3:
            raise ValueError("three")
        return number

    with pytest.raises(ValueError, match="three"):
        list(answered(range(100), call, 4))


def test_no_items_are_no_answers_and_no_thread():
    before = threading.active_count()
    assert list(answered([], str, 4)) == [] and threading.active_count() == before
