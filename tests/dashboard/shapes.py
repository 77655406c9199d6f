"""Shapes of believable curves: what the methods of the showcase come to, and how they get there."""

import math
import random
from collections.abc import Callable

METHODS: dict[str, tuple[float, float]] = {
    "lco-kld": (0.79, 0.010),
    "lco-lch": (0.77, 0.014),
    "lco-mse": (0.76, 0.015),
    "ppo": (0.70, 0.030),
    "grpo": (0.73, 0.024),
}
"""Method -> Pass@1 that it comes to, and its spread over seeds."""


def shapes_of(method: str, kind: str, draws: random.Random, seed: int) -> dict[str, Callable[[int], float]]:
    """Metric -> its value at a step: a trend, and noise that is the same whenever it is asked for."""
    goal = METHODS.get(method, (0.8, 0.01))[0]
    wobble = 2.5 if method in ("ppo", "grpo") else 1.0
    salt = draws.randrange(1 << 30)

    def noise(step: int, number: int) -> float:
        return random.Random(salt * 1009 + step * 31 + number).gauss(0, wobble)

    def rising(step: int) -> float:
        return 0.34 + (goal - 0.34) * (1 - math.exp(-step / 70))

    if kind != "train":
        return {
            "train/loss": lambda step: 2.3 * math.exp(-step / 120) + 0.12 + 0.01 * abs(noise(step, 0)),
            "train/accuracy": lambda step: min(max(1 - 0.9 * math.exp(-step / 90) + 0.01 * noise(step, 1), 0), 1),
            "train/grad_norm": lambda step: 1.1 * math.exp(-step / 150) + 0.25 + 0.03 * abs(noise(step, 2)),
            "train/learning_rate": lambda step: 3e-4 * min(step / 40, 1),
        }
    shapes = {
        "train/loss": lambda step: 0.42 * math.exp(-step / 60) + 0.05 + 0.006 * noise(step, 0) + 0.002 * seed,
        "train/reward": lambda step: min(max(rising(step) + 0.018 * noise(step, 1), 0), 1),
        "train/accuracy": lambda step: min(max(rising(step) + 0.015 * noise(step, 2), 0), 1),
        "train/grad_norm": lambda step: 0.5 * math.exp(-step / 80) + 0.22 + 0.02 * abs(noise(step, 3)) * wobble,
        "train/grad_norm_qkv": lambda step: 0.11 * math.exp(-step / 80) + 0.05 + 0.006 * abs(noise(step, 4)) * wobble,
        "train/entropy": lambda step: 0.62 * math.exp(-step * wobble / 260) + 0.07 + 0.006 * noise(step, 5),
        "train/action_prob": lambda step: min(0.74 + 0.18 * (1 - math.exp(-step / 120)) + 0.004 * noise(step, 6), 1),
        "train/kl_old": lambda step: max(0.004 + 0.001 * noise(step, 7), 0),
        "train/kl_reference": lambda step: 0.21 * (1 - math.exp(-step / 110)) + 0.006 * noise(step, 8),
        "train/completion_tokens": lambda step: 31 + 1.2 * noise(step, 9),
        "train/learning_rate": lambda step: 3e-4 * min(step / 20, 1),
        "time/step_seconds": lambda step: 1.9 + 0.05 * abs(noise(step, 10)),
    }
    if method.startswith("lco"):
        shapes |= {
            "train/kl_target": lambda step: 0.31 * math.exp(-step / 75) + 0.02 + 0.002 * abs(noise(step, 11)),
            "train/tv_target": lambda step: 0.2 * math.exp(-step / 75) + 0.03 + 0.002 * abs(noise(step, 12)),
            "train/target_entropy": lambda step: 0.5 * math.exp(-step / 200) + 0.1 + 0.004 * noise(step, 13),
        }
    else:
        shapes["train/clip_fraction"] = lambda step: max(0.06 + 0.012 * noise(step, 14), 0)
    return shapes
