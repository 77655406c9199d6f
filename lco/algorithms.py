"""Configuration of the algorithms and of their advantage estimators: one frozen class each, no torch.

Defaults are those of `docs/method.md`. A combination that voids the mathematics is refused when the config is read.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from lco.config import (
    Config,
    ExactAnswer,
    ModelSource,
    Prompts,
    RewardModelSource,
    Sampling,
    TrainingStageConfig,
    Validation,
)


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


class SparseAdvantage(Config):
    """Advantage of the sampled tokens alone (Eq. 11), from the rule reward of the whole completion."""

    name: Literal["sparse"] = "sparse"
    estimator: Literal["reward", "group-normalized", "leave-one-out", "batch-normalized"] = "group-normalized"
    """`reward`: the reward itself; `group-normalized`: (r - mean) / (std + 1e-4) in the prompt's group;
    `leave-one-out`: r minus the mean of the group's others; `batch-normalized`: z-score over the iteration."""


Advantage = Annotated[DpoAdvantage | LogprobAdvantage | SparseAdvantage, Field(discriminator="name")]


class FullSupport(Config):
    """Every entry of the vocabulary has a known advantage."""

    name: Literal["full"] = "full"


class TopKSupport(Config):
    """Only the k most probable entries of one model, and the sampled token, have a known advantage."""

    name: Literal["top-k"] = "top-k"
    k: Annotated[int, Field(ge=2)] = 64
    """Entries per token, the sampled one beside them."""
    source: Literal["policy", "reward-model", "union"] = "union"
    """Whose probabilities choose the entries; `union` takes k of each."""


def _check_support(support: FullSupport | TopKSupport, advantage: Advantage) -> None:
    if isinstance(support, TopKSupport) and support.source != "policy" and advantage.name == "sparse":
        raise ValueError("support.source: a sparse advantage has no reward model to choose the support; use `policy`")


class LcoConfig(Config):
    """What the three LCO objectives share: how the target logits z* = z_old + A / beta (Eq. 7) are made."""

    advantage: Advantage
    """Where the advantages come from."""
    beta: PositiveFloat | Literal["beta-dpo"] = "beta-dpo"
    """Strength of the KL term, advantage per nat: larger keeps the target nearer the behaviour policy. `beta-dpo` takes
    the reward model's."""
    anchor: Literal["old", "current"] = "old"
    """Logits that the advantage is added to: the stored behaviour logits (the paper), or the detached current ones."""
    center: bool = False
    """Subtract the support's uniform mean advantage per token. Changes nothing for lco-kld over the full support."""
    scale: Literal["none", "per-step", "global"] = "none"
    """Divide the advantage by its standard deviation per token, or by that of all tokens of the iteration."""
    std_floor: NonNegativeFloat = 0.0
    """Smallest standard deviation divided by; keeps indifferent tokens from being blown up."""
    negative_beta_factor: Annotated[float, Field(ge=1)] = 1.0
    """Multiplies beta where the advantage of the sampled token is not positive."""
    sparse_fill: Literal["zero", "zero-mean"] = "zero"
    """Advantage of the tokens not sampled: 0, or the value that makes the mean under the behaviour policy 0."""
    token_reduction: Literal["token-mean", "sequence-mean", "micro-mean"] = "token-mean"
    """Average over all tokens of the optimizer step, over sequences of their token means, or, as the authors do, over
    micro-batches of their token means: this last one makes the loss depend on `micro_batch_size`."""

    @model_validator(mode="after")
    def _beta_is_known(self) -> Self:
        if self.beta == "beta-dpo" and self.advantage.name != "dpo":
            raise ValueError("beta: `beta-dpo` needs the `dpo` advantage; give a number")
        return self


class LcoKld(LcoConfig):
    """LCO by forward KL (Eq. 10): KL(pi* || pi_theta). Blind to a constant added to the advantages of a token."""

    name: Literal["lco-kld"] = "lco-kld"
    support: Annotated[FullSupport | TopKSupport, Field(discriminator="name")] = FullSupport()
    """Entries of the vocabulary with a known advantage."""
    outside: Literal["frozen-tail", "zero-mass"] = "frozen-tail"
    """Target outside the support: its old mass tilted as one and spread as the policy spreads it now, or none."""

    @model_validator(mode="after")
    def _support_has_a_source(self) -> Self:
        _check_support(self.support, self.advantage)
        return self


class LcoLogitConfig(LcoConfig):
    """What the two LCO objectives on logits share."""

    support: Annotated[FullSupport | TopKSupport, Field(discriminator="name")] = TopKSupport(k=2, source="policy")
    """Entries whose logits are fitted; those outside are left out of the sum."""
    vocab_reduction: Literal["sum", "mean", "half-sum"] = "sum"
    """How the residuals of one token's support are added up."""
    gauge: Literal["raw", "max-shift", "logprob"] = "raw"
    """Representative of the logits that is fitted: as they come, less their detached maximum, or log-probabilities."""
    gate_threshold: Annotated[float, Field(le=0)] = 0.0
    """Agreement gate: where policy and reward model both give the sampled token a log-probability above this, beta is
    multiplied by `gate_factor`. 0 switches the gate off."""
    gate_factor: Annotated[float, Field(ge=1)] = 100.0
    """See `gate_threshold`."""
    allow_uncentered: bool = False
    """Accept a dense advantage without `center`, although a constant added to it changes this objective."""

    @model_validator(mode="after")
    def _dense_advantages_are_centred(self) -> Self:
        if self.advantage.name != "sparse" and not self.center and not self.allow_uncentered:
            raise ValueError(
                "center: a dense advantage must be centred for an objective on logits, which sees a constant added "
                "to it (set `center`, or `allow_uncentered` on purpose)"
            )
        if self.gate_threshold < 0 and self.advantage.name == "sparse":
            raise ValueError("gate_threshold: the agreement gate needs a dense advantage")
        _check_support(self.support, self.advantage)
        return self


class LcoMse(LcoLogitConfig):
    """LCO by mean squared error (Eq. 8): sum over the support of (z - z*)^2."""

    name: Literal["lco-mse"] = "lco-mse"


class LcoLch(LcoLogitConfig):
    """LCO by log-cosh (Eq. 9): sum over the support of log cosh(z - z*)."""

    name: Literal["lco-lch"] = "lco-lch"


class PolicyGradientConfig(Config):
    """What the sampled-token baselines share. A dense advantage is read at the sampled token."""

    advantage: Advantage = SparseAdvantage()
    """Where the advantages come from."""
    whiten: bool = False
    """Z-score the advantages over all trained tokens of the iteration."""
    token_reduction: Literal["token-mean", "sequence-mean"] = "token-mean"
    """Average over all tokens of the optimizer step, or over sequences of their token means."""


class Reinforce(PolicyGradientConfig):
    """REINFORCE: -A_t log pi_theta(a_t|s_t), no importance ratio."""

    name: Literal["reinforce"] = "reinforce"


class Ppo(PolicyGradientConfig):
    """PPO's clipped surrogate (Eq. 3): -min(r_t A_t, clip(r_t, 1 - clip_low, 1 + clip_high) A_t), without a critic."""

    name: Literal["ppo"] = "ppo"
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: PositiveFloat = 0.2
    """The ratio is clipped above at 1 + clip_high."""


class Grpo(PolicyGradientConfig):
    """GRPO (arXiv 2402.03300): PPO's clipped surrogate on group-normalised rewards plus kl_weight times the k3 estimate
    of KL(pi_theta || pi_0).
    """

    name: Literal["grpo"] = "grpo"
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: PositiveFloat = 0.2
    """The ratio is clipped above at 1 + clip_high."""
    kl_weight: NonNegativeFloat = 0.0
    """Weight of the k3 term: pi_0/pi_theta - log(pi_0/pi_theta) - 1."""
    token_reduction: Literal["token-mean", "sequence-mean"] = "sequence-mean"
    """The original averages each sequence first."""

    @model_validator(mode="after")
    def _advantage_is_of_a_group(self) -> Self:
        if self.advantage.name != "sparse" or self.advantage.estimator != "group-normalized":
            raise ValueError(
                "advantage: GRPO is defined with the group-normalized sparse advantage; use ppo for others"
            )
        return self


Algorithm = Annotated[LcoKld | LcoLch | LcoMse | Reinforce | Ppo | Grpo, Field(discriminator="name")]


class TrainConfig(TrainingStageConfig):
    """The RL loop: sample an iteration's completions, estimate advantages, aim at targets, fit, and again."""

    algorithm: Algorithm
    """The objective with its advantage estimator."""
    policy: ModelSource
    """The policy to train; its start is the reference policy."""
    prompts: Prompts
    """Prompts with reference answers."""
    reward: ExactAnswer = ExactAnswer()
    """The rule reward: logged always, learned from by the `sparse` advantage alone."""
    sampling: Sampling = Sampling()
    """How the behaviour policy samples."""
    group_size: PositiveInt = 1
    """Completions per prompt."""
    prompts_per_iteration: PositiveInt = 64
    """Prompts sampled between two updates of the behaviour policy."""
    iterations: PositiveInt = 30
    """Rounds of sampling and fitting."""
    inner_epochs: PositiveInt = 1
    """Passes over one iteration's completions."""
    steps_per_epoch: PositiveInt = 1
    """Optimizer steps per pass; each takes an equal share of the completions."""
    validation: Validation | None = None
    """Accuracy measured while training; null for none."""

    @model_validator(mode="after")
    def _combination_is_sound(self) -> Self:
        num_completions = self.prompts_per_iteration * self.group_size
        if num_completions % self.steps_per_epoch:
            raise ValueError(f"steps_per_epoch: must divide the {num_completions} completions of an iteration")
        advantage = self.algorithm.advantage
        if (
            isinstance(advantage, SparseAdvantage)
            and advantage.estimator in ("group-normalized", "leave-one-out")
            and self.group_size < 2
        ):
            raise ValueError(f"group_size: the {advantage.estimator} advantage needs at least 2 completions per prompt")
        return self
