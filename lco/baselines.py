"""Configuration of the baselines: frozen classes, no torch. LCO and the union are in `algorithms.py`.

Each class names its source and the defaults of the original report; TRL means version 1.12.0. Where ours differ on
purpose, `docs/baselines.md` says so.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from lco.advantage_config import Advantage, ComparedAdvantage, GaeAdvantage, LogprobAdvantage, SparseAdvantage
from lco.config import Config, Fraction

TokenReduction = Literal["token-mean", "sequence-mean", "sequence-sum", "fixed-length"]
"""How a step's token losses become one number; `lco.losses.token_weights` has the formulas."""


class PolicyGradientConfig(Config):
    """What the sampled-token baselines share. A dense advantage is read at the sampled token."""

    advantage: Advantage = SparseAdvantage()
    """Where the advantages come from."""
    whiten: bool = False
    """Z-score the advantages over all trained tokens of the iteration."""
    token_reduction: TokenReduction = "token-mean"
    """Average over all tokens of the optimizer step (`token-mean`), over sequences of their token means
    (`sequence-mean`) or sums (`sequence-sum`), or the sum over sequences x `sampling.max_tokens` (`fixed-length`)."""

    def _require(self, title: str, *estimators: str) -> None:
        if not isinstance(self.advantage, ComparedAdvantage) or self.advantage.estimator not in estimators:
            known = " or ".join(estimators)
            raise ValueError(f"advantage: {title} is defined with a sampled {known} advantage; use ppo for others")

    def _refuse_critic(self, title: str) -> None:
        if isinstance(self.advantage, GaeAdvantage):
            raise ValueError(f"advantage: {title} has no critic; use ppo-critic")


class ClippedConfig(PolicyGradientConfig):
    """What the baselines with a clipped importance ratio share."""

    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: PositiveFloat = 0.2
    """The ratio is clipped above at 1 + clip_high."""


class Reinforce(PolicyGradientConfig):
    """REINFORCE: -A_t log pi_theta(a_t|s_t), no importance ratio."""

    name: Literal["reinforce"] = "reinforce"


class TokenPenaltyConfig(ClippedConfig):
    """What REINFORCE++ and StableReinforce share: A_t = r - kl_weight sum_{i>=t} log(pi_old/pi_0)."""

    advantage: Advantage = SparseAdvantage(estimator="reward")
    """The completion's reward, not compared within its group."""
    whiten: bool = True
    """Z-score the advantages over all trained tokens of the iteration: the method's global normalisation."""
    kl_weight: NonNegativeFloat = 0.01
    """Weight of the k1 penalty that each token takes off the reward (OpenRLHF's default)."""

    @model_validator(mode="after")
    def _has_no_critic(self) -> Self:
        self._refuse_critic("REINFORCE++")
        return self


class ReinforcePlusPlus(TokenPenaltyConfig):
    """REINFORCE++ (arXiv 2501.03262): PPO's surrogate without a critic, on A_t z-scored over the iteration's tokens,
    A_t = r - kl_weight sum_{i>=t} log(pi_old/pi_0).
    """

    name: Literal["reinforce-plus-plus"] = "reinforce-plus-plus"


class StableReinforce(TokenPenaltyConfig):
    """StableReinforce (R1-Reward, arXiv 2505.02835): REINFORCE++ with the log-ratio clipped before it is exponentiated
    and without the tokens of outlying advantage. The report's third part, a judge of consistency, is a reward.
    """

    name: Literal["stable-reinforce"] = "stable-reinforce"
    pre_clip: Annotated[float, Field(gt=1)] = 1000.0
    """The log-ratio is clipped to +-log(pre_clip) first: no ratio overflows (the authors' code: 1e-3 to 1e3)."""
    advantage_filter: PositiveFloat = 3.0
    """Standard deviations from the iteration's mean beyond which a token's advantage becomes 0."""


class ReinforcePlusPlusBaseline(ClippedConfig):
    """REINFORCE++-baseline (arXiv 2501.03262): PPO's surrogate on rewards less their group's mean, z-scored over all
    tokens of the iteration, plus kl_weight times k2 = (log(pi_theta/pi_0))^2 / 2.
    """

    name: Literal["reinforce-plus-plus-baseline"] = "reinforce-plus-plus-baseline"
    advantage: Advantage = SparseAdvantage(estimator="group-centered")
    """Rewards less the mean of their group."""
    whiten: bool = True
    """Z-score the advantages over all trained tokens of the iteration: the method's global normalisation."""
    kl_weight: NonNegativeFloat = 0.01
    """Weight of the k2 term."""

    @model_validator(mode="after")
    def _advantage_is_centred(self) -> Self:
        self._require("REINFORCE++-baseline", "group-centered")
        return self


class Rloo(ClippedConfig):
    """RLOO (arXiv 2402.14740): a completion is one action. -min(c A, clip(c) A), c = pi_theta(y) / pi_old(y) and
    A = R less the mean R of the group's others, R = r - kl_weight log(pi_old(y) / pi_0(y)). TRL: group of 2, lr 1e-6.
    """

    name: Literal["rloo"] = "rloo"
    advantage: Advantage = SparseAdvantage(estimator="leave-one-out")
    """The leave-one-out baseline."""
    kl_weight: NonNegativeFloat = 0.05
    """Weight of the k1 penalty in the completion's reward (TRL's default)."""
    token_reduction: Literal["sequence-mean"] = "sequence-mean"
    """One loss per completion."""

    @model_validator(mode="after")
    def _advantage_is_left_out(self) -> Self:
        self._require("RLOO", "leave-one-out")
        return self


class Ppo(ClippedConfig):
    """PPO's clipped surrogate (Eq. 3): -min(r_t A_t, clip(r_t, 1 - clip_low, 1 + clip_high) A_t), without a critic."""

    name: Literal["ppo"] = "ppo"

    @model_validator(mode="after")
    def _has_no_critic(self) -> Self:
        self._refuse_critic("ppo")
        return self


class CriticConfig(ClippedConfig):
    """What the baselines with a critic share."""

    advantage: GaeAdvantage = GaeAdvantage()
    """Generalised advantages, and the critic that they need."""
    whiten: bool = True
    """Z-score the advantages over all trained tokens of the iteration; returns stay as they are."""


class PpoCritic(CriticConfig):
    """PPO with a critic (arXiv 1707.06347): the clipped surrogate (Eq. 3) on generalised advantages. TRL: lr 3e-6, 4
    inner epochs, value loss with weight 0.1 on one optimizer.
    """

    name: Literal["ppo-critic"] = "ppo-critic"


class VcPpo(CriticConfig):
    """VC-PPO (arXiv 2503.01491): PPO whose critic is first fitted alone to Monte-Carlo returns of the fixed policy, and
    then learns with lambda 1 while the policy keeps 0.95.
    """

    name: Literal["vc-ppo"] = "vc-ppo"
    advantage: GaeAdvantage = GaeAdvantage(critic_lambda=1.0, kl_weight=0.0, value_pretraining_iterations=5)
    """Decoupled lambdas and the critic's pretraining."""

    @model_validator(mode="after")
    def _critic_is_pretrained(self) -> Self:
        if self.advantage.value_pretraining_iterations == 0:
            raise ValueError("advantage.value_pretraining_iterations: VC-PPO pretrains its critic; use ppo-critic")
        return self


class Grpo(ClippedConfig):
    """GRPO (arXiv 2402.03300): PPO's clipped surrogate on group-normalised rewards plus kl_weight times the k3 estimate
    of KL(pi_theta || pi_0). DeepSeekMath: group of 64, kl_weight 0.04, lr 1e-6; TRL: group of 8, kl_weight 0.

    Dr. GRPO (arXiv 2503.20783) is `token_reduction` fixed-length with the `group-centered` estimator.
    """

    name: Literal["grpo"] = "grpo"
    kl_weight: NonNegativeFloat = 0.0
    """Weight of the k3 term: pi_0/pi_theta - log(pi_0/pi_theta) - 1."""
    is_kl_corrected: bool = False
    """Multiply the k3 term by the importance ratio: its gradient is then unbiased off-policy (TRL: since 1.12)."""
    ratio_level: Literal["token", "sequence"] = "token"
    """`sequence`: one ratio per completion, the geometric mean of its tokens' ratios (GSPO)."""
    ratio_cap: NonNegativeFloat = 0.0
    """Upper bound of the unclipped ratio, TRL's `delta`: bounds the loss where advantages are negative. 0: none."""
    token_reduction: TokenReduction = "sequence-mean"
    """The original averages each sequence first; TRL's loss types `grpo`, `bnpo` or `dapo`, `luspo`, `dr_grpo` are
    sequence-mean, token-mean, sequence-sum, fixed-length."""

    @model_validator(mode="after")
    def _advantage_is_of_a_group(self) -> Self:
        self._require("GRPO", "group-normalized", "group-centered", "batch-scaled")
        if self.ratio_cap and self.ratio_cap <= 1 + self.clip_high:
            raise ValueError("ratio_cap: must exceed 1 + clip_high")
        return self


class Gspo(ClippedConfig):
    """GSPO (arXiv 2507.18071): GRPO with one ratio per completion, s = exp(mean_t log r_t), no KL term. Original:
    four mini-batches per rollout.
    """

    name: Literal["gspo"] = "gspo"
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 3e-4
    """The sequence ratio is clipped below at 1 - clip_low; TRL's 0.2 is meant for tokens."""
    clip_high: PositiveFloat = 4e-4
    """The sequence ratio is clipped above at 1 + clip_high."""
    token_reduction: Literal["sequence-mean"] = "sequence-mean"
    """One loss per completion."""

    @model_validator(mode="after")
    def _advantage_is_of_a_group(self) -> Self:
        self._require("GSPO", "group-normalized", "group-centered", "batch-scaled")
        return self


class Dapo(ClippedConfig):
    """DAPO (arXiv 2503.14476): GRPO without KL, with a higher upper clip, a token mean, dynamic sampling and overlong
    shaping. Original: group of 16, 512 prompts and 16 updates per rollout, 20480 tokens, lr 1e-6.
    """

    name: Literal["dapo"] = "dapo"
    clip_high: PositiveFloat = 0.28
    """Clip-higher: the ratio is clipped above at 1 + clip_high."""
    overlong_share: Fraction = 0.2
    """Last share of `sampling.max_tokens` over which a completion's reward falls linearly by up to 1 (original:
    4096 of 20480 tokens). 0 switches the penalty off."""
    overlong_filter: bool = False
    """Leave truncated completions out of the loss and its average; the rewards of their group count all the same."""
    max_sampling_rounds: PositiveInt = 10
    """Dynamic sampling: rounds of sampling per iteration in which groups of one raw reward alone give way to those
    of further prompts. 1 switches it off; what is still missing after the last round is filled with such groups."""

    @model_validator(mode="after")
    def _advantage_is_of_a_group(self) -> Self:
        self._require("DAPO", "group-normalized", "group-centered", "batch-scaled")
        return self


class Dcpo(PolicyGradientConfig):
    """DCPO (arXiv 2509.02333): GRPO without KL whose clip range follows the token's old probability q: the ratio may
    move until |r - 1| r q reaches a bound, so that rare tokens have room; rewards are standardised smoothly.
    """

    name: Literal["dcpo"] = "dcpo"
    clip_low: PositiveFloat = 0.16
    """The ratio is clipped below at (1 + sqrt(max(1 - 4 clip_low / q, 0))) / 2."""
    clip_high: PositiveFloat = 0.2
    """The ratio is clipped above at (1 + sqrt(1 + 4 clip_high / q)) / 2."""
    ratio_cap: Annotated[float, Field(gt=1)] = 10.0
    """Upper bound of every ratio, clipped or not."""
    smooth_advantages: bool = True
    """Mix the rewards standardised in the group with those standardised by all rewards that the prompt had so far, and
    take the mixture nearer 0: groups of equal rewards keep a gradient."""
    token_reduction: Literal["sequence-mean"] = "sequence-mean"
    """The mean of each completion's tokens, never over completions' tokens together."""

    @model_validator(mode="after")
    def _advantage_is_of_a_group(self) -> Self:
        self._require("DCPO", "group-normalized")
        return self


class Cispo(PolicyGradientConfig):
    """CISPO (arXiv 2506.13585): -sg(min(r_t, ratio_cap)) A_t log pi_theta(a_t|s_t): ratios are clipped, not tokens."""

    name: Literal["cispo"] = "cispo"
    ratio_cap: PositiveFloat = 5.0
    """Upper bound of the ratio itself (ScaleRL, arXiv 2510.13786; the report states none); below there is no bound."""


class ClipCov(ClippedConfig):
    """Clip-Cov (arXiv 2505.22617): PPO's surrogate; a few random tokens of high covariance between log-probability and
    advantage get no gradient.
    """

    name: Literal["clip-cov"] = "clip-cov"
    share: Fraction = 2e-4
    """Share of an iteration's tokens that are detached; at least one where any qualifies."""
    covariance_low: float = 1.0
    """Tokens qualify above this covariance ..."""
    covariance_high: float = 5.0
    """... and below this one."""


class KlCov(PolicyGradientConfig):
    """KL-Cov (arXiv 2505.22617): -r_t A_t without clipping, plus penalty_weight |log r_t| on the tokens of highest
    covariance between log-probability and advantage.
    """

    name: Literal["kl-cov"] = "kl-cov"
    share: Fraction = 2e-3
    """Share of an iteration's tokens that are penalised, at least one; the report has 2e-3 for 7B, 2e-4 for 32B."""
    penalty_weight: NonNegativeFloat = 1.0
    """Weight of |log r_t| there."""


class DistillationConfig(Config):
    """What the dense distillation baselines share: the teacher is the advantage's model."""

    advantage: LogprobAdvantage
    """log p_T(a|s) for every token a: its `reward_model` is the teacher; a DPO reward model may be one."""
    token_reduction: TokenReduction = "token-mean"
    """How a step's token losses are averaged, as for the policy gradients."""


class Gkd(DistillationConfig):
    """GKD (arXiv 2306.13649): JSD_b = b KL(p_T || m) + (1 - b) KL(pi_theta || m), m = b p_T + (1 - b) pi_theta,
    over the whole vocabulary. TRL: b 0.5, half of the steps on-policy, sampled at temperature 0.9.
    """

    name: Literal["gkd"] = "gkd"
    jsd_beta: Fraction = 0.5
    """b; 0 is the forward KL(p_T || pi_theta), 1 the reverse KL(pi_theta || p_T)."""
    on_policy_share: Fraction = 1.0
    """lambda: probability that a completion is the policy's own; otherwise it is the prompt's demonstration."""


class MiniLlm(DistillationConfig):
    """MiniLLM (arXiv 2306.08543): reverse KL of whole sequences. KL(pi_theta || p_T) at each step, plus PPO's surrogate
    on A_t = the mean over later steps i > t of log(p_T(a_i) / pi_old(a_i)); completions are drawn from a mixture with
    the teacher. Original: lr 5e-6, 4 inner epochs, lm_weight 1 on pre-training text.
    """

    name: Literal["minillm"] = "minillm"
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: PositiveFloat = 0.2
    """The ratio is clipped above at 1 + clip_high."""
    single_step: bool = True
    """Add the exact divergence of each step; without it A_t begins with the step's own log-ratio."""
    length_normalized: bool = True
    """Divide the sum of later log-ratios by their number."""
    teacher_mix: Fraction = 0.2
    """alpha: tokens are drawn from alpha p_T + (1 - alpha) pi_old; w_t = pi_old / mixture weighs the divergence and
    enters the ratio. 0 samples from the policy alone."""
    lm_weight: NonNegativeFloat = 0.0
    """Weight of the language-modelling term: token mean of -log pi_theta over the demonstrations of the sampled
    prompts, one beside each completion. Every prompt then needs one."""
