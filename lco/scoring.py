"""Rollouts -> what the frozen models say of them: log-probabilities, dense advantages and their support."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lco import distributed
from lco.advantage_config import DpoAdvantage, DpoRatioAdvantage, GaeAdvantage, LogprobAdvantage, SampledAdvantage
from lco.advantages import (
    dense_dpo,
    dense_logprob,
    log_mass_outside,
    reference_kl_advantages,
    support_moments,
    top_k_support,
)
from lco.algorithms import (
    Algorithm,
    FullSupport,
    LcoConfig,
    LcoKld,
    LcoLch,
    LcoLogitConfig,
    LcoMse,
    TopKSupport,
    TrainConfig,
)
from lco.baselines import DistillationConfig
from lco.head import chunks
from lco.log_probs import action_log_probs
from lco.memory import limits_of
from lco.policy import Policy, check_same_tokenizer, have_same_weights, load_frozen
from lco.reward_model import load_reward_model
from lco.rollout import Batch, Rollout, States, Support, joined, selected, sequence_tensors


class Scorer:
    """The behaviour policy and the frozen models that an algorithm needs, scoring sampled ids."""

    def __init__(self, config: TrainConfig, policy: Policy, *, may_keep_states: bool = True) -> None:
        """Loads the frozen models that the advantage and the algorithm need.

        Args:
            may_keep_states: False where somebody reads supports of the whole vocabulary at once.

        Raises:
            ValueError: a model is missing, has another tokenizer, or was tuned with another beta than stated.
        """
        self.config = config
        self._may_keep_states = may_keep_states
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
        if config.loss_chunk_tokens:
            for model in (self.reward_model, self.reference, self.initial):
                if model is not None:
                    model.check_head()

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
        batch = _joined([scored for part in parts for scored in part], rollouts, self.policy.device)
        steps = self.config.inner_epochs * self.config.steps_per_epoch
        if batch.states is not None and steps > 1 and (head := self.policy.head()).weight_VH.requires_grad:
            weight_VH, bias_V = head.cast()
            batch.states.head_VH = weight_VH.detach().clone()
            batch.states.head_bias_V = None if bias_V is None else bias_V.detach().clone()
        return batch

    @property
    def _keeps_states(self) -> bool:
        """Whether supports are made when they are needed: over the whole vocabulary, some tokens at a time."""
        algorithm = self.algorithm
        is_full = isinstance(algorithm, DistillationConfig) or isinstance(
            getattr(algorithm, "support", None), FullSupport
        )
        return self.config.loss_chunk_tokens > 0 and is_full and self._may_keep_states

    @torch.no_grad()
    def support(self, batch: Batch) -> Support:
        """The support of tokens whose states are kept; advantages not yet normalised."""
        states = batch.states
        assert states is not None and isinstance(self.algorithm, LcoConfig | DistillationConfig)
        frozen = self._logits(states)
        return self._support(self.algorithm, frozen, self._dense(frozen), batch.actions_N)

    def _logits(self, states: States) -> "_Frozen":
        def of(model: Policy | None, hidden_NH: Tensor | None) -> Tensor | None:
            return None if model is None or hidden_NH is None else model.head().logits(hidden_NH)

        head = self.policy.head()
        if states.head_VH is not None:
            head = dataclasses.replace(head, weight_VH=states.head_VH, bias_V=states.head_bias_V)
        reference_NV = of(self.reference, states.reference_NH)
        return _Frozen(
            head.logits(states.behaviour_NH),
            of(self.reward_model, states.reward_NH),
            reference_NV,
            reference_NV if self.initial is self.reference else of(self.initial, states.initial_NH),
        )

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
        *places, actions_N = inputs
        if not self.config.loss_chunk_tokens:
            return self._told(_Frozen(*self._asked(lambda model: model.token_logits(*places))), actions_N)
        hidden = self._asked(lambda model: model.hidden_states(*places).to(model.head().products))
        if self.initial is self.reference:
            hidden = (*hidden[:3], None)
        num_tokens = len(actions_N)
        zero_N = torch.zeros(num_tokens, device=actions_N.device)
        is_agreed_N = torch.zeros_like(actions_N, dtype=torch.bool)
        states = States(
            behaviour_NH=hidden[0],
            reward_NH=hidden[1],
            reference_NH=hidden[2],
            initial_NH=hidden[3],
            mean_N=zero_N,
            std_N=zero_N,
            largest_N=zero_N,
            smallest_N=zero_N,
            is_agreed_N=is_agreed_N,
            shift_N=zero_N,
            divisor_N=zero_N + 1,
        )
        parts = []
        for rows in chunks(num_tokens, self.config.loss_chunk_tokens):
            some = selected(states, rows)
            part = self._told(self._logits(some), actions_N[rows])
            if self._keeps_states:
                assert part.support is not None
                part.states = dataclasses.replace(
                    some, **moments(part.support.advantages_NK), is_agreed_N=part.support.is_agreed_N
                )
                part.support = None
            parts.append(part)
        return _merged(parts)

    def _asked(self, read: Callable[[Policy], Tensor]) -> "tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]":
        """What is read of the policy, the reward model, the reference and the starting policy; of each model once."""
        seen: dict[int, Tensor] = {}

        def of(model: Policy | None) -> Tensor | None:
            if model is None:
                return None
            if id(model) not in seen:
                seen[id(model)] = read(model)
            return seen[id(model)]

        return read(self.policy), of(self.reward_model), of(self.reference), of(self.initial)

    def _dense(self, frozen: "_Frozen") -> Tensor | None:
        """Advantages over the vocabulary, where a model gives them, `[N, V]`."""
        advantage = self.algorithm.advantage
        if isinstance(advantage, LogprobAdvantage):
            assert frozen.reward_NV is not None
            return dense_logprob(frozen.reward_NV)
        if not isinstance(advantage, DpoAdvantage):
            return None
        assert frozen.reward_NV is not None and frozen.reference_NV is not None
        dense_NV = dense_dpo(frozen.reward_NV, frozen.reference_NV, self.beta_dpo)
        if frozen.initial_NV is not None and advantage.reference_kl > 0:
            weight = advantage.reference_kl * self.beta_dpo
            dense_NV = dense_NV + reference_kl_advantages(frozen.behaviour_NV, frozen.initial_NV, weight)
        return dense_NV

    def _told(self, frozen: "_Frozen", actions_N: Tensor) -> "_Scored":
        """What the models' logits say of the tokens."""
        behaviour_logprobs_N = action_log_probs(frozen.behaviour_NV, actions_N)
        reference_logprobs_N = torch.zeros_like(behaviour_logprobs_N)
        if frozen.initial_NV is not None:
            reference_logprobs_N = action_log_probs(frozen.initial_NV, actions_N)
        advantages_N = torch.zeros_like(behaviour_logprobs_N)
        dense_NV = self._dense(frozen)
        if dense_NV is not None:
            advantages_N = dense_NV.gather(1, actions_N[:, None])[:, 0]
        elif isinstance(self.algorithm.advantage, DpoRatioAdvantage):
            assert frozen.reward_NV is not None and frozen.reference_NV is not None
            tuned_N, kept_N = (action_log_probs(z, actions_N) for z in (frozen.reward_NV, frozen.reference_NV))
            advantages_N = self.beta_dpo * (tuned_N - kept_N)
        support = None
        if isinstance(self.algorithm, LcoConfig | DistillationConfig):
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
    states: States | None = None


def moments(advantages_NV: Tensor) -> dict[str, Tensor]:
    """Mean, deviation and extremes of each token's advantages over the vocabulary, named as in `States`."""
    mean_N1, std_N1 = support_moments(advantages_NV, None)
    return {
        "mean_N": mean_N1[:, 0],
        "std_N": std_N1[:, 0],
        "largest_N": advantages_NV.amax(-1),
        "smallest_N": advantages_NV.amin(-1),
    }


def _merged(parts: list[_Scored]) -> _Scored:
    """The tokens of all parts."""
    supports = [part.support for part in parts if part.support is not None]
    states = [part.states for part in parts if part.states is not None]
    return _Scored(
        torch.cat([part.actions_N for part in parts]),
        torch.cat([part.behaviour_logprobs_N for part in parts]),
        torch.cat([part.reference_logprobs_N for part in parts]),
        torch.cat([part.advantages_N for part in parts]),
        joined(supports) if supports else None,
        joined(states) if states else None,
    )


def _joined(parts: list[_Scored], rollouts: list[Rollout], device: torch.device) -> Batch:
    """One batch of all micro-batches."""
    ids_BT, attention_mask_BT, mask_BT, actions_N = sequence_tensors(
        [r.prompt_ids for r in rollouts], [r.completion_ids for r in rollouts], device
    )
    whole = _merged(parts)
    return Batch(
        input_ids_BT=ids_BT,
        attention_mask_BT=attention_mask_BT,
        mask_BT=mask_BT,
        num_tokens_B=torch.tensor([len(r.completion_ids) for r in rollouts], device=device),
        actions_N=actions_N,
        weights_N=torch.zeros(len(actions_N), device=device),
        behaviour_logprobs_N=whole.behaviour_logprobs_N,
        advantages_N=whole.advantages_N,
        reference_logprobs_N=whole.reference_logprobs_N,
        support=whole.support,
        states=whole.states,
    )
