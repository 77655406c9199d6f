"""Configuration of the LCO algorithms and of the loop: frozen classes, no torch. Baselines are in `baselines.py`.

Defaults are those of `docs/method.md`. A combination that voids the mathematics is refused when the config is read.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from lco.advantage_config import (
    GROUP_ESTIMATORS,
    Advantage,
    ComparedAdvantage,
    GaeAdvantage,
    SampledAdvantage,
    SparseAdvantage,
)
from lco.baselines import (
    Cispo,
    ClipCov,
    Dapo,
    Dcpo,
    Gkd,
    Grpo,
    Gspo,
    KlCov,
    MiniLlm,
    Ppo,
    PpoCritic,
    Reinforce,
    ReinforcePlusPlus,
    ReinforcePlusPlusBaseline,
    Rloo,
    StableReinforce,
    VcPpo,
)
from lco.config import (
    Config,
    ExactAnswer,
    ModelSource,
    Prompts,
    Sampling,
    TrainingStageConfig,
    Validation,
)
from lco.metrics import DiagnosticsConfig
from lco.reward_config import Reward, StepVerifier
from lco.rollout_log import RolloutSamples
from lco.watch import WatchConfig


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
    has_model = not isinstance(advantage, SparseAdvantage | GaeAdvantage)
    if isinstance(support, TopKSupport) and support.source != "policy" and not has_model:
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
        if self.beta == "beta-dpo" and self.advantage.name not in ("dpo", "dpo-ratio"):
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
        is_dense = not isinstance(self.advantage, SampledAdvantage)
        if is_dense and not self.center and not self.allow_uncentered:
            raise ValueError(
                "center: a dense advantage must be centred for an objective on logits, which sees a constant added "
                "to it (set `center`, or `allow_uncentered` on purpose)"
            )
        if self.gate_threshold < 0 and isinstance(self.advantage, SparseAdvantage | GaeAdvantage):
            raise ValueError("gate_threshold: the agreement gate needs a dense advantage")
        _check_support(self.support, self.advantage)
        return self


class LcoMse(LcoLogitConfig):
    """LCO by mean squared error (Eq. 8): sum over the support of (z - z*)^2."""

    name: Literal["lco-mse"] = "lco-mse"


class LcoLch(LcoLogitConfig):
    """LCO by log-cosh (Eq. 9): sum over the support of log cosh(z - z*)."""

    name: Literal["lco-lch"] = "lco-lch"


Algorithm = Annotated[
    LcoKld
    | LcoLch
    | LcoMse
    | Reinforce
    | ReinforcePlusPlus
    | ReinforcePlusPlusBaseline
    | Rloo
    | StableReinforce
    | Ppo
    | PpoCritic
    | VcPpo
    | Grpo
    | Gspo
    | Dapo
    | Dcpo
    | Cispo
    | ClipCov
    | KlCov
    | Gkd
    | MiniLlm,
    Field(discriminator="name"),
]


def _check_steps(reward: StepVerifier, algorithm: Algorithm) -> None:
    """Steps' rewards must mean something to what learns from them."""
    advantage = algorithm.advantage
    if isinstance(advantage, GaeAdvantage) and reward.credit == "later":
        raise ValueError("reward.credit: `gae` has a discount and a lambda of its own for later steps; use `own`")
    if not isinstance(advantage, SparseAdvantage):
        return
    if advantage.estimator in ("leave-one-out", "batch-scaled"):
        raise ValueError(f"reward: steps have no {advantage.estimator} advantage; use another estimator")
    is_whole = isinstance(algorithm, Rloo | Gspo | Dapo | Dcpo)
    if is_whole or (isinstance(algorithm, Grpo) and algorithm.ratio_level == "sequence"):
        raise ValueError(f"reward: {algorithm.name} as configured takes a completion as a whole; it has no steps")


class TrainConfig(TrainingStageConfig):
    """The RL loop: sample an iteration's completions, estimate advantages, aim at targets, fit, and again."""

    algorithm: Algorithm
    """The objective with its advantage estimator."""
    policy: ModelSource
    """The policy to train; its start is the reference policy."""
    prompts: Prompts
    """Prompts with reference answers."""
    reward: Reward = ExactAnswer()
    """A rule, or reward models: logged always, learned from by the `sparse` and `gae` advantages alone."""
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
    watch: WatchConfig = WatchConfig()
    """The collapse watch."""
    diagnostics: DiagnosticsConfig = DiagnosticsConfig()
    """Numbers measured on request."""
    rollout_samples: RolloutSamples = RolloutSamples()
    """Completions that are kept for people to read, token by token."""

    @model_validator(mode="after")
    def _combination_is_sound(self) -> Self:
        if self.algorithm.token_reduction == "micro-mean" and self.micro_batch_tokens:
            raise ValueError("micro_batch_tokens: a mean over micro-batches needs ones of equal size; use 0")
        num_completions = self.prompts_per_iteration * self.group_size
        if num_completions % self.steps_per_epoch:
            raise ValueError(f"steps_per_epoch: must divide the {num_completions} completions of an iteration")
        advantage = self.algorithm.advantage
        if isinstance(advantage, ComparedAdvantage) and advantage.estimator in GROUP_ESTIMATORS and self.group_size < 2:
            raise ValueError(f"group_size: the {advantage.estimator} advantage needs at least 2 completions per prompt")
        if isinstance(self.reward, StepVerifier):
            _check_steps(self.reward, self.algorithm)
        is_mixed = isinstance(self.algorithm, MiniLlm) and self.algorithm.teacher_mix > 0
        if is_mixed and (self.sampling.temperature, self.sampling.top_p) != (1.0, 1.0):
            raise ValueError("sampling: the weights of `teacher_mix` are those of temperature 1 and top_p 1")
        if isinstance(advantage, GaeAdvantage) and advantage.value_pretraining_iterations >= self.iterations:
            raise ValueError(
                f"algorithm.advantage.value_pretraining_iterations: must be fewer than the {self.iterations} iterations"
            )
        asked = [name for name, is_asked in self.diagnostics.model_dump().items() if is_asked]
        if asked and self.parallel != "ddp":
            raise ValueError(f"diagnostics.{asked[0]}: its own backward passes need `parallel` ddp")
        if self.diagnostics.advantage_gradients and isinstance(self.algorithm, Gkd):
            raise ValueError("diagnostics.advantage_gradients: gkd has a teacher and no advantages")
        if self.diagnostics.gradient_bound:
            if not isinstance(self.algorithm, LcoConfig):
                raise ValueError("diagnostics.gradient_bound: Proposition 4.7 is about the LCO objectives")
            if isinstance(self.algorithm, LcoLogitConfig) and self.algorithm.gauge == "logprob":
                raise ValueError("diagnostics.gradient_bound: the gauge `logprob` fits other functions than the logits")
            if self.precision != "float32":
                raise ValueError("diagnostics.gradient_bound: its differences of logits need `precision` float32")
        return self
