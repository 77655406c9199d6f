"""Rollouts -> what the frozen models say of them: log-probabilities, dense advantages and their support."""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from lco import distributed
from lco.advantage_config import DpoAdvantage, DpoRatioAdvantage, GaeAdvantage, LogprobAdvantage, SampledAdvantage
from lco.advantages import dense_dpo, dense_logprob, log_mass_outside, reference_kl_advantages, top_k_support
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
from lco.baselines import DistillationConfig
from lco.log_probs import action_log_probs
from lco.memory import limits_of
from lco.policy import Policy, check_same_tokenizer, have_same_weights, load_frozen
from lco.reward_model import load_reward_model
from lco.rollout import Batch, Rollout, Support, sequence_tensors


class Scorer:
    """The behaviour policy and the frozen models that an algorithm needs, scoring sampled ids."""

    def __init__(self, config: TrainConfig, policy: Policy) -> None:
        """Loads the frozen models that the advantage and the algorithm need.

        Raises:
            ValueError: a model is missing, has another tokenizer, or was tuned with another beta than stated.
        """
        self.config = config
        self.policy = policy
        self.algorithm: Algorithm = config.algorithm
        self.beta_dpo = 0.0
        self.reward_model, self.reference = self._load_frozen()
        self.initial: Policy | None = None
        advantage = config.algorithm.advantage
        for model, what in ((self.reward_model, "reward_model"), (self.reference, "reward_model's reference")):
            if model is not None:
                check_same_tokenizer(policy, model, f"algorithm.advantage.{what}")
        has_pull = isinstance(advantage, DpoAdvantage) and advantage.reference_kl > 0
        has_penalty = isinstance(advantage, GaeAdvantage) and advantage.kl_weight > 0
        if has_pull or has_penalty or getattr(config.algorithm, "kl_weight", 0.0) > 0:
            initial = policy.base if policy.has_adapter else load_frozen(Path(config.policy), config)
            is_shared = self.reference is not None and have_same_weights(initial, self.reference)
            if is_shared and policy.has_adapter:
                self.reference = initial  # the reward model's copy is let go
            self.initial = self.reference if is_shared else initial

    def _load_frozen(self) -> tuple[Policy | None, Policy | None]:
        """The advantage's model and, for a DPO reward model, its reference; settles beta from the manifest."""
        advantage = self.algorithm.advantage
        if isinstance(advantage, LogprobAdvantage):
            return load_frozen(Path(advantage.reward_model), self.config), None
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
    def batch(self, rollouts: list[Rollout]) -> Batch:
        """The rollouts as one batch; of advantages, it has those that the frozen models give, not yet normalised.

        Processes share the scoring, and all have the whole batch: advantages are compared over all of it.
        """
        pieces = distributed.cut(rollouts, self.config.micro_batch_size)
        parts = distributed.gather([self._fitting(piece) for piece in distributed.share(pieces)])
        return _joined([scored for part in parts for scored in part], rollouts, self.policy.device)

    def _fitting(self, rollouts: list[Rollout]) -> "list[_Scored]":
        """The rollouts, scored as many at once as are allowed and fit."""
        lengths = [len(rollout.prompt_ids) + len(rollout.completion_ids) for rollout in rollouts]

        def scored(piece: range) -> _Scored:
            return self._scored([rollouts[position] for position in piece])

        return self.policy.memory.each("scoring", lengths, limits_of(self.config), scored)

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
        if self.initial is not None:
            reference_logprobs_N = action_log_probs(logits_of(self.initial), actions_N)
        dense_NV = None
        advantages_N = torch.zeros_like(behaviour_logprobs_N)
        advantage = self.algorithm.advantage
        if isinstance(advantage, DpoAdvantage):
            assert self.reward_model is not None and self.reference is not None
            dense_NV = dense_dpo(logits_of(self.reward_model), logits_of(self.reference), self.beta_dpo)
            if self.initial is not None and advantage.reference_kl > 0:
                weight = advantage.reference_kl * self.beta_dpo
                dense_NV = dense_NV + reference_kl_advantages(behaviour_NV, logits_of(self.initial), weight)
        elif isinstance(advantage, DpoRatioAdvantage):
            assert self.reward_model is not None and self.reference is not None
            tuned_N, kept_N = (
                action_log_probs(logits_of(model), actions_N) for model in (self.reward_model, self.reference)
            )
            advantages_N = self.beta_dpo * (tuned_N - kept_N)
        elif isinstance(advantage, LogprobAdvantage):
            assert self.reward_model is not None
            dense_NV = dense_logprob(logits_of(self.reward_model))
        if dense_NV is not None:
            advantages_N = dense_NV.gather(1, actions_N[:, None])[:, 0]
        support = None
        if isinstance(self.algorithm, LcoConfig | DistillationConfig):
            reward_NV = None if self.reward_model is None else logits_of(self.reward_model)
            initial_NV = None if self.initial is None else logits_of(self.initial)
            reference_NV = None if self.reference is None else logits_of(self.reference)
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
