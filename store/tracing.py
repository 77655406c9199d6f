"""Traces: one from a request through the wait in the queue to a run's process, exported by OTLP over HTTP.

Nothing is traced unless OpenTelemetry's standard variables name an endpoint and its SDK is installed (the extra
`otel`). What carries a trace from process to process is the W3C `traceparent`: in a column of the run, then in the
environment of its process.
"""

import importlib.util
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

TRACEPARENT = re.compile(r"00-(?P<trace_id>[0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROPAGATOR = TraceContextTextMapPropagator()

logger = logging.getLogger(__name__)


def endpoint_of(environment: Mapping[str, str]) -> str:
    """Where traces go; empty where they are switched off."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return ""
    return next((environment[name] for name in _ENDPOINTS if environment.get(name)), "")


def is_available() -> bool:
    """Whether the SDK and the exporter are installed."""
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


def start(service: str) -> None:
    """Begins to record and export this process's spans, where that is wanted and possible; once a process.

    Args:
        service: name of the process's part, where OTEL_SERVICE_NAME names none.
    """
    if not endpoint_of(os.environ):
        return
    if not is_available():
        logger.warning("nothing is traced without OpenTelemetry's SDK: pip install 'lco-platform[otel]'")
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
    provider = TracerProvider(resource=Resource.create(named))  # ends, and exports what is left, with the process
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@contextmanager
def span(name: str, parent: str | None = None, **attributes: Any) -> Iterator[trace.Span]:
    """A span around a block: a child of `parent` (a traceparent), else of the current one."""
    tracer = trace.get_tracer("lco")
    with tracer.start_as_current_span(name, _context(parent), attributes=_plain(attributes)) as found:
        yield found


def past(name: str, parent: str | None, seconds: float, **attributes: Any) -> None:
    """A span of what ended just now, such as the wait in the queue."""
    now = time.time_ns()
    tracer = trace.get_tracer("lco")
    found = tracer.start_span(
        name, _context(parent), attributes=_plain(attributes), start_time=now - int(seconds * 1e9)
    )
    found.end(now)


def _context(parent: str | None) -> Context | None:
    return None if parent is None else _PROPAGATOR.extract({"traceparent": parent})


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {f"lco.{name}": value for name, value in attributes.items() if value is not None}


def current_traceparent() -> str | None:
    """The current span as a traceparent; None outside of one, and where nothing is traced."""
    if not trace.get_current_span().is_recording():
        return None
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")


def valid_traceparent(text: str | None) -> str | None:
    """A traceparent that somebody sent, where it is one."""
    return text if text is not None and TRACEPARENT.fullmatch(text) else None


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace's id, as a log shows it."""
    match = TRACEPARENT.fullmatch(traceparent or "")
    return match["trace_id"] if match else None
