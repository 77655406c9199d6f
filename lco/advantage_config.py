"""Configuration of the advantage estimators: one frozen class each, no torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from lco.config import Config, Fraction, ModelSource, Optimizer, RewardModelSource


class DpoAdvantage(Config):
    """Dense advantage of a DPO reward model (Eq. 13): beta_dpo log(pi_dpo(a|s) / pi_ref(a|s)) for every token a."""

    name: Literal["dpo"] = "dpo"
    reward_model: RewardModelSource
    """The reward model with its reference."""
    beta_dpo: PositiveFloat | Literal["manifest"] = "manifest"
    """`manifest` reads the reward model's own; a number that differs from it is refused when the run starts."""
    reference_kl: NonNegativeFloat = 0.5
    """lambda >= 0 of the pull to the start: A - lambda beta_dpo log(pi_old / pi_0). 1 makes pi_dpo the fixed point."""


class LogprobAdvantage(Config):
    """Dense advantage of one language model (Eq. 12): log pi_phi(a|s) for every token a."""

    name: Literal["logprob"] = "logprob"
    reward_model: ModelSource
    """The model phi, with the policy's tokenizer."""


Estimator = Literal["reward", "group-normalized", "group-centered", "batch-scaled", "leave-one-out", "batch-normalized"]
GROUP_ESTIMATORS = ("group-normalized", "group-centered", "batch-scaled", "leave-one-out")
"""Those that compare the completions of one prompt, and so need two of them."""


class SampledAdvantage(Config):
    """Advantage of the sampled tokens alone (Eq. 11)."""


class ComparedAdvantage(SampledAdvantage):
    """Advantage of the sampled tokens alone (Eq. 11), made of one number per completion."""

    estimator: Estimator = "group-normalized"
    """`reward`: the completion's reward itself; `group-normalized`: (r - mean) / (std + 1e-4) in the prompt's group;
    `group-centered`: r - mean of the group; `batch-scaled`: that over (std of the iteration + 1e-4);
    `leave-one-out`: r minus the mean of the group's others; `batch-normalized`: z-score over the iteration."""


class SparseAdvantage(ComparedAdvantage):
    """Advantage of the sampled tokens alone (Eq. 11), from the rule reward of the whole completion."""

    name: Literal["sparse"] = "sparse"


class DpoRatioAdvantage(ComparedAdvantage):
    """Advantage of the sampled tokens alone (Eq. 11), from beta_dpo log(pi_dpo / pi_ref) at those tokens."""

    name: Literal["dpo-ratio"] = "dpo-ratio"
    reward_model: RewardModelSource
    """The reward model with its reference."""
    beta_dpo: PositiveFloat | Literal["manifest"] = "manifest"
    """`manifest` reads the reward model's own; a number that differs from it is refused when the run starts."""
    credit: Literal["token", "sum", "mean", "last-token"] = "sum"
    """`token`: each token its own ratio. Else one reward per completion, which `estimator` takes: the ratios' `sum`
    (DPO's implicit reward), their `mean`, or that of the `last-token` (the paper authors' code)."""
    estimator: Estimator = "reward"
    """What the completion's reward becomes, as for `sparse`; `reward` leaves it as it is."""

    @model_validator(mode="after")
    def _tokens_have_no_group(self) -> Self:
        if self.credit == "token" and self.estimator != "reward":
            raise ValueError("estimator: with credit `token` there is no completion reward to compare; use `reward`")
        return self


class GaeAdvantage(SampledAdvantage):
    """Generalised advantage estimation (arXiv 1506.02438) of the sampled tokens with a critic: a second copy of the
    policy with a value head, trained beside it. The rule reward stands at the last token.
    """

    name: Literal["gae"] = "gae"
    discount: Annotated[float, Field(gt=0, le=1)] = 1.0
    """gamma per token; 1 is usual for language."""
    policy_lambda: Fraction = 0.95
    """lambda of the policy's advantages: 0 trusts the critic after one token, 1 only sampled rewards."""
    critic_lambda: Fraction = 0.95
    """lambda of the returns that the critic learns; VC-PPO has 1, Monte-Carlo returns."""
    kl_weight: NonNegativeFloat = 0.05
    """Weight of the k1 penalty log(pi_old / pi_0) that each token takes off its reward (TRL's default)."""
    bootstrap_truncated: bool = False
    """Continue a truncated completion with the critic's value of its last state, instead of ending it at 0."""
    value_clip: NonNegativeFloat = 0.2
    """Farthest a value may move from the one at sampling before its loss stops rewarding it; 0 never clips."""
    value_pretraining_iterations: NonNegativeInt = 0
    """First iterations that fit the critic alone, to Monte-Carlo returns of the policy as it stands (VC-PPO)."""
    critic: Optimizer = Optimizer()
    """The critic's own optimizer; its loss needs no weight of its own beside it."""


Advantage = Annotated[
    DpoAdvantage | LogprobAdvantage | SparseAdvantage | DpoRatioAdvantage | GaeAdvantage, Field(discriminator="name")
]
