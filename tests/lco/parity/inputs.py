"""The made-up tokens that TRL's losses and ours are compared on, and the cases. Torch alone; float64, V = 5."""

from itertools import product
from typing import Any

import torch
from torch import Tensor

V = 5
NUM_TOKENS = [3, 1, 4, 2]
MAX_TOKENS = 6
ACTIONS = [0, 3, 1, 4, 4, 2, 0, 1, 3, 2]
N = len(ACTIONS)
LOGITS, OLD, REFERENCE = "logits", "old", "reference"
_SHIFTS = {LOGITS: 0.0, OLD: 0.6, REFERENCE: 0.9}


def logits(name: str) -> Tensor:
    """`[N, V]` of the policy, the behaviour policy or the reference (the teacher), from a formula and no generator."""
    steps = torch.arange(N * V, dtype=torch.float64).view(N, V)
    shift_NV = _SHIFTS[name] * torch.sin((3.7 if name == OLD else 5.1) * steps + 0.5)
    return 1.5 * torch.sin(2.3 * steps) + shift_NV


def advantages() -> Tensor:
    """One per completion."""
    return torch.tensor([1.1, -0.7, -1.3, 0.9], dtype=torch.float64)


def _grpo_cases() -> dict[str, dict[str, Any]]:
    cases = {}
    for loss_type, level, beta in product(
        ("grpo", "bnpo", "dapo", "dr_grpo", "luspo"), ("token", "sequence"), (0.0, 0.04)
    ):
        cases[f"grpo/{loss_type}/{level}/{beta}"] = {"loss_type": loss_type, "level": level, "beta": beta}
    for level in ("token", "sequence"):
        cases[f"grpo/corrected/{level}"] = {"level": level, "beta": 0.04, "corrected": True}
    cases["grpo/delta"] = {"delta": 1.5}
    for cap in (1.05, 5.0):
        cases[f"cispo/{cap}"] = {"loss_type": "cispo", "high": cap}
    cases["gspo"] = {"level": "sequence", "low": 3e-4, "high": 4e-4}
    common = {"loss_type": "grpo", "level": "token", "beta": 0.0, "corrected": False, "delta": None, "low": 0.2}
    return {name: common | {"high": 0.28} | case for name, case in cases.items()}


def coefficients() -> Tensor:
    """One per token: what a list of numbers is multiplied by to make one of it."""
    return torch.cos(1.3 * torch.arange(N, dtype=torch.float64) + 0.2)


GRPO_CASES = _grpo_cases()
GKD_BETAS = (0.0, 0.1, 0.5, 0.9, 1.0)
GAE_CASES = {"ppo/gae": (1.0, 0.95), "ppo/gae/discounted": (0.9, 0.8)}
WHITEN_SCALE = 1e3  # TRL adds 1e-8 to the variance: of numbers this large it is nothing
VALUE_CLIP, VALUE_WEIGHT = 0.2, 0.1
