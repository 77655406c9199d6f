"""The collapse watch: is this run still learning, or has its policy broken? No torch.

Four signals, each judged on its own (`docs/diagnostics.md` has the reasons):

- **entropy** below `entropy_low` or above `entropy_high` times its baseline, while the reward is no better than at the
  start: a policy that sharpens as it learns is healthy;
- **kl**: `train/kl_old` (or `train/kl_old_k3`) above `kl_limit` nats per token: single iterations tear the policy away;
- **grad_norm** above `grad_norm_factor` times its baseline, or not finite;
- **reward**: its mean over the last `window` iterations (half as many at first) more than `reward_drop` standard
  deviations of the completions' rewards below the best such mean so far.

A baseline is the median of a signal's first `window` values. A signal raises an alarm when `patience` values in a row
are beyond its limits, once; it can raise the next after `window` values in a row inside them.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from lco.config import Config, Fraction
from lco.manifest import newest_checkpoint
from lco.stage import Collapsed, Paused, Stage

_LARGEST = 1e300  # stands for infinity in a JSON state


class WatchConfig(Config):
    """The collapse watch: a detector on entropy, KL, gradient norm and reward. A limit of 0 switches its signal off."""

    action: Literal["off", "warn", "pause", "stop"] = "warn"
    """What an alarm does: nothing is watched; an event; the run pauses at a checkpoint and can be resumed; it ends as
    failed. `pause` and `stop` keep the last checkpoint from before the suspicion."""
    window: Annotated[int, Field(ge=2)] = 10
    """Values of a signal that make its baseline, and iterations in the moving mean of the reward."""
    patience: PositiveInt = 5
    """Values in a row beyond a limit that raise an alarm."""
    entropy_low: Fraction = 0.1
    """Smallest entropy, as a multiple of its baseline, while the reward is no better than at the start."""
    entropy_high: NonNegativeFloat = 2.0
    """Largest entropy, as a multiple of its baseline, while the reward is no better than at the start."""
    kl_limit: NonNegativeFloat = 1.0
    """Largest KL(pi_theta || pi_old), nats per token."""
    grad_norm_factor: NonNegativeFloat = 20.0
    """Largest gradient norm before clipping, as a multiple of its baseline."""
    reward_drop: NonNegativeFloat = 0.5
    """Largest fall of the mean reward below its best, in standard deviations of the completions' rewards."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A signal stayed beyond its limits."""

    signal: str
    step: int
    since_step: int
    """First step of the values in a row that raised it."""
    message: str


@dataclass(slots=True)
class _Signal:
    """What is kept of one signal; JSON as it stands."""

    first: list[float] = field(default_factory=list)
    """The values that make the baseline, at most `window`."""
    num_beyond: int = 0
    """Values in a row beyond the limits."""
    since_step: int = 0
    """Step of the first of them."""
    is_raised: bool = False
    """It has raised its alarm and has not been inside its limits for long enough since."""
    num_inside: int = 0
    """Values in a row inside the limits since then."""

    def baseline(self, window: int) -> float | None:
        """Median of the first values; None while there are too few."""
        return statistics.median(self.first) if len(self.first) >= window else None


class Watch:
    """Looks at every step's metrics. Its state is JSON, and a resumed run sees what the uninterrupted one would."""

    def __init__(self, config: WatchConfig, state: Mapping[str, Any] | None = None) -> None:
        """A new watch, or one that goes on from `state()`."""
        self.config = config
        state = state or {}
        self._signals = {
            name: _Signal(**state.get("signals", {}).get(name, {})) for name in ("entropy", "kl", "grad_norm", "reward")
        }
        self._rewards: list[float] = list(state.get("rewards", []))
        self._reward_spread: float = state.get("reward_spread", 0.0)
        self._reward_start: float | None = state.get("reward_start")
        self._reward_best: float | None = state.get("reward_best")
        self._is_reward_low: bool = state.get("is_reward_low", False)

    def state(self) -> dict[str, Any]:
        """Everything that decides about later alarms, as JSON."""
        return {
            "signals": {name: asdict(signal) for name, signal in self._signals.items()},
            "rewards": self._rewards,
            "reward_spread": self._reward_spread,
            "reward_start": self._reward_start,
            "reward_best": self._reward_best,
            "is_reward_low": self._is_reward_low,
        }

    @property
    def holds_checkpoints(self) -> bool:
        """Whether a checkpoint now might be one of a collapsed policy, and an alarm would want one from before it."""
        return self.config.action in ("pause", "stop") and self.is_suspicious

    @property
    def is_suspicious(self) -> bool:
        """Some signal is beyond its limits now, or one iteration's reward is, of which the mean will know later."""
        is_low = self._is_reward_low and not self._signals["reward"].is_raised
        return is_low or any(signal.num_beyond and not signal.is_raised for signal in self._signals.values())

    def observe(self, step: int, metrics: Mapping[str, float]) -> list[Alarm]:
        """Takes in the metrics of one step; the alarms that they raise."""
        if self.config.action == "off":
            return []
        alarms = [
            self._judge("reward", step, *self._reward(metrics)),
            self._judge("entropy", step, *self._entropy(metrics)),
            self._judge("kl", step, *self._kl(metrics)),
            self._judge("grad_norm", step, *self._grad_norm(metrics)),
        ]
        return [alarm for alarm in alarms if alarm is not None]

    def _judge(self, name: str, step: int, is_beyond: bool | None, message: str) -> Alarm | None:
        """Counts one value of a signal; None for `is_beyond` when this step has none."""
        signal = self._signals[name]
        if is_beyond is None:
            return None
        if not is_beyond:
            signal.num_beyond = 0
            signal.num_inside += 1
            if signal.num_inside >= self.config.window:
                signal.is_raised = False
            return None
        if signal.num_beyond == 0:
            signal.since_step = step
        signal.num_beyond += 1
        signal.num_inside = 0
        if signal.is_raised or signal.num_beyond < self.config.patience:
            return None
        signal.is_raised = True
        return Alarm(name, step, signal.since_step, message)

    def _baseline(self, name: str, value: float) -> float | None:
        """The signal's baseline, once it has one; until then the value becomes part of it."""
        signal = self._signals[name]
        found = signal.baseline(self.config.window)
        if found is None:
            signal.first.append(value)
        return found

    def _reward(self, metrics: Mapping[str, float]) -> tuple[bool | None, str]:
        value = metrics.get("train/reward")
        if value is None:
            return None, ""
        self._reward_spread = max(self._reward_spread, metrics.get("train/reward_std", 0.0))
        self._rewards = [*self._rewards, value][-self.config.window :]
        if len(self._rewards) < (self.config.window + 1) // 2:
            return None, ""
        mean = self._reward_mean()
        if self._reward_start is None or self._reward_best is None:
            self._reward_start = self._reward_best = mean
        self._reward_best = max(self._reward_best, mean)
        limit = self.config.reward_drop * self._reward_spread
        drop = self._reward_best - mean
        self._is_reward_low = bool(self.config.reward_drop) and self._reward_best - value > limit
        message = f"the mean reward fell from {self._reward_best:.3g} to {mean:.3g}"
        return bool(self.config.reward_drop) and drop > limit, message

    def _reward_mean(self) -> float:
        return math.fsum(self._rewards) / len(self._rewards)

    def _is_improved(self) -> bool:
        """The mean reward is better than at the start by more than noise: by a quarter of the fall that alarms."""
        if self._reward_start is None:
            return False
        return self._reward_mean() - self._reward_start > self.config.reward_drop * self._reward_spread / 4

    def _entropy(self, metrics: Mapping[str, float]) -> tuple[bool | None, str]:
        value = metrics.get("train/entropy")
        if value is None:
            return None, ""
        baseline = self._baseline("entropy", value)
        if baseline is None:
            return None, ""
        is_low = value < self.config.entropy_low * baseline
        is_high = 0 < self.config.entropy_high * baseline < value
        message = f"the entropy went from {baseline:.3g} to {value:.3g} nats while the reward is no better"
        return (is_low or is_high) and not self._is_improved(), message

    def _kl(self, metrics: Mapping[str, float]) -> tuple[bool | None, str]:
        value = metrics.get("train/kl_old", metrics.get("train/kl_old_k3"))
        if value is None:
            return None, ""
        return 0 < self.config.kl_limit < value, f"KL to the behaviour policy is {value:.3g} nats per token"

    def _grad_norm(self, metrics: Mapping[str, float]) -> tuple[bool | None, str]:
        value = metrics.get("train/grad_norm")
        if value is None:
            return None, ""
        value = min(value, _LARGEST) if not math.isnan(value) else _LARGEST
        baseline = self._baseline("grad_norm", value)
        if baseline is None:
            return None, ""
        message = f"the gradient norm went from {baseline:.3g} to {value:.3g}"
        return 0 < self.config.grad_norm_factor * baseline < value, message


def respond(config: WatchConfig, alarms: Sequence[Alarm], stage: Stage, save: Callable[[], None]) -> None:
    """Does with alarms what the configuration says: tells them, and ends or pauses the stage.

    Args:
        save: writes a checkpoint of the step, without giving up the one from before the suspicion.

    Raises:
        Collapsed: `stop`.
        Paused: `pause`.
    """
    if not alarms:
        return
    texts = [f"{alarm.message} (since step {alarm.since_step})" for alarm in alarms]
    for text in texts:
        stage.event("warning", f"collapse watch: {text}")
    if config.action == "warn":
        return
    found = newest_checkpoint(stage.earlier)
    is_older = found is not None and found.step < min(alarm.since_step for alarm in alarms)
    good = f"step {found.step}" if found is not None and is_older else "the start"
    told = f"collapse watch at step {alarms[0].step}: {'; '.join(texts)}; last good checkpoint: {good}"
    if config.action == "stop":
        raise Collapsed(told)
    save()
    raise Paused(told)
