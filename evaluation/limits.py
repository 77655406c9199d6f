"""What holds calls to an endpoint back: rates, a circuit breaker, a budget. No HTTP here, and time is handed in."""

import threading
from collections.abc import Callable

from lco.endpoint_config import EndpointConfig


class EndpointFailure(Exception):
    """One call failed after its bounded retries: our side's fault, so what it should have graded has no value."""

    def __init__(self, reason: str, host: str) -> None:
        self.reason = reason
        """Category, never text of the server: `timeout`, `connection`, `http_500`, `rate_limited`, `garbage`, ..."""
        super().__init__(f"{host}: {reason}")


class EndpointRejected(ValueError):
    """The endpoint refuses every call: a wrong key, model or address, or no credit. Trying again cannot help."""


class SpendingCapReached(ValueError):
    """The next call could cost more than what is left of `spending_cap`."""


class CircuitOpen(Exception):
    """The endpoint has been down for so long that it was given up. What was answered is kept; the run can resume."""


class Closed(Exception):
    """The endpoint was closed while a call waited."""


class RateLimit:
    """A rate that no window exceeds by more than a second's worth and one call (GCRA, as in ATM and Redis-cell)."""

    def __init__(self, per_minute: int) -> None:
        """Args: per_minute: 0 for no limit."""
        self._seconds_each = 60.0 / per_minute if per_minute else 0.0
        self._free_at = float("-inf")

    def reserve(self, now: float, amount: float) -> float:
        """Takes a place in the line; returns the seconds to wait before it may be used."""
        starts = max(self._free_at, now - 1.0)
        self._free_at = starts + amount * self._seconds_each
        return max(0.0, starts - now) if self._seconds_each else 0.0

    def correct(self, amount: float) -> None:
        """Adds what a call used beyond its reservation; negative where it used less."""
        self._free_at += amount * self._seconds_each


class Breaker:
    """Opens after failures in a row, then lets single probes through until one succeeds, or gives up."""

    def __init__(self, config: EndpointConfig) -> None:
        self._config = config
        self._failures = 0
        self._failed_probes = 0
        self._probe_at: float | None = None
        self._is_probing = False
        self.num_openings = 0
        """How often it opened."""

    def enter(self, now: float) -> tuple[float, bool]:
        """Whether a call may go: the seconds to wait (0: now), and whether it is the probe of an open circuit.

        Raises:
            CircuitOpen: the endpoint was given up.
        """
        if self._failed_probes >= self._config.breaker_probes:
            raise CircuitOpen(
                f"{self._config.origin} answered none of {self._failures} tries and {self._failed_probes} probes in a "
                "row; what was answered before is kept and not asked again when the run resumes"
            )
        if self._probe_at is None:
            return 0.0, False
        if self._is_probing:
            return 0.1, False
        if now < self._probe_at:
            return min(self._probe_at - now, 1.0), False
        self._is_probing = True
        return 0.0, True

    def succeeded(self) -> None:
        """The server answered, be it with a refusal: the circuit closes."""
        self._failures = self._failed_probes = 0
        self._probe_at, self._is_probing = None, False

    def failed(self, now: float, is_probe: bool) -> None:
        """No usable answer came. Failures of calls that were under way when the circuit opened change nothing."""
        if is_probe:
            self._is_probing = False
            self._failed_probes += 1
            self._probe_at = now + self._config.breaker_seconds * 2**self._failed_probes
        elif self._probe_at is None:
            self._failures += 1
            if self._failures >= self._config.breaker_failures:
                self.num_openings += 1
                self._probe_at = now + self._config.breaker_seconds

    def abandoned(self, is_probe: bool) -> None:
        """A call ended without telling anything about the server."""
        if is_probe:
            self._is_probing = False


class Budget:
    """What was spent, what calls under way may still spend, and the cap on the sum. Thread-safe."""

    def __init__(self, cap: float, spent: float = 0.0) -> None:
        """Args: cap: 0 for none."""
        self.cap = cap
        self.spent = spent
        """Price of what was answered, and the highest price of tries whose answer was lost."""
        self._reserved = 0.0
        self._changed = threading.Condition()

    def check(self, amount: float, what: str) -> None:
        """Raises: SpendingCapReached: so much more is beyond the cap."""
        if self.cap and self.spent + amount > self.cap:
            raise SpendingCapReached(
                f"spending_cap: {self.cap:g} is the cap, {self.spent:.4g} is spent, {what} could cost {amount:.4g}"
            )

    def reserve(self, amount: float, is_closed: Callable[[], bool]) -> None:
        """Sets the highest price of a call aside; waits while only calls under way stand against it.

        Raises:
            SpendingCapReached: it does not fit into what is left.
            Closed: `is_closed()` became true meanwhile.
        """
        with self._changed:
            while True:
                if is_closed():
                    raise Closed
                self.check(amount, "the next call")
                if not self.cap or self.spent + self._reserved + amount <= self.cap:
                    self._reserved += amount
                    return
                self._changed.wait(0.2)

    def settle(self, reserved: float, price: float) -> None:
        """A reserved call is over and cost this much."""
        with self._changed:
            self._reserved -= reserved
            self.spent += price
            self._changed.notify_all()
