"""Ours against what trl 1.12.0 computes, frozen in `trl-1.12.0.json`: values and gradients in float64, to 1e-10."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lco.advantage_config import LogprobAdvantage
from lco.advantages import generalized_advantages, z_scored
from lco.baselines import Cispo, Gkd, Grpo, Gspo, MiniLlm, PolicyGradientConfig, PpoCritic, Rloo
from lco.config import DpoConfig
from lco.critic import value_loss
from lco.distillation import later_log_ratios
from lco.dpo import dpo_loss
from lco.log_probs import action_log_probs
from lco.losses import LOSSES, sft, token_weights
from lco.policy_gradients import sequence_sums
from lco.rollout import Batch
from tests.lco.cases import token_batch
from tests.lco.parity import inputs

FROZEN: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("trl-1.12.0.json").read_text())
REDUCTIONS = {
    "grpo": "sequence-mean",
    "bnpo": "token-mean",
    "dapo": "token-mean",
    "cispo": "token-mean",
    "dr_grpo": "fixed-length",
    "luspo": "sequence-sum",
}
COUNTS = torch.tensor(inputs.NUM_TOKENS)
ACTIONS = torch.tensor(inputs.ACTIONS)
TEACHER = LogprobAdvantage(reward_model="teacher")


def batch() -> Batch:
    """The tokens as four sequences, the teacher's log-probabilities as dense advantages."""
    teacher_NV = inputs.logits(inputs.REFERENCE).log_softmax(-1)
    made = token_batch(
        inputs.logits(inputs.OLD), teacher_NV, ACTIONS, reference_logits_NV=inputs.logits(inputs.REFERENCE)
    )
    made.num_tokens_B = COUNTS
    made.advantages_N = inputs.advantages().repeat_interleave(COUNTS)
    return made


def reduced(logits_NV: Tensor, config: Any) -> Tensor:
    weights_N = token_weights(COUNTS, config.token_reduction, max_tokens=inputs.MAX_TOKENS)
    exact_N = (1 / (1 / weights_N.double()).round()).to(torch.float64)  # whole divisors, without float32's rounding
    return (LOSSES[type(config)](logits_NV, batch(), config) * exact_N).sum()


def policy_gradient(case: dict[str, Any]) -> PolicyGradientConfig:
    if case["loss_type"] == "cispo":
        return Cispo(ratio_cap=case["high"])
    return Grpo(
        clip_low=case["low"],
        clip_high=case["high"],
        kl_weight=case["beta"],
        is_kl_corrected=case["corrected"],
        ratio_level=case["level"],
        ratio_cap=case["delta"] or 0.0,
        token_reduction=REDUCTIONS[case["loss_type"]],
    )


def dpo(logits_NV: Tensor) -> Tensor:
    policy_B, reference_B = (
        sequence_sums(action_log_probs(each, ACTIONS), COUNTS) for each in (logits_NV, inputs.logits(inputs.REFERENCE))
    )
    config = DpoConfig(policy="p", pairs="d", beta_dpo=0.1)
    return dpo_loss(policy_B[:2], policy_B[2:], reference_B[:2], reference_B[2:], config)[0].mean()


def minillm_single_step(logits_NV: Tensor) -> Tensor:
    both = [
        reduced(logits_NV, MiniLlm(advantage=TEACHER, single_step=single_step, clip_low=0.2))
        for single_step in (True, False)
    ]
    return both[0] - both[1]


def minillm_advantages(logits_NV: Tensor, length_normalized: bool) -> Tensor:
    student_N, teacher_N = (action_log_probs(z, ACTIONS) for z in (logits_NV, inputs.logits(inputs.REFERENCE)))
    found_N = later_log_ratios(teacher_N - student_N, COUNTS, is_inclusive=True, length_normalized=length_normalized)
    return (inputs.coefficients() * found_N).sum()


def ppo_gae(logits_NV: Tensor, discount: float, gae_lambda: float) -> Tensor:
    rewards_N, values_N = logits_NV[:, 0], logits_NV[:, 1]
    advantages_N = generalized_advantages(
        rewards_N, values_N, torch.zeros(len(COUNTS), dtype=torch.float64), COUNTS, discount, gae_lambda
    )
    return (inputs.coefficients() * (advantages_N + 2 * (advantages_N + values_N))).sum()


def ppo_loss(logits_NV: Tensor) -> Tensor:
    old_NV, other_NV = inputs.logits(inputs.OLD), inputs.logits(inputs.REFERENCE)
    made = batch()
    made.advantages_N = other_NV[:, 0]
    policy_N = LOSSES[PpoCritic](logits_NV, made, PpoCritic())
    critic_N = value_loss(logits_NV[:, 1], old_NV[:, 1], other_NV[:, 1], inputs.VALUE_CLIP)
    return (policy_N + inputs.VALUE_WEIGHT * critic_N).mean()


OURS = {name: lambda z, case=case: reduced(z, policy_gradient(case)) for name, case in inputs.GRPO_CASES.items()}
OURS |= {f"gkd/{b}": lambda z, b=b: reduced(z, Gkd(advantage=TEACHER, jsd_beta=b)) for b in inputs.GKD_BETAS}
OURS |= {name: lambda z, case=case: ppo_gae(z, *case) for name, case in inputs.GAE_CASES.items()}
OURS |= {
    "ppo/whiten": lambda z: (inputs.coefficients() * z_scored(inputs.WHITEN_SCALE * z[:, 0])).sum(),
    "ppo/loss": ppo_loss,
    "minillm/advantage/mean": lambda z: minillm_advantages(z, True),
    "minillm/advantage/sum": lambda z: minillm_advantages(z, False),
    "gspo": lambda z: reduced(z, Gspo()),
    "rloo": lambda z: reduced(z, Rloo(clip_high=0.28)),
    "dpo": dpo,
    "sft": lambda z: sft(z, ACTIONS).mean(),
    "minillm/single-step": minillm_single_step,
}


def test_every_frozen_case_is_compared():
    assert OURS.keys() == FROZEN.keys()


@pytest.mark.parametrize("name", OURS)
def test_loss_and_gradient_are_those_of_trl(name):
    logits_NV = inputs.logits(inputs.LOGITS).requires_grad_(True)
    loss = OURS[name](logits_NV)
    (gradient_NV,) = torch.autograd.grad(loss, logits_NV)
    assert loss.item() == pytest.approx(FROZEN[name]["loss"], rel=1e-10, abs=1e-10)
    expected_NV = torch.tensor(FROZEN[name]["gradient"], dtype=torch.float64).view_as(gradient_NV)
    assert expected_NV.any()
    torch.testing.assert_close(gradient_NV, expected_NV, rtol=1e-10, atol=1e-10)


def test_the_inputs_reach_both_sides_of_the_clip_and_both_caps():
    """A case whose ratios were all inside the range would compare nothing but REINFORCE."""
    old, now = (action_log_probs(inputs.logits(name), ACTIONS) for name in (inputs.OLD, inputs.LOGITS))
    ratio, advantages = (now - old).exp(), batch().advantages_N
    for is_outside in (ratio < 0.8, ratio > 1.28, ratio > 1.5, (ratio > 0.8) & (ratio < 1.28)):
        assert is_outside.any()
    assert ((ratio > 1.5) & (advantages < 0)).any()
