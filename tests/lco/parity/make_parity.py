"""Writes `trl-1.12.0.json`: what TRL's losses and gradients are on the inputs of `inputs.py`. Run by `make parity`.

No model and no trainer: TRL's own functions are called with a stand-in `self` (values and gradients in float64). Needs
trl==1.12.0 and `requests`, which it uses without declaring it; never imports the project's own losses.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import trl
from torch import Tensor
from trl.experimental.gkd.gkd_trainer import GKDTrainer
from trl.experimental.minillm import MiniLLMTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

from tests.lco.parity import inputs

VERSION = "1.12.0"
MASK = torch.tensor([[t < count for t in range(max(inputs.NUM_TOKENS))] for count in inputs.NUM_TOKENS])
ACTIONS = torch.tensor(inputs.ACTIONS)


class Alone:
    """An accelerator of one process."""

    num_processes = 1
    sync_gradients = True
    device = torch.device("cpu")

    def gather(self, value: Tensor) -> Tensor:
        return value

    gather_for_metrics = gather

    def reduce(self, value: Tensor, reduction: str = "sum") -> Tensor:
        return value


def log_probs(logits_NV: Tensor) -> Tensor:
    """Of the sampled tokens, padded with 0, `[B, T]`."""
    found_N = logits_NV.log_softmax(-1).gather(1, ACTIONS[:, None])[:, 0]
    return torch.zeros(MASK.shape, dtype=found_N.dtype).index_put((MASK.nonzero()[:, 0], MASK.nonzero()[:, 1]), found_N)


def padded(logits_NV: Tensor) -> Tensor:
    """`[B, T, V]`, 0 at padding."""
    rows, columns = MASK.nonzero().T
    return torch.zeros(*MASK.shape, inputs.V, dtype=logits_NV.dtype).index_put((rows, columns), logits_NV)


def stand_in(logits_NV: Tensor, case: dict[str, Any]) -> SimpleNamespace:
    found_BT = log_probs(logits_NV)
    return SimpleNamespace(
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        loss_type=case["loss_type"],
        importance_sampling_level=case["level"],
        beta=case["beta"],
        epsilon_low=case["low"],
        epsilon_high=case["high"],
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=inputs.MAX_TOKENS,
        _entropy_bonus_enabled=False,
        accelerator=Alone(),
        _metrics={"train": defaultdict(list)},
        args=SimpleNamespace(delta=case["delta"], use_bias_correction_kl=case["corrected"], steps_per_generation=1),
        _get_per_token_logps_and_entropies=lambda *a, **k: (found_BT, torch.zeros_like(found_BT), None),
    )


def rollout() -> dict[str, Tensor]:
    old_BT = log_probs(inputs.logits(inputs.OLD))
    return {
        "prompt_ids": torch.zeros(len(MASK), 1, dtype=torch.long),
        "prompt_mask": torch.ones(len(MASK), 1, dtype=torch.long),
        "completion_ids": torch.zeros(MASK.shape, dtype=torch.long),
        "completion_mask": MASK.long(),
        "advantages": inputs.advantages(),
        "old_per_token_logps": old_BT,
        "old_logps": old_BT.sum(1),
        "ref_per_token_logps": log_probs(inputs.logits(inputs.REFERENCE)),
        "num_items_in_batch": torch.tensor(float(inputs.N)),
    }


def grpo(logits_NV: Tensor, case: dict[str, Any]) -> Tensor:
    return GRPOTrainer._compute_loss(stand_in(logits_NV, case), None, rollout())


def rloo(logits_NV: Tensor) -> Tensor:
    return RLOOTrainer._compute_loss(stand_in(logits_NV, inputs.GRPO_CASES["grpo/delta"]), None, rollout())


def dpo(logits_NV: Tensor) -> Tensor:
    """The first two completions are chosen, the last two rejected; each follows a prompt of one token."""
    first_B1V = torch.zeros(len(MASK), 1, inputs.V, dtype=torch.float64)
    logits_BTV = torch.cat([padded(logits_NV), first_B1V], 1)
    ids_BT = torch.zeros(len(MASK), MASK.shape[1] + 1, dtype=torch.long)
    ids_BT[:, 1:][MASK] = ACTIONS
    mask_BT = torch.cat([torch.zeros(len(MASK), 1, dtype=torch.long), MASK.long()], 1)
    reference_B = log_probs(inputs.logits(inputs.REFERENCE)).sum(1)
    trainer = SimpleNamespace(
        accelerator=Alone(),
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=["sigmoid"],
        loss_weights=[1.0],
        beta=0.1,
        label_smoothing=0.0,
        use_weighting=False,
        _total_train_tokens=0,
        _metrics={"train": defaultdict(list)},
    )
    batch = {
        "input_ids": ids_BT,
        "attention_mask": torch.ones_like(ids_BT),
        "completion_mask": mask_BT,
        "ref_chosen_logps": reference_B[:2],
        "ref_rejected_logps": reference_B[2:],
    }
    return DPOTrainer._compute_loss(trainer, lambda **_: SimpleNamespace(logits=logits_BTV), batch, False)


def gkd(logits_NV: Tensor, beta: float) -> Tensor:
    labels_BT = torch.where(MASK, 0, -100)
    teacher_BTV = padded(inputs.logits(inputs.REFERENCE))
    return GKDTrainer.generalized_jsd_loss(padded(logits_NV), teacher_BTV, labels_BT, beta=beta)


def minillm_single_step(logits_NV: Tensor) -> Tensor:
    teacher_NV = inputs.logits(inputs.REFERENCE).log_softmax(-1)
    return MiniLLMTrainer._single_step_decomposition_loss(None, logits_NV.log_softmax(-1), teacher_NV)


def sft(logits_NV: Tensor) -> Tensor:
    """Next-token cross-entropy over labels that are not -100, as `loss_type="nll"` has transformers compute it."""
    from transformers.loss.loss_utils import fixed_cross_entropy

    return fixed_cross_entropy(logits_NV, ACTIONS, num_items_in_batch=torch.tensor(inputs.N))


def main(path: Path) -> None:
    assert trl.__version__ == VERSION, trl.__version__
    cases = {name: lambda z, case=case: grpo(z, case) for name, case in inputs.GRPO_CASES.items()}
    cases |= {f"gkd/{beta}": lambda z, beta=beta: gkd(z, beta) for beta in inputs.GKD_BETAS}
    cases |= {"rloo": rloo, "dpo": dpo, "sft": sft, "minillm/single-step": minillm_single_step}
    found = {}
    for name, function in cases.items():
        logits_NV = inputs.logits(inputs.LOGITS).requires_grad_(True)
        loss = function(logits_NV)
        (gradient_NV,) = torch.autograd.grad(loss, logits_NV)
        found[name] = {"loss": loss.item(), "gradient": gradient_NV.flatten().tolist()}
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in found.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
