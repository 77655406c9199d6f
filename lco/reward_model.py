"""A DPO reward model on disk and in memory: the tuned policy, its reference, and the beta it was tuned with."""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from lco.adapters import ADAPTER
from lco.config import StageConfig
from lco.distributed import rank
from lco.policy import Policy, load_frozen

REWARD_MODEL = "reward_model.json"
REFERENCE = "reference"


@dataclass(slots=True)
class RewardModel:
    """A DPO reward model: the tuned policy, its reference, and the beta it was tuned with."""

    policy: Policy
    reference: Policy
    beta_dpo: float


def save_reward_model(policy: Policy, reference_directory: Path, beta_dpo: float, directory: Path) -> None:
    """Writes pi_dpo with its reference in `reference/` and its beta in `reward_model.json`.

    Args:
        reference_directory: where the reference was loaded from. It is copied, unless training saw it through 4 bits.
    """
    policy.save(directory)
    if policy.is_quantized:
        policy.base.save(directory / REFERENCE)
    if rank() > 0:
        return
    if not policy.is_quantized:
        shutil.copytree(
            reference_directory,
            directory / REFERENCE,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns(REFERENCE, REWARD_MODEL, ADAPTER, "manifest.json"),
        )
    (directory / REWARD_MODEL).write_text(json.dumps({"beta_dpo": beta_dpo, "reference": REFERENCE}))


def load_reward_model(directory: Path, config: StageConfig) -> RewardModel:
    """The reward model in a directory that `lco.dpo` wrote.

    Raises:
        ValueError: its manifest or reference is missing.
    """
    try:
        manifest = json.loads((directory / REWARD_MODEL).read_bytes())
        beta_dpo = float(manifest["beta_dpo"])
        if not 0 < beta_dpo < math.inf:
            raise ValueError(f"beta_dpo is {beta_dpo}")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{directory}: no DPO reward model here ({REWARD_MODEL}: {error})") from error
    return RewardModel(load_frozen(directory, config), load_frozen(directory / REFERENCE, config), beta_dpo)
