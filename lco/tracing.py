"""Spans of a run's process: the whole stage, and its steps in groups. No torch.

Only where the supervisor handed on a trace (`TRACEPARENT`), OpenTelemetry's variables name an endpoint, and its SDK is
installed. Spans are exported on a thread of their own; a collector that is away costs a run nothing but two seconds at
its end.
"""

import logging
import os
import re
import time
from collections.abc import Mapping
from typing import Any

GROUP_SECONDS = 5.0
"""Steps that follow each other within this time share a span: a run of any length has a bounded number of them."""
_EXPORT_SECONDS = 2.0
_SHOWN = ("train/loss", "train/reward", "train/num_tokens")
_TRACEPARENT = re.compile(r"00-(?P<trace_id>[0-9a-f]{32})-(?P<span_id>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})")


def open_trace() -> "StageTrace | None":
    """The spans of this process; None where nothing is traced."""
    match = _TRACEPARENT.fullmatch(os.environ.get("TRACEPARENT", ""))
    if match is None or not (
        os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    ):
        return None
    try:
        return StageTrace(int(match["trace_id"], 16), int(match["span_id"], 16), int(match["flags"], 16))
    except Exception as error:  # tracing is no reason for a run to fail
        logging.getLogger(__name__).warning("nothing is traced: %s", error)
        return None


class StageTrace:
    """A span of the stage, and children of it for groups of steps."""

    def __init__(self, trace_id: int, parent_id: int, flags: int) -> None:
        """Begins the stage's span as a child of the attempt's."""
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # the log is the run's
        self._provider = TracerProvider(resource=Resource.create(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=_EXPORT_SECONDS)))
        tracer = self._provider.get_tracer("lco")
        context = trace.SpanContext(trace_id, parent_id, is_remote=True, trace_flags=trace.TraceFlags(flags))
        parent = trace.set_span_in_context(trace.NonRecordingSpan(context))
        self._stage = tracer.start_span("lco.stage", parent)
        self._inside = trace.set_span_in_context(self._stage)
        self._tracer = tracer
        self._first_step: int | None = None
        self._last: tuple[int, Mapping[str, Any]] = (0, {})
        self._began = time.time_ns()
        self._is_first_group = True

    def step(self, step: int, values: Mapping[str, Any]) -> None:
        """A step ended now."""
        if self._first_step is None:
            self._first_step = step
        self._last = (step, values)
        # The first step is shown at once: it says that training began.
        if self._is_first_group or time.time_ns() - self._began > GROUP_SECONDS * 1e9:
            self._end_group()

    def _end_group(self) -> None:
        if self._first_step is None:
            return
        last_step, values = self._last
        shown = {name: values[name] for name in _SHOWN if values.get(name) is not None}
        attributes = {"lco.first_step": self._first_step, "lco.last_step": last_step, **shown}
        span = self._tracer.start_span("lco.steps", self._inside, attributes=attributes, start_time=self._began)
        now = time.time_ns()
        span.end(now)
        self._began, self._first_step, self._is_first_group = now, None, False

    def close(self) -> None:
        """Ends what is open, and exports what is left in at most two seconds."""
        self._end_group()
        self._stage.end()
        self._provider.force_flush(int(_EXPORT_SECONDS * 1000))
        self._provider.shutdown()
