"""Every number that a training stage reports, by name, in one place; what can be asked for beside it. No torch.

The dashboard's titles and the table of `docs/diagnostics.md` are made of `METRICS`; a test compares what runs report.
"""

from dataclasses import dataclass

from lco.config import Config


@dataclass(frozen=True, slots=True)
class Metric:
    """A named number of a training run."""

    title: str
    """What a chart of it is called."""
    formula: str
    """What is computed, in the notation of `docs/method.md`; Markdown."""
    peers: str = ""
    """Names of the same or the nearest number in TRL and verl."""
    scope: str = "every"
    """Which runs report it; `every` algorithm at every step, unless it says otherwise."""
    is_logged: bool = False
    """Whether it stands in the lines that a run prints; all of them are in `progress.jsonl`."""


METRICS: dict[str, Metric] = {
    "train/loss": Metric(
        "Loss", "the step's loss, reduced as `token_reduction` says", "`loss`; `actor/pg_loss`", is_logged=True
    ),
    "train/reward": Metric(
        "Reward",
        "mean reward of the iteration's completions",
        "`reward`; `critic/score/mean`",
        "an iteration's first",
        is_logged=True,
    ),
    "train/accuracy": Metric(
        "Accuracy, training", "share of completions that are correct", "", "an iteration's first", is_logged=True
    ),
    "eval/accuracy": Metric(
        "Accuracy, validation",
        "greedy Pass@1 on held-out problems",
        "`val-core/*`",
        "where `validation` asks",
        is_logged=True,
    ),
    "train/grad_norm": Metric(
        "Gradient norm",
        "Euclidean norm of the whole gradient, before clipping",
        "`grad_norm`; `actor/grad_norm`",
        is_logged=True,
    ),
    "train/grad_norm_qkv": Metric(
        "Gradient norm, q/k/v",
        "mean over the query, key and value projections of the Frobenius norm of each one's gradient, before clipping: "
        "the gradient norm of the paper's figures",
    ),
    "train/entropy": Metric(
        "Entropy",
        "mean over tokens of H(pi) in nats, exact over V, at temperature 1",
        "`entropy`; `actor/entropy`",
        is_logged=True,
    ),
    "train/action_prob": Metric("Action probability", "mean over tokens of pi(a_t)"),
    "train/kl_old": Metric(
        "KL to behaviour",
        "mean over tokens of KL(pi, old), exact over V; 0 at an iteration's first step",
        "`policy/approxkl_avg`; `actor/ppo_kl`",
        "full support",
        is_logged=True,
    ),
    "train/kl_old_k3": Metric(
        "KL to behaviour, k3",
        "the same, estimated without bias from sampled tokens: mean of `r log r - r + 1`, `r = pi(a_t) / old(a_t)`",
        "`policy/approxkl_avg`; `actor/ppo_kl`",
        "where `train/kl_old` is not known",
        is_logged=True,
    ),
    "train/kl_reference": Metric(
        "KL to reference",
        "mean over sampled tokens of `log(old(a_t) / pi_0(a_t))`: an estimate of KL(old, 0)",
        "`kl`; `actor/kl_loss`",
        "an iteration's first, where pi_0 is scored",
        is_logged=True,
    ),
    "train/learning_rate": Metric("Learning rate", "of this step", "`learning_rate`; `actor/lr`", is_logged=True),
    "train/kl_target": Metric(
        "KL to target",
        "mean over tokens of KL(pi*, pi). For `lco-mse` and `lco-lch` both are normalised on the support; for "
        "distillation pi* is the teacher",
        "",
        "LCO, `gkd`, `minillm`",
        is_logged=True,
    ),
    "train/kl_target_old": Metric(
        "KL, target to behaviour",
        "mean over tokens of KL(pi*, old): how far the iteration wants to go. With `top-k` the tail is one entry: a "
        "lower bound",
        "",
        "LCO",
    ),
    "train/tv_target": Metric(
        "Total variation to target", "mean over tokens of half the sum over V of `abs(pi - pi*)`", "", "as `kl_target`"
    ),
    "train/target_entropy": Metric("Entropy of the target", "mean over tokens of H(pi*)", "", "as `kl_target`"),
    "train/target_support": Metric(
        "Effective support of the target",
        "mean over tokens of `exp H(pi*)`: 1 for a target that is one token",
        "",
        "as `kl_target`",
    ),
    "train/residual": Metric(
        "Residual to the target",
        "mean over tokens of the root mean square of delta on the support",
        "",
        "`lco-mse`, `lco-lch`",
    ),
    "train/clip_fraction": Metric(
        "Clip fraction",
        "share of tokens whose clip decides: A > 0 and r > 1 + clip_high, or A < 0 and r < 1 - clip_low",
        "`clip_ratio/region_mean`; `actor/pg_clipfrac`",
        "clipped baselines, `minillm`",
        is_logged=True,
    ),
    "train/advantage_std": Metric(
        "Advantage, std",
        "standard deviation of the sampled tokens' advantages over the iteration, before `center` and `scale`",
        "`critic/advantages/*`",
        "an iteration's first",
    ),
    "train/advantage_std_steps": Metric(
        "Advantage, std of a step",
        "mean over tokens of the standard deviation of A on the token's support, before `center` and `scale`: small "
        "where the reward model is indifferent",
        "",
        "LCO, an iteration's first",
    ),
    "train/advantage_max": Metric(
        "Advantage, largest",
        "largest `abs(A)` of the iteration, as the target uses it",
        "`critic/advantages/max`",
        "an iteration's first",
    ),
    "train/support_mass": Metric(
        "Mass of the support",
        "mean over tokens of old's mass on the support",
        "",
        "LCO with `top-k`, an iteration's first",
    ),
    "train/gated": Metric(
        "Gated tokens",
        "share of tokens at which the agreement gate multiplies beta",
        "",
        "`gate_threshold` < 0, an iteration's first",
    ),
    "train/reward_std": Metric(
        "Reward, std",
        "standard deviation of the completions' rewards over the iteration",
        "`reward_std`",
        "an iteration's first",
    ),
    "train/reward_relevance": Metric(
        "Reward, relevance", "mean relevance reward of a completion", "", "`qa-feedback` reward, an iteration's first"
    ),
    "train/reward_factuality": Metric(
        "Reward, factuality", "mean factuality reward of a completion", "", "`qa-feedback` reward, an iteration's first"
    ),
    "train/reward_completeness": Metric(
        "Reward, completeness",
        "mean completeness reward of a completion; the three add up to `train/reward`",
        "",
        "`qa-feedback` reward, an iteration's first",
    ),
    "train/num_unrewarded": Metric(
        "Without a reward",
        "completions of the iteration that got no reward because our side failed; they are left out of the step",
        "",
        "an iteration's first, where there are any",
    ),
    "train/zero_std_groups": Metric(
        "Groups of one reward",
        "share of groups whose completions all have one reward: no group-normalised advantage",
        "`frac_reward_zero_std`",
        "groups of 2 or more, an iteration's first",
    ),
    "train/completion_tokens": Metric(
        "Completion tokens",
        "mean length of a completion",
        "`completions/mean_length`; `response_length/mean`",
        "an iteration's first",
        is_logged=True,
    ),
    "train/completion_tokens_max": Metric(
        "Completion tokens, longest",
        "longest completion of the iteration",
        "`completions/max_length`; `response_length/max`",
        "an iteration's first",
    ),
    "train/grader_timeout": Metric(
        "Grader timeouts",
        "share of completions whose answer took the grader too much time or memory; they count as incorrect",
        "",
        "an iteration's first, where there are any",
    ),
    "train/truncated": Metric(
        "Truncated",
        "share of completions cut at `max_tokens`",
        "`completions/clipped_ratio`; `response_length/clip_ratio`",
        "an iteration's first",
        is_logged=True,
    ),
    "train/value_loss": Metric(
        "Value loss",
        "the critic's loss `max((V - R)^2, (V_clipped - R)^2) / 2`, reduced as the policy's",
        "`loss/value_avg`; `critic/vf_loss`",
        "`gae` advantage",
        is_logged=True,
    ),
    "train/explained_variance": Metric(
        "Explained variance",
        "1 - Var(R - V) / Var(R) over the step's tokens, before the critic's update",
        "; `critic/vf_explained_var`",
        "`gae` advantage, unless all returns are equal",
        is_logged=True,
    ),
    "train/value_clip_fraction": Metric(
        "Value clip fraction",
        "share of tokens whose clipped value decides the critic's loss",
        "`val/clipfrac_avg`; `critic/vf_clipfrac`",
        "`gae` advantage",
    ),
    "train/critic_grad_norm": Metric(
        "Gradient norm, critic",
        "Euclidean norm of the critic's gradient, before clipping",
        "; `critic/grad_norm`",
        "`gae` advantage",
    ),
    "train/critic_learning_rate": Metric("Learning rate, critic", "of this step", "; `critic/lr`", "`gae` advantage"),
    "train/num_tokens": Metric("Trained tokens", "tokens of the step", "`num_tokens`; `perf/total_num_tokens`"),
    "train/grad_norm_positive": Metric(
        "Gradient norm, A > 0",
        "norm of the gradient of the mean loss over the tokens with a positive advantage, before the step",
        "",
        "`diagnostics.advantage_gradients`",
    ),
    "train/grad_norm_negative": Metric(
        "Gradient norm, A < 0",
        "the same over those with a negative one",
        "",
        "`diagnostics.advantage_gradients`",
    ),
    "train/grad_bound": Metric(
        "Bound on the gradient norm",
        "Proposition 4.7 (Eqs. 16-18): sigma times what the tokens' losses allow; `train/grad_norm` stays below it",
        "",
        "`diagnostics.gradient_bound`",
    ),
    "train/num_pairs": Metric("Pairs", "preference pairs that were made", "", "`pairs`", is_logged=True),
    "train/margin": Metric(
        "Margin",
        "mean of the chosen less the rejected implicit reward",
        "`rewards/margins`",
        "DPO",
        is_logged=True,
    ),
    "time/step_seconds": Metric("Seconds a step", "wall time", "`step_time`; `perf/time_per_step`", is_logged=True),
}
"""In the order of the dashboard's charts."""
GROUPS: dict[str, tuple[str, ...]] = {
    "Outcome": (
        "train/loss",
        "train/reward",
        "train/accuracy",
        "eval/accuracy",
        "train/margin",
        "train/num_pairs",
        "train/reward_std",
        "train/reward_relevance",
        "train/reward_factuality",
        "train/reward_completeness",
        "train/num_unrewarded",
        "train/zero_std_groups",
    ),
    "Policy": (
        "train/grad_norm",
        "train/grad_norm_qkv",
        "train/grad_norm_positive",
        "train/grad_norm_negative",
        "train/grad_bound",
        "train/entropy",
        "train/action_prob",
        "train/kl_old",
        "train/kl_old_k3",
        "train/kl_reference",
        "train/clip_fraction",
    ),
    "Target and advantages": (
        "train/kl_target",
        "train/kl_target_old",
        "train/tv_target",
        "train/target_entropy",
        "train/target_support",
        "train/residual",
        "train/advantage_std",
        "train/advantage_std_steps",
        "train/advantage_max",
        "train/support_mass",
        "train/gated",
    ),
    "Critic": (
        "train/value_loss",
        "train/explained_variance",
        "train/value_clip_fraction",
        "train/critic_grad_norm",
        "train/critic_learning_rate",
    ),
    "Completions and cost": (
        "train/completion_tokens",
        "train/completion_tokens_max",
        "train/truncated",
        "train/grader_timeout",
        "train/num_tokens",
        "train/learning_rate",
        "time/step_seconds",
    ),
}
"""Headings under which the dashboard draws the metrics; what stands in none comes last."""
STABILITY = (
    "train/grad_norm_qkv",
    "train/grad_norm",
    "train/entropy",
    "train/action_prob",
    "train/kl_old",
    "train/kl_old_k3",
)
"""What tells a stable run from one that collapses: the quantities of the paper's Figure 6, and the KL divergence."""


class DiagnosticsConfig(Config):
    """Numbers that cost extra passes over the step's completions, and are measured on request alone."""

    advantage_gradients: bool = False
    """Gradient norms of the tokens with positive and with negative advantages apart: two more forward and backward
    passes per optimizer step."""
    gradient_bound: bool = False
    """The bound of Proposition 4.7 on an LCO step's gradient norm, with the Jacobian's largest singular value from
    power iterations: about a dozen more passes per optimizer step."""
