"""Rollouts -> a `Batch` with advantages: rewards and what the frozen models say, compared, normalised, spread."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lco.advantage_config import (
    ComparedAdvantage,
    DpoRatioAdvantage,
    GaeAdvantage,
    SampledAdvantage,
    SparseAdvantage,
)
from lco.advantages import (
    batch_scaled,
    compared_known,
    compared_steps,
    group_centered,
    group_normalized,
    leave_one_out,
    overlong_penalty,
    scaling,
    shift_and_divisor,
    sparse,
    sparse_fill,
    without_outliers,
    z_scored,
)
from lco.algorithms import Algorithm, LcoConfig, LcoKld, LcoLogitConfig, TrainConfig
from lco.baselines import (
    ClipCov,
    Dapo,
    Dcpo,
    KlCov,
    MiniLlm,
    PolicyGradientConfig,
    Rloo,
    StableReinforce,
    TokenPenaltyConfig,
)
from lco.critic import Critic
from lco.decoding import MixedPolicy
from lco.diagnostics import raw_spread, support_metrics
from lco.distillation import later_log_ratios
from lco.head import chunks
from lco.log_probs import mixture_log_probs
from lco.policy import Policy
from lco.policy_gradients import marked_tokens, sequence_sums
from lco.reward_config import StepVerifier
from lco.reward_history import RewardHistory
from lco.rollout import Batch, Rollout, States, Support
from lco.scoring import Scorer, moments
from lco.seeds import derived_seed, uniforms

AdvantageFunction = Callable[[list[Rollout], Batch], Tensor]
"""Advantages of one's own: of the sampled tokens, `[N]`, or of every token of the vocabulary, `[N, V]` (LCO alone).

The batch has what is known of the N tokens so far: `behaviour_logprobs_N`, `num_tokens_B` and, for LCO, the behaviour
logits in `support.behaviour_logits_NK`. The rollouts are those of the whole iteration, their groups side by side.
"""


class Estimator:
    """Scores rollouts with the behaviour policy and the frozen models, and estimates advantages."""

    def __init__(self, config: TrainConfig, policy: Policy, advantages: AdvantageFunction | None = None) -> None:
        """Loads the frozen models that the advantage and the algorithm need.

        Args:
            advantages: takes the place of the configured estimator, which must be `sparse`.

        Raises:
            ValueError: a model is missing, has another tokenizer, or was tuned with another beta than stated.
        """
        if advantages and not isinstance(config.algorithm.advantage, SparseAdvantage):
            raise ValueError("algorithm.advantage: a function of one's own takes the place of `sparse` alone")
        self._advantages = advantages
        self.config = config
        self.policy = policy
        self.scorer = Scorer(config, policy, may_keep_states=advantages is None)
        advantage = config.algorithm.advantage
        self.critic = Critic(config, advantage, policy.memory) if isinstance(advantage, GaeAdvantage) else None
        """The critic that generalised advantages are made with; None where there is none."""
        is_smooth = isinstance(config.algorithm, Dcpo) and config.algorithm.smooth_advantages
        self._history = RewardHistory() if is_smooth else None
        self.statistics: dict[str, float] = {}
        """What the newest batch's targets report."""

    @property
    def behaviour(self) -> Policy:
        """What completions are drawn from: the policy as it stands, or MiniLLM's mixture of it with the teacher."""
        alpha = self.algorithm.teacher_mix if isinstance(self.algorithm, MiniLlm) else 0.0
        if alpha == 0:
            return self.policy
        assert self.scorer.reward_model is not None
        return MixedPolicy.of(self.policy, self.scorer.reward_model, alpha=alpha)

    def state(self) -> dict[str, Any]:
        """What the next iterations' advantages depend on beside the weights, as JSON."""
        state: dict[str, Any] = {}
        if self._history:
            state["reward_history"] = self._history.state()
        if self.critic:
            state["critic_num_skipped_in_a_row"] = self.critic.fitting.num_skipped_in_a_row
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint's `state`."""
        if self._history:
            self._history = RewardHistory(state.get("reward_history"))
        if self.critic:
            self.critic.fitting.num_skipped_in_a_row = state.get("critic_num_skipped_in_a_row", 0)

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm, its beta settled."""
        return self.scorer.algorithm

    @property
    def has_reference(self) -> bool:
        """Whether the starting policy scores the sampled tokens: the mean log-ratio is then KL(pi_old || pi_0)."""
        return self.scorer.initial is not None

    @torch.no_grad()
    def batch(self, rollouts: list[Rollout], iteration: int = 0) -> Batch:
        """The rollouts of one iteration as one batch, with behaviour log-probabilities and advantages."""
        algorithm = self.algorithm
        shown = self._demonstrations(rollouts) if isinstance(algorithm, MiniLlm) and algorithm.lm_weight > 0 else []
        batch = self.scorer.batch([*rollouts, *shown])
        advantage = algorithm.advantage
        is_dense = False
        if self._advantages:
            is_dense = self._given(self._advantages(rollouts, batch), batch)
        elif isinstance(advantage, ComparedAdvantage):
            batch.advantages_N = self._sampled(advantage, rollouts, batch)
        elif isinstance(advantage, GaeAdvantage):
            self._assess(advantage, rollouts, batch, iteration)
        if isinstance(algorithm, MiniLlm):
            self._distil(algorithm, batch, len(rollouts))
        is_known_B = self._rewarded(rollouts)
        if is_known_B is not None:
            batch.is_kept_B = is_known_B
            batch.advantages_N = batch.advantages_N.masked_fill(~is_known_B.repeat_interleave(batch.num_tokens_B), 0.0)
        if isinstance(algorithm, PolicyGradientConfig) and algorithm.whiten:
            batch.advantages_N = self._whitened(batch)
        if isinstance(algorithm, StableReinforce):
            batch.advantages_N = without_outliers(batch.advantages_N, algorithm.advantage_filter)
        if isinstance(algorithm, Dapo) and algorithm.overlong_filter:
            has_ended_B = torch.tensor([not rollout.is_truncated for rollout in rollouts], device=self.policy.device)
            batch.is_kept_B = has_ended_B if is_known_B is None else has_ended_B & is_known_B
        if isinstance(algorithm, ClipCov | KlCov):
            draw = uniforms([derived_seed(self.config.seed, "marked", iteration)], len(batch.actions_N))[0]
            uniforms_N = torch.from_numpy(draw).to(self.policy.device)
            batch.is_marked_N = marked_tokens(batch.behaviour_logprobs_N, batch.advantages_N, algorithm, uniforms_N)
        if isinstance(algorithm, LcoConfig) and batch.states is not None:
            self._scale(batch, batch.states, algorithm)
        elif isinstance(algorithm, LcoConfig):
            support = batch.support
            assert support is not None
            if isinstance(advantage, SampledAdvantage) and not is_dense:
                self._spread(batch, support, algorithm)
            self.statistics = {"train/advantage_std_steps": raw_spread(support)}
            shift_N1, divisor_N1 = shift_and_divisor(
                support.advantages_NK,
                support.valid_NK,
                center=algorithm.center,
                scale=algorithm.scale,
                std_floor=algorithm.std_floor,
            )
            support.advantages_NK = (support.advantages_NK - shift_N1) / divisor_N1
            support.tail_advantages_N = (support.tail_advantages_N - shift_N1[:, 0]) / divisor_N1[:, 0]
            self.statistics |= support_metrics(support, algorithm)
        return batch

    def _rewarded(self, rollouts: list[Rollout]) -> Tensor | None:
        """Which completions have a reward, where it is learned from; None where all have, or nothing is."""
        learned = isinstance(self.algorithm.advantage, SparseAdvantage | GaeAdvantage) and not self._advantages
        if not learned or all(rollout.reward is not None for rollout in rollouts):
            return None
        return torch.tensor([rollout.reward is not None for rollout in rollouts], device=self.policy.device)

    @staticmethod
    def _whitened(batch: Batch) -> Tensor:
        """The z-scores of the advantages of the sequences that are kept, 0 elsewhere."""
        if batch.is_kept_B is None or not bool(batch.is_kept_B.any()):
            return z_scored(batch.advantages_N)
        is_kept_N = batch.is_kept_B.repeat_interleave(batch.num_tokens_B)
        whitened_N = torch.zeros_like(batch.advantages_N)
        whitened_N[is_kept_N] = z_scored(batch.advantages_N[is_kept_N])
        return whitened_N

    def _given(self, advantages: Tensor, batch: Batch) -> bool:
        """Takes over the advantages of a function of one's own; whether they are of the whole vocabulary.

        Raises:
            ValueError: they have another shape, or are dense where the algorithm reads or knows no such thing.
        """
        count, support = len(batch.actions_N), batch.support
        advantages = advantages.to(batch.advantages_N)
        if advantages.shape == (count,):
            batch.advantages_N = advantages
            return False
        if advantages.shape != (count, self.policy.vocab_size):
            raise ValueError(
                f"advantages: {tuple(advantages.shape)} is neither ({count},) nor ({count}, {self.policy.vocab_size})"
            )
        batch.advantages_N = advantages.gather(1, batch.actions_N[:, None])[:, 0]
        if support is None:
            raise ValueError("advantages: those of a whole vocabulary are for the LCO algorithms")
        if support.ids_NK is not None and isinstance(self.algorithm, LcoKld):
            raise ValueError("advantages: those of a whole vocabulary need the `full` support for lco-kld")
        support.advantages_NK = advantages if support.ids_NK is None else advantages.gather(1, support.ids_NK)
        return True

    def _demonstrations(self, rollouts: list[Rollout]) -> list[Rollout]:
        """The demonstration of each completion's prompt."""
        shown = []
        for rollout in rollouts:
            if not rollout.prompt.demonstration:
                raise ValueError(f"algorithm.lm_weight: the prompt {rollout.prompt.id} has no demonstration")
            ids = self.policy.encode_completion(rollout.prompt.demonstration)
            self.policy.check_fits(rollout.prompt_ids, ids, f"algorithm.lm_weight: the prompt {rollout.prompt.id}")
            text = rollout.prompt.demonstration
            shown.append(dataclasses.replace(rollout, completion_ids=ids, completion=text, is_truncated=False))
        return shown

    def _distil(self, algorithm: MiniLlm, batch: Batch, num_completions: int) -> None:
        """MiniLLM's advantages and importance weights; further sequences than the completions are demonstrations."""
        old_N, teacher_N = batch.behaviour_logprobs_N, batch.advantages_N
        batch.advantages_N = later_log_ratios(
            teacher_N - old_N,
            batch.num_tokens_B,
            is_inclusive=not algorithm.single_step,
            length_normalized=algorithm.length_normalized,
        )
        if algorithm.teacher_mix > 0:
            batch.importance_N = (old_N - mixture_log_probs(old_N, teacher_N, algorithm.teacher_mix)).exp()
        if len(batch.num_tokens_B) > num_completions:
            batch.is_demonstration_B = torch.arange(len(batch.num_tokens_B), device=old_N.device) >= num_completions
            is_shown_N = batch.is_demonstration_B.repeat_interleave(batch.num_tokens_B)
            batch.advantages_N = batch.advantages_N.masked_fill(is_shown_N, 0.0)

    def _assess(self, advantage: GaeAdvantage, rollouts: list[Rollout], batch: Batch, iteration: int) -> None:
        """Values, returns and generalised advantages of the rewards less the penalty of each token."""
        assert self.critic is not None
        rewards_N = -advantage.kl_weight * (batch.behaviour_logprobs_N - batch.reference_logprobs_N)
        device = self.policy.device
        last_B = batch.num_tokens_B.cumsum(0) - 1
        if isinstance(self.config.reward, StepVerifier):
            rewards_S, tokens_S = _steps(rollouts, device)
            rewards_N[tokens_S.cumsum(0) - 1] += rewards_S
        else:
            rewards_N[last_B] += torch.tensor([rollout.reward or 0.0 for rollout in rollouts], device=device)
        is_truncated_B = torch.tensor([rollout.is_truncated for rollout in rollouts], device=device)
        self.critic.assess(batch, rewards_N, is_truncated_B, iteration)

    def _sampled(self, advantage: ComparedAdvantage, rollouts: list[Rollout], batch: Batch) -> Tensor:
        """The advantage of each sampled token from its completion's reward, or from its own DPO ratio, `[N]`."""
        algorithm, num_tokens_B = self.algorithm, batch.num_tokens_B
        kl_N = batch.behaviour_logprobs_N - batch.reference_logprobs_N
        if isinstance(advantage, DpoRatioAdvantage) and advantage.credit == "token":
            advantages_N = batch.advantages_N
        elif isinstance(advantage, SparseAdvantage) and isinstance(self.config.reward, StepVerifier):
            advantages_N = self._stepwise(advantage, self.config.reward, rollouts)
        else:
            if isinstance(advantage, DpoRatioAdvantage):
                rewards_B = completion_ratios(batch.advantages_N, num_tokens_B, advantage.credit)
            else:
                rewards = [math.nan if rollout.reward is None else rollout.reward for rollout in rollouts]
                rewards_B = torch.tensor(rewards, device=self.policy.device)
            if isinstance(algorithm, Rloo) and algorithm.kl_weight > 0:
                rewards_B = rewards_B - algorithm.kl_weight * sequence_sums(kl_N, num_tokens_B)
            if isinstance(algorithm, Dapo):
                max_tokens = self.config.sampling.max_tokens
                rewards_B = rewards_B + overlong_penalty(num_tokens_B, max_tokens, algorithm.overlong_share)
            advantages_B = (
                self._smoothed(self._history, rollouts, rewards_B)
                if self._history
                else self._compared(advantage, rewards_B)
            )
            advantages_N = advantages_B.repeat_interleave(num_tokens_B)
        if isinstance(algorithm, TokenPenaltyConfig) and algorithm.kl_weight > 0:
            to_come_N = later_log_ratios(kl_N, num_tokens_B, is_inclusive=True, length_normalized=False)
            advantages_N = advantages_N - algorithm.kl_weight * to_come_N
        return advantages_N

    def _stepwise(self, advantage: SparseAdvantage, reward: StepVerifier, rollouts: list[Rollout]) -> Tensor:
        """The advantage of each token from its step's reward, or from that and all later ones, `[N]`."""
        device = self.policy.device
        rewards_S, tokens_S = _steps(rollouts, device)
        num_steps_B = torch.tensor([len(rollout.step_rewards) for rollout in rollouts], device=device)
        groups_B = torch.arange(len(rollouts), device=device) // self.config.group_size
        advantages_S = compared_steps(rewards_S, groups_B.repeat_interleave(num_steps_B), advantage.estimator)
        if reward.credit == "later":
            advantages_S = later_log_ratios(advantages_S, num_steps_B, is_inclusive=True, length_normalized=False)
        return advantages_S.repeat_interleave(tokens_S)

    def _smoothed(self, history: RewardHistory, rollouts: list[Rollout], rewards_B: Tensor) -> Tensor:
        """DCPO's advantages of each completion, which then belong to the prompts' history, `[B]`."""
        size, rewards = self.config.group_size, rewards_B.tolist()
        advantages: list[float] = []
        for start in range(0, len(rollouts), size):
            group = rewards[start : start + size]
            known = [reward for reward in group if not math.isnan(reward)]
            found = iter(history.smoothed(rollouts[start].prompt.id, known) if known else ())
            advantages += [0.0 if math.isnan(reward) else next(found) for reward in group]
        return torch.tensor(advantages, device=rewards_B.device)

    def _compared(self, advantage: ComparedAdvantage, rewards_B: Tensor) -> Tensor:
        """The advantage of each completion from the rewards of all, `[B]`; NaN stands for one that is missing."""
        if bool(rewards_B.isnan().any()):
            return compared_known(rewards_B, self.config.group_size, advantage.estimator)
        match advantage.estimator:
            case "group-normalized":
                return group_normalized(rewards_B, self.config.group_size)
            case "group-centered":
                return group_centered(rewards_B, self.config.group_size)
            case "batch-scaled":
                return batch_scaled(rewards_B, self.config.group_size)
            case "leave-one-out":
                return leave_one_out(rewards_B, self.config.group_size)
            case "batch-normalized":
                return z_scored(rewards_B)
            case "reward":
                return rewards_B

    def _scale(self, batch: Batch, states: States, algorithm: LcoConfig) -> None:
        """Settles how the advantages of kept states will be normalised."""
        if isinstance(algorithm.advantage, SampledAdvantage):
            vocab_size = self.policy.vocab_size
            found = []
            for rows in chunks(len(batch.actions_N), self.config.loss_chunk_tokens):
                some = batch.tokens(rows)
                found.append(moments(_over_vocabulary(some, algorithm, vocab_size)[0]))
            for name in found[0]:
                setattr(states, name, torch.cat([part[name] for part in found]))
        ones_N = torch.ones_like(states.std_N)
        states.shift_N, states.divisor_N = scaling(
            states.mean_N,
            states.std_N,
            ones_N,
            center=algorithm.center,
            scale=algorithm.scale,
            std_floor=algorithm.std_floor,
        )
        furthest_N = torch.maximum(
            (states.largest_N - states.shift_N).abs(), (states.smallest_N - states.shift_N).abs()
        )
        self.statistics = {
            "train/advantage_std_steps": states.std_N.mean().item(),
            "train/advantage_max": (furthest_N / states.divisor_N).max().item(),
        }
        if isinstance(algorithm, LcoLogitConfig) and algorithm.gate_threshold < 0:
            self.statistics["train/gated"] = states.is_agreed_N.double().mean().item()

    @torch.no_grad()
    def prepared(self, batch: Batch) -> Batch:
        """The batch with its support: as it is, or made of the states that are kept in its place."""
        states = batch.states
        if states is None:
            return batch
        support = self.scorer.support(batch)
        batch = replace(batch, support=support, states=None)
        if isinstance(self.algorithm, LcoConfig):
            if isinstance(self.algorithm.advantage, SampledAdvantage):
                self._spread(batch, support, self.algorithm)
            support.advantages_NK = (support.advantages_NK - states.shift_N[:, None]) / states.divisor_N[:, None]
        return batch

    def _spread(self, batch: Batch, support: Support, algorithm: LcoConfig) -> None:
        """Puts sampled-token advantages onto the support."""
        if support.ids_NK is None:
            vocab_size = support.behaviour_logits_NK.shape[1]
            support.advantages_NK, others_N = _over_vocabulary(batch, algorithm, vocab_size)
        else:
            sampled_N, others_N = sparse_fill(batch.advantages_N, batch.behaviour_logprobs_N, algorithm.sparse_fill)
            is_action_NK = support.ids_NK == batch.actions_N[:, None]
            support.advantages_NK = torch.where(is_action_NK, sampled_N[:, None], others_N[:, None])
        support.tail_advantages_N = others_N


def _over_vocabulary(batch: Batch, algorithm: LcoConfig, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Sampled-token advantages over the vocabulary, `[N, V]`, and that of the tokens not sampled, `[N]`."""
    sampled_N, others_N = sparse_fill(batch.advantages_N, batch.behaviour_logprobs_N, algorithm.sparse_fill)
    return sparse(batch.actions_N, sampled_N - others_N, vocab_size) + others_N[:, None], others_N


def _steps(rollouts: list[Rollout], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rewards and numbers of tokens of all steps of all completions, `[S]` each."""
    rewards = [reward for rollout in rollouts for reward in rollout.step_rewards]
    tokens = [count for rollout in rollouts for count in rollout.step_tokens]
    return torch.tensor(rewards, device=device), torch.tensor(tokens, device=device)


def completion_ratios(ratios_N: Tensor, num_tokens_B: Tensor, credit: str) -> Tensor:
    """A completion's reward from its tokens' DPO ratios: their `sum`, `mean`, or that of the `last-token`, `[B]`."""
    if credit == "last-token":
        return ratios_N[num_tokens_B.cumsum(0) - 1]
    sums_B = sequence_sums(ratios_N, num_tokens_B)
    return sums_B / num_tokens_B if credit == "mean" else sums_B
