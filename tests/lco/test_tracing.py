"""Spans of a run's process: bounded in number, and no trouble where nobody takes them."""

import time
from pathlib import Path

import pytest

from lco import tracing
from lco.stage import Stage
from lco.tracing import StageTrace, open_trace

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_nothing_is_traced_unless_both_trace_and_endpoint_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRACEPARENT", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert open_trace() is None
    monkeypatch.setenv("TRACEPARENT", "00-xyz")
    assert open_trace() is None
    monkeypatch.setenv("TRACEPARENT", TRACEPARENT)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    assert open_trace() is None


def test_a_collector_that_is_away_costs_a_run_little(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACEPARENT", TRACEPARENT)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    stage = Stage(tmp_path, [])
    began = time.monotonic()
    for step in range(1, 1001):
        stage.metrics(step, {"train/loss": 1.0})
    assert time.monotonic() - began < 2
    stage.close()
    assert time.monotonic() - began < 8
    assert not capfd.readouterr().err


def test_steps_share_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    ended = []
    monkeypatch.setattr(tracing.StageTrace, "_end_group", lambda self: ended.append(self._first_step))
    trace = StageTrace(1, 1, 0)
    trace._is_first_group = False
    for step in range(1, 100):
        trace.step(step, {})
    assert ended == []
    trace._began -= int(tracing.GROUP_SECONDS * 2e9)
    trace.step(100, {})
    assert ended == [1]
    trace.close()
