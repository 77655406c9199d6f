"""Rollouts -> a `Batch`: the frozen models score the sampled ids, and advantages are made of what they say."""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from lco import distributed
from lco.advantage_config import DpoAdvantage, DpoRatioAdvantage, LogprobAdvantage, SampledAdvantage
from lco.advantages import (
    batch_scaled,
    dense_dpo,
    dense_logprob,
    group_centered,
    group_normalized,
    leave_one_out,
    log_mass_outside,
    overlong_penalty,
    reference_kl_advantages,
    shift_and_divisor,
    sparse,
    sparse_fill,
    top_k_support,
    z_scored,
)
from lco.algorithms import (
    Algorithm,
    LcoConfig,
    LcoKld,
    LcoLch,
    LcoLogitConfig,
    LcoMse,
    TopKSupport,
    TrainConfig,
)
from lco.baselines import (
    ClipCov,
    Dapo,
    DistillationConfig,
    KlCov,
    MiniLlm,
    PolicyGradientConfig,
    ReinforcePlusPlus,
    Rloo,
)
from lco.distillation import later_log_ratios
from lco.log_probs import action_log_probs
from lco.policy import Policy, check_same_tokenizer, have_same_weights, load_policy, load_reward_model
from lco.policy_gradients import marked_tokens, sequence_sums
from lco.rollout import Batch, Rollout, Support, sequence_tensors
from lco.seeds import derived_seed, uniforms


class Estimator:
    """Scores rollouts with the behaviour policy and the frozen models, and estimates advantages."""

    def __init__(self, config: TrainConfig, policy: Policy) -> None:
        """Loads the frozen models that the advantage and the algorithm need.

        Raises:
            ValueError: a model is missing, has another tokenizer, or was tuned with another beta than stated.
        """
        self.config = config
        self.policy = policy
        self.algorithm: Algorithm = config.algorithm
        self.beta_dpo = 0.0
        self._reward_model, self._reference = self._load_frozen()
        self._initial: Policy | None = None
        advantage = config.algorithm.advantage
        for model, what in ((self._reward_model, "reward_model"), (self._reference, "reward_model's reference")):
            if model is not None:
                check_same_tokenizer(policy, model, f"algorithm.advantage.{what}")
        needs_initial = isinstance(advantage, DpoAdvantage) and advantage.reference_kl > 0
        if needs_initial or getattr(config.algorithm, "kl_weight", 0.0) > 0:
            initial = load_policy(Path(config.policy), config)
            is_shared = self._reference is not None and have_same_weights(initial, self._reference)
            self._initial = self._reference if is_shared else initial

    @property
    def has_reference(self) -> bool:
        """Whether the starting policy scores the sampled tokens: the mean log-ratio is then KL(pi_old || pi_0)."""
        return self._initial is not None

    def _load_frozen(self) -> tuple[Policy | None, Policy | None]:
        """The advantage's model and, for a DPO reward model, its reference; settles beta from the manifest."""
        advantage = self.algorithm.advantage
        if isinstance(advantage, LogprobAdvantage):
            return load_policy(Path(advantage.reward_model), self.config), None
        if not isinstance(advantage, DpoAdvantage | DpoRatioAdvantage):
            return None, None
        reward_model = load_reward_model(Path(advantage.reward_model), self.config)
        self.beta_dpo = reward_model.beta_dpo
        if advantage.beta_dpo not in ("manifest", self.beta_dpo):
            raise ValueError(
                f"algorithm.advantage.beta_dpo: {advantage.beta_dpo} is not the {self.beta_dpo} of the reward model"
            )
        if isinstance(self.algorithm, LcoConfig) and self.algorithm.beta == "beta-dpo":
            self.algorithm = self.algorithm.model_copy(update={"beta": self.beta_dpo})
        return reward_model.policy, reward_model.reference

    @torch.no_grad()
    def batch(self, rollouts: list[Rollout], iteration: int = 0) -> Batch:
        """The rollouts of one iteration as one batch, with behaviour log-probabilities and advantages."""
        pieces = distributed.cut(rollouts, self.config.micro_batch_size)
        parts = distributed.gather([self._scored(piece) for piece in distributed.share(pieces)])
        batch = _joined(parts, rollouts, self.policy.device)
        algorithm = self.algorithm
        if isinstance(algorithm.advantage, SampledAdvantage):
            batch.advantages_N = self._sampled(algorithm.advantage, rollouts, batch)
        if isinstance(algorithm, MiniLlm):
            batch.advantages_N = later_log_ratios(
                batch.advantages_N - batch.behaviour_logprobs_N,
                batch.num_tokens_B,
                is_inclusive=not algorithm.single_step,
                length_normalized=algorithm.length_normalized,
            )
        if isinstance(algorithm, PolicyGradientConfig) and algorithm.whiten:
            batch.advantages_N = z_scored(batch.advantages_N)
        if isinstance(algorithm, Dapo) and algorithm.overlong_filter:
            batch.is_kept_B = torch.tensor(
                [not rollout.is_truncated for rollout in rollouts], device=self.policy.device
            )
        if isinstance(algorithm, ClipCov | KlCov):
            draw = uniforms([derived_seed(self.config.seed, "marked", iteration)], len(batch.actions_N))[0]
            uniforms_N = torch.from_numpy(draw).to(self.policy.device)
            batch.is_marked_N = marked_tokens(batch.behaviour_logprobs_N, batch.advantages_N, algorithm, uniforms_N)
        if isinstance(algorithm, LcoConfig):
            support = batch.support
            assert support is not None
            if isinstance(algorithm.advantage, SampledAdvantage):
                self._spread(batch, support, algorithm)
            shift_N1, divisor_N1 = shift_and_divisor(
                support.advantages_NK,
                support.valid_NK,
                center=algorithm.center,
                scale=algorithm.scale,
                std_floor=algorithm.std_floor,
            )
            support.advantages_NK = (support.advantages_NK - shift_N1) / divisor_N1
            support.tail_advantages_N = (support.tail_advantages_N - shift_N1[:, 0]) / divisor_N1[:, 0]
        return batch

    def _sampled(self, advantage: SampledAdvantage, rollouts: list[Rollout], batch: Batch) -> Tensor:
        """The advantage of each sampled token from its completion's reward, or from its own DPO ratio, `[N]`."""
        algorithm, num_tokens_B = self.algorithm, batch.num_tokens_B
        kl_N = batch.behaviour_logprobs_N - batch.reference_logprobs_N
        if isinstance(advantage, DpoRatioAdvantage) and advantage.credit == "token":
            advantages_N = batch.advantages_N
        else:
            if isinstance(advantage, DpoRatioAdvantage):
                rewards_B = completion_ratios(batch.advantages_N, num_tokens_B, advantage.credit)
            else:
                rewards_B = torch.tensor([rollout.reward for rollout in rollouts], device=self.policy.device)
            if isinstance(algorithm, Rloo) and algorithm.kl_weight > 0:
                rewards_B = rewards_B - algorithm.kl_weight * sequence_sums(kl_N, num_tokens_B)
            if isinstance(algorithm, Dapo):
                max_tokens = self.config.sampling.max_tokens
                rewards_B = rewards_B + overlong_penalty(num_tokens_B, max_tokens, algorithm.overlong_share)
            advantages_N = self._compared(advantage, rewards_B).repeat_interleave(num_tokens_B)
        if isinstance(algorithm, ReinforcePlusPlus) and algorithm.kl_weight > 0:
            to_come_N = later_log_ratios(kl_N, num_tokens_B, is_inclusive=True, length_normalized=False)
            advantages_N = advantages_N - algorithm.kl_weight * to_come_N
        return advantages_N

    def _compared(self, advantage: SampledAdvantage, rewards_B: Tensor) -> Tensor:
        """The advantage of each completion from the rewards of all, `[B]`."""
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

    def _spread(self, batch: Batch, support: Support, algorithm: LcoConfig) -> None:
        """Puts sampled-token advantages onto the support."""
        sampled_N, others_N = sparse_fill(batch.advantages_N, batch.behaviour_logprobs_N, algorithm.sparse_fill)
        if support.ids_NK is None:
            vocab_size = support.behaviour_logits_NK.shape[1]
            support.advantages_NK = sparse(batch.actions_N, sampled_N - others_N, vocab_size) + others_N[:, None]
        else:
            is_action_NK = support.ids_NK == batch.actions_N[:, None]
            support.advantages_NK = torch.where(is_action_NK, sampled_N[:, None], others_N[:, None])
        support.tail_advantages_N = others_N

    def _scored(self, rollouts: list[Rollout]) -> "_Scored":
        inputs = sequence_tensors(
            [r.prompt_ids for r in rollouts], [r.completion_ids for r in rollouts], self.policy.device
        )
        ids_BT, attention_mask_BT, mask_BT, actions_N = inputs
        seen: dict[int, Tensor] = {}

        def logits_of(policy: Policy) -> Tensor:
            if id(policy) not in seen:
                seen[id(policy)] = policy.token_logits(ids_BT, attention_mask_BT, mask_BT)
            return seen[id(policy)]

        behaviour_NV = logits_of(self.policy)
        behaviour_logprobs_N = action_log_probs(behaviour_NV, actions_N)
        reference_logprobs_N = torch.zeros_like(behaviour_logprobs_N)
        if self._initial is not None:
            reference_logprobs_N = action_log_probs(logits_of(self._initial), actions_N)
        dense_NV = None
        advantages_N = torch.zeros_like(behaviour_logprobs_N)
        advantage = self.algorithm.advantage
        if isinstance(advantage, DpoAdvantage):
            assert self._reward_model is not None and self._reference is not None
            dense_NV = dense_dpo(logits_of(self._reward_model), logits_of(self._reference), self.beta_dpo)
            if self._initial is not None and advantage.reference_kl > 0:
                weight = advantage.reference_kl * self.beta_dpo
                dense_NV = dense_NV + reference_kl_advantages(behaviour_NV, logits_of(self._initial), weight)
        elif isinstance(advantage, DpoRatioAdvantage):
            assert self._reward_model is not None and self._reference is not None
            tuned_N, kept_N = (
                action_log_probs(logits_of(model), actions_N) for model in (self._reward_model, self._reference)
            )
            advantages_N = self.beta_dpo * (tuned_N - kept_N)
        elif isinstance(advantage, LogprobAdvantage):
            assert self._reward_model is not None
            dense_NV = dense_logprob(logits_of(self._reward_model))
        if dense_NV is not None:
            advantages_N = dense_NV.gather(1, actions_N[:, None])[:, 0]
        support = None
        if isinstance(self.algorithm, LcoConfig | DistillationConfig):
            reward_NV = None if self._reward_model is None else logits_of(self._reward_model)
            initial_NV = None if self._initial is None else logits_of(self._initial)
            reference_NV = None if self._reference is None else logits_of(self._reference)
            frozen = _Frozen(behaviour_NV, reward_NV, reference_NV, initial_NV)
            support = self._support(self.algorithm, frozen, dense_NV, actions_N)
        return _Scored(actions_N, behaviour_logprobs_N, reference_logprobs_N, advantages_N, support)

    def _support(
        self, algorithm: LcoConfig | DistillationConfig, frozen: "_Frozen", dense_NV: Tensor | None, actions_N: Tensor
    ) -> Support:
        behaviour_NV = frozen.behaviour_NV
        ids_NK = valid_NK = None
        if isinstance(algorithm, LcoKld | LcoLch | LcoMse) and isinstance(algorithm.support, TopKSupport):
            candidates = [behaviour_NV] if algorithm.support.source in ("policy", "union") else []
            if algorithm.support.source in ("reward-model", "union"):
                assert frozen.reward_NV is not None
                candidates.append(frozen.reward_NV)
            ids_NK, valid_NK = top_k_support(candidates, algorithm.support.k, actions_N)
        advantages_NV = torch.zeros_like(behaviour_NV) if dense_NV is None else dense_NV
        is_agreed_N = torch.zeros_like(actions_N, dtype=torch.bool)
        if isinstance(algorithm, LcoLogitConfig) and algorithm.gate_threshold < 0:
            assert frozen.reward_NV is not None
            surest_N = torch.minimum(
                action_log_probs(behaviour_NV, actions_N), action_log_probs(frozen.reward_NV, actions_N)
            )
            is_agreed_N = surest_N > algorithm.gate_threshold
        return Support(
            ids_NK=ids_NK,
            valid_NK=valid_NK,
            behaviour_logits_NK=behaviour_NV if ids_NK is None else behaviour_NV.gather(1, ids_NK),
            advantages_NK=advantages_NV if ids_NK is None else advantages_NV.gather(1, ids_NK),
            behaviour_logsumexp_N=behaviour_NV.logsumexp(-1),
            behaviour_max_N=behaviour_NV.amax(-1),
            tail_advantages_N=self._tail(frozen, ids_NK, valid_NK, actions_N),
            is_agreed_N=is_agreed_N,
        )

    def _tail(self, frozen: "_Frozen", ids_NK: Tensor | None, valid_NK: Tensor | None, actions_N: Tensor) -> Tensor:
        """The one advantage of everything outside a top-k support: that of the tail's mass as a whole."""
        tail_N = torch.zeros(len(actions_N), device=actions_N.device)
        if ids_NK is None or valid_NK is None or isinstance(self.algorithm.advantage, SampledAdvantage):
            return tail_N

        def log_tail(logits_NV: Tensor) -> Tensor:
            outside_N = log_mass_outside(logits_NV.log_softmax(-1), ids_NK)
            return outside_N.clamp(min=torch.finfo(outside_N.dtype).min / 4)  # an empty tail stays a number

        assert frozen.reward_NV is not None
        if isinstance(self.algorithm.advantage, LogprobAdvantage):
            num_outside_N = frozen.behaviour_NV.shape[1] - valid_NK.sum(1)
            return log_tail(frozen.reward_NV) - num_outside_N.clamp(min=1).log()
        assert frozen.reference_NV is not None and isinstance(self.algorithm.advantage, DpoAdvantage)
        tail_N = self.beta_dpo * (log_tail(frozen.reward_NV) - log_tail(frozen.reference_NV))
        if frozen.initial_NV is not None:
            weight = self.algorithm.advantage.reference_kl * self.beta_dpo
            tail_N = tail_N - weight * (log_tail(frozen.behaviour_NV) - log_tail(frozen.initial_NV))
        return tail_N


def completion_ratios(ratios_N: Tensor, num_tokens_B: Tensor, credit: str) -> Tensor:
    """A completion's reward from its tokens' DPO ratios: their `sum`, `mean`, or that of the `last-token`, `[B]`."""
    if credit == "last-token":
        return ratios_N[num_tokens_B.cumsum(0) - 1]
    sums_B = sequence_sums(ratios_N, num_tokens_B)
    return sums_B / num_tokens_B if credit == "mean" else sums_B


@dataclasses.dataclass(slots=True)
class _Frozen:
    """Logits of the models that scored a micro-batch."""

    behaviour_NV: Tensor
    reward_NV: Tensor | None
    reference_NV: Tensor | None
    initial_NV: Tensor | None


@dataclasses.dataclass(slots=True)
class _Scored:
    """What is known of one micro-batch's tokens."""

    actions_N: Tensor
    behaviour_logprobs_N: Tensor
    reference_logprobs_N: Tensor
    advantages_N: Tensor
    support: Support | None


def _joined(parts: list[_Scored], rollouts: list[Rollout], device: torch.device) -> Batch:
    """One batch of all micro-batches."""
    ids_BT, attention_mask_BT, mask_BT, actions_N = sequence_tensors(
        [r.prompt_ids for r in rollouts], [r.completion_ids for r in rollouts], device
    )
    supports = [part.support for part in parts if part.support is not None]
    support = None
    if supports:
        values = {
            field.name: None
            if getattr(supports[0], field.name) is None
            else torch.cat([getattr(s, field.name) for s in supports])
            for field in dataclasses.fields(Support)
        }
        support = Support(**values)  # type: ignore[arg-type]
    return Batch(
        input_ids_BT=ids_BT,
        attention_mask_BT=attention_mask_BT,
        mask_BT=mask_BT,
        num_tokens_B=torch.tensor([len(r.completion_ids) for r in rollouts], device=device),
        actions_N=actions_N,
        weights_N=torch.zeros(len(actions_N), device=device),
        behaviour_logprobs_N=torch.cat([part.behaviour_logprobs_N for part in parts]),
        advantages_N=torch.cat([part.advantages_N for part in parts]),
        reference_logprobs_N=torch.cat([part.reference_logprobs_N for part in parts]),
        support=support,
    )
