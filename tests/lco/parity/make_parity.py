"""Writes `trl-1.12.0.json`: what TRL's losses and gradients are on the inputs of `inputs.py`. Run by `make parity`.

No model and no trainer: TRL's own functions are called with a stand-in `self` (values and gradients in float64). Its
PPO is one long method: the lines of it that compute advantages and losses are cut out and run as they stand. Beside it,
`trl-1.12.0-defaults.json` has the defaults of its configurations. Needs trl==1.12.0 and `requests`, which it uses
without declaring it; never imports the project's own losses.
"""

import dataclasses
import inspect
import json
import sys
import textwrap
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import trl
from torch import Tensor
from trl import DPOConfig, GRPOConfig, RLOOConfig, SFTConfig
from trl.experimental.gkd import GKDConfig
from trl.experimental.gkd.gkd_trainer import GKDTrainer
from trl.experimental.minillm import MiniLLMConfig, MiniLLMTrainer
from trl.experimental.ppo import PPOConfig
from trl.experimental.ppo.ppo_trainer import PPOTrainer, masked_mean, masked_whiten
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


def in_rows(values_N: Tensor) -> Tensor:
    """One value per token, padded with 0, `[B, T]`."""
    rows, columns = MASK.nonzero().T
    return torch.zeros(MASK.shape, dtype=values_N.dtype).index_put((rows, columns), values_N)


def log_probs(logits_NV: Tensor) -> Tensor:
    """Of the sampled tokens, padded with 0, `[B, T]`."""
    return in_rows(logits_NV.log_softmax(-1).gather(1, ACTIONS[:, None])[:, 0])


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


def minillm_advantages(logits_NV: Tensor, length_normalization: bool) -> Tensor:
    """With gamma 1, where TRL's discount by absolute position is none, and each sequence by itself: no padding."""
    stand_in = SimpleNamespace(gamma=1.0, length_normalization=length_normalization)
    student_BT, teacher_BT = log_probs(logits_NV), log_probs(inputs.logits(inputs.REFERENCE))
    rows = [
        MiniLLMTrainer._compute_advantage(stand_in, student_BT[b : b + 1, :count], teacher_BT[b : b + 1, :count])[0]
        for b, count in enumerate(inputs.NUM_TOKENS)
    ]
    return (inputs.coefficients() * torch.cat(rows)).sum()


def ppo_lines(first: str, last: str, names: dict[str, Any]) -> dict[str, Any]:
    """What the lines of TRL's PPO from the first to the last, each known by its beginning, make of some names."""
    lines = inspect.getsource(PPOTrainer.train).splitlines()
    begin = next(n for n, line in enumerate(lines) if line.strip().startswith(first))
    end = next(n for n, line in enumerate(lines) if n >= begin and line.strip().startswith(last))
    code = textwrap.dedent("\n".join(lines[begin : end + 1]))
    names = {"torch": torch, "masked_mean": masked_mean, "masked_whiten": masked_whiten} | names
    exec(code, names)
    return names


def ppo_gae(logits_NV: Tensor, gamma: float, lam: float) -> Tensor:
    """Advantages and returns of rewards in the first column of the logits and values in the second."""
    names = {
        "rewards": in_rows(logits_NV[:, 0]),
        "values": in_rows(logits_NV[:, 1]),
        "responses": MASK,
        "args": SimpleNamespace(gamma=gamma, lam=lam),
    }
    found = ppo_lines("lastgaelam = 0", "returns = advantages + values", names)
    both_N = found["advantages"][MASK] + 2 * found["returns"][MASK]
    return (inputs.coefficients() * both_N).sum()


def ppo_whiten(logits_NV: Tensor) -> Tensor:
    mask = MASK.double()  # of a bool mask TRL takes Bessel's n / (n - 1) in float32
    whitened_BT = masked_whiten(in_rows(inputs.WHITEN_SCALE * logits_NV[:, 0]), mask)
    return (inputs.coefficients() * whitened_BT[MASK]).sum()


def ppo_loss(logits_NV: Tensor) -> Tensor:
    """Of policy and critic; the values are the second column of the logits, returns and advantages those of others."""
    old_NV, other_NV = inputs.logits(inputs.OLD), inputs.logits(inputs.REFERENCE)
    names = {
        "args": SimpleNamespace(cliprange=0.2, cliprange_value=inputs.VALUE_CLIP, vf_coef=inputs.VALUE_WEIGHT),
        "vpred": in_rows(logits_NV[:, 1]),
        "mb_values": in_rows(old_NV[:, 1]),
        "mb_return": in_rows(other_NV[:, 1]),
        "mb_advantage": in_rows(other_NV[:, 0]),
        "new_logprobs": log_probs(logits_NV),
        "mb_logprobs": log_probs(old_NV),
        "micro_batch_inds": slice(None),
        "padding_mask": ~MASK,
        "padding_mask_p1": ~MASK,
    }
    return ppo_lines("vpredclipped = torch.clamp(", "loss = pg_loss", names)["loss"]


def defaults() -> dict[str, dict[str, Any]]:
    """Numbers, words and switches of TRL's configurations, by class."""
    configs = (SFTConfig, DPOConfig, RLOOConfig, PPOConfig, GRPOConfig, GKDConfig, MiniLLMConfig)
    return {
        config.__name__: {
            field.name: field.default
            for field in dataclasses.fields(config)
            if field.name in DEFAULTS and field.default is not dataclasses.MISSING
        }
        for config in configs
    }


DEFAULTS = frozenset(
    (
        *(
            "learning_rate",
            "lr_scheduler_type",
            "warmup_steps",
            "max_grad_norm",
            "weight_decay",
            "temperature",
            "top_p",
        ),
        *("num_generations", "max_completion_length", "max_new_tokens", "response_length", "num_iterations"),
        *("beta", "epsilon", "epsilon_high", "delta", "loss_type", "importance_sampling_level", "scale_rewards"),
        *("use_bias_correction_kl", "mask_truncated_completions", "normalize_advantages", "label_smoothing", "lmbda"),
        *("kl_coef", "cliprange", "cliprange_value", "vf_coef", "gamma", "lam", "num_ppo_epochs", "num_mini_batches"),
        *("single_step_decomposition", "length_normalization"),
    )
)


def sft(logits_NV: Tensor) -> Tensor:
    """Next-token cross-entropy over labels that are not -100, as `loss_type="nll"` has transformers compute it."""
    from transformers.loss.loss_utils import fixed_cross_entropy

    return fixed_cross_entropy(logits_NV, ACTIONS, num_items_in_batch=torch.tensor(inputs.N))


def main(path: Path) -> None:
    assert trl.__version__ == VERSION, trl.__version__
    cases = {name: lambda z, case=case: grpo(z, case) for name, case in inputs.GRPO_CASES.items()}
    cases |= {f"gkd/{beta}": lambda z, beta=beta: gkd(z, beta) for beta in inputs.GKD_BETAS}
    cases |= {name: lambda z, case=case: ppo_gae(z, *case) for name, case in inputs.GAE_CASES.items()}
    cases |= {"ppo/whiten": ppo_whiten, "ppo/loss": ppo_loss}
    cases |= {
        "minillm/advantage/mean": lambda z: minillm_advantages(z, True),
        "minillm/advantage/sum": lambda z: minillm_advantages(z, False),
    }
    cases |= {"rloo": rloo, "dpo": dpo, "sft": sft, "minillm/single-step": minillm_single_step}
    found = {}
    for name, function in cases.items():
        logits_NV = inputs.logits(inputs.LOGITS).requires_grad_(True)
        loss = function(logits_NV)
        (gradient_NV,) = torch.autograd.grad(loss, logits_NV)
        found[name] = {"loss": loss.item(), "gradient": gradient_NV.flatten().tolist()}
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in found.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    path.with_stem(f"{path.stem}-defaults").write_text(json.dumps(defaults(), indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
