"""Decoding from the optimal policy pi* (Eq. 6), without training: an evaluable policy made of three models."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lco.advantages import dense_dpo, reference_kl_advantages
from lco.config import OptimalPolicySource, StageConfig
from lco.decoding import CombinedPolicy
from lco.policy import Policy, check_same_tokenizer, load_policy
from lco.reward_model import load_reward_model
from lco.targets import optimal_logits


@dataclass(slots=True, kw_only=True)
class OptimalPolicy(CombinedPolicy):
    """Pi* of Eq. 6 at decode time: softmax(z + A / beta), A = beta_dpo log(pi_dpo / pi_ref) - the pull to pi_ref.

    Three forward passes per token: policy, DPO policy, its reference. With `reference_kl` 1 and beta = beta_dpo it is
    pi_dpo itself.
    """

    beta: float
    beta_dpo: float
    reference_kl: float

    def combined(self, logits: list[Tensor]) -> Tensor:
        """z + A / beta (Eq. 7) of the policy's, the DPO policy's and the reference's logits."""
        own, dpo, reference = logits
        advantages = dense_dpo(dpo, reference, self.beta_dpo)
        if self.reference_kl > 0:
            advantages = advantages + reference_kl_advantages(own, reference, self.reference_kl * self.beta_dpo)
        return optimal_logits(own, advantages, self.beta)


def load_decodable(source: str | OptimalPolicySource, config: StageConfig) -> Policy:
    """The policy that a configuration names: a directory, or pi* of a policy and a reward model.

    Raises:
        ValueError: a model is missing or unsafe, or the tokenizers differ.
    """
    if isinstance(source, str):
        return load_policy(Path(source), config)
    policy = load_policy(Path(source.policy), config)
    reward_model = load_reward_model(Path(source.reward_model), config)
    for model, what in ((reward_model.policy, "reward_model"), (reward_model.reference, "reward_model's reference")):
        check_same_tokenizer(policy, model, f"policy.{what}")
    return OptimalPolicy.of(
        policy,
        reward_model.policy,
        reward_model.reference,
        beta=reward_model.beta_dpo if source.beta == "beta-dpo" else source.beta,
        beta_dpo=reward_model.beta_dpo,
        reference_kl=source.reference_kl,
    )
