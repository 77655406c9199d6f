"""Prometheus text: request durations of this process, and the form of gauges that are read from SQL when scraped."""

import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds."""
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class RequestMetrics:
    """Histogram of request durations by method, route and status; also counts the open event streams."""

    def __init__(self) -> None:
        self.num_streams = 0
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str, str], list[int]] = {}
        self._seconds: dict[tuple[str, str, str], float] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts one request; paths without a route are one series, so that clients cannot add any."""
        key = (method if method in _METHODS else "other", route, str(status))
        with self._lock:
            counts = self._counts.setdefault(key, [0] * (len(BUCKETS) + 1))
            counts[bisect_left(BUCKETS, seconds)] += 1
            self._seconds[key] = self._seconds.get(key, 0.0) + seconds

    def lines(self) -> Iterable[str]:
        """The histogram in Prometheus' text format."""
        name = "http_request_duration_seconds"
        yield f"# HELP {name} Time to answer a request."
        yield f"# TYPE {name} histogram"
        with self._lock:
            snapshot = [(key, list(counts), self._seconds[key]) for key, counts in self._counts.items()]
        for (method, route, status), counts, seconds in snapshot:
            labels = {"method": method, "route": route, "status": status}
            total = 0
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                total += count
                yield sample(f"{name}_bucket", {**labels, "le": bound}, total)
            yield sample(f"{name}_sum", labels, seconds)
            yield sample(f"{name}_count", labels, total)
        yield from gauge("lco_sse_clients", "Open event streams of this process.", {(): self.num_streams}, ())


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def sample(name: str, labels: dict[str, str], value: float) -> str:
    """One line of Prometheus' text format."""
    shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{shown}}} {value!r}" if shown else f"{name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def gauge(
    name: str, description: str, values: dict[tuple[str, ...], float], labels: tuple[str, ...], kind: str = "gauge"
) -> Iterable[str]:
    """A metric with a value per combination of labels."""
    yield f"# HELP {name} {description}"
    yield f"# TYPE {name} {kind}"
    for key, value in values.items():
        yield sample(name, dict(zip(labels, key, strict=True)), value)


def histogram(
    name: str, description: str, bounds: Sequence[float], counts: Sequence[int], total_seconds: float
) -> Iterable[str]:
    """A metric without labels.

    Args:
        counts: how many values were at most each bound; all of them last.
    """
    yield f"# HELP {name} {description}"
    yield f"# TYPE {name} histogram"
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        yield sample(f"{name}_bucket", {"le": bound}, count)
    yield sample(f"{name}_sum", {}, total_seconds)
    yield sample(f"{name}_count", {}, counts[-1])
