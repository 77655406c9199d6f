"""Next-token logits, one position at a time: of one model over its cache, or of several models combined.

A combination is a policy: whatever samples, scores or evaluates a `Policy` takes it. `MixedPolicy` is MiniLLM's
teacher-mixed sampler; pi* (Eq. 6) is in `optimal_policy.py`.

Shapes: B sequences, T time, N tokens, V vocabulary.
"""

from abc import abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, Self

from torch import Tensor
from transformers import DynamicCache

from lco.log_probs import mixture_log_probs
from lco.policy import Policy


class Decoder(Protocol):
    """Gives the logits of the next token of B growing sequences, and forgets those that are done."""

    def logits(self, inputs_BT: Tensor, attention_mask_BT: Tensor, positions_BT: Tensor) -> Tensor:
        """Float32 logits `[B, V]` after the new tokens.

        Args:
            inputs_BT: the prompts, padded on the left, in the first call; then the one token just drawn.
            attention_mask_BT: of all tokens so far.
            positions_BT: of the new tokens.
        """

    def keep(self, rows_B: Tensor) -> None:
        """Goes on with these rows alone."""


class ModelDecoder:
    """One model with its key-value cache."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._cache = DynamicCache()

    def logits(self, inputs_BT: Tensor, attention_mask_BT: Tensor, positions_BT: Tensor) -> Tensor:
        """See `Decoder.logits`."""
        policy = self._policy
        with policy.computing():
            output = policy.model(
                input_ids=inputs_BT,
                attention_mask=attention_mask_BT,
                position_ids=positions_BT,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits_BV: Tensor = output.logits[:, -1, : policy.vocab_size].float()
        return logits_BV

    def keep(self, rows_B: Tensor) -> None:
        """See `Decoder.keep`."""
        self._cache.batch_select_indices(rows_B)


@dataclass(slots=True, kw_only=True)
class CombinedPolicy(Policy):
    """A next-token distribution made of several models with one vocabulary; `model` is the first of them."""

    others: tuple[Policy, ...]
    """The further models, in the order in which `combined` takes their logits."""

    @classmethod
    def of(cls, policy: Policy, *others: Policy, **more: Any) -> Self:
        """The policy, in the same memory, combined with others."""
        own = {field.name: getattr(policy, field.name) for field in fields(Policy) if field.init}
        return cls(**own, others=others, **more)

    @abstractmethod
    def combined(self, logits: list[Tensor]) -> Tensor:
        """Logits `[..., V]` of the combination from those of each model, the policy's first."""

    def decoder(self) -> Decoder:
        """A forward pass of every model per token."""
        return _CombinedDecoder(self)

    def token_logits(self, input_ids_BT: Tensor, attention_mask_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """As `Policy.token_logits`, of the combination."""
        own_NV = Policy.token_logits(self, input_ids_BT, attention_mask_BT, mask_BT)
        theirs = [other.token_logits(input_ids_BT, attention_mask_BT, mask_BT) for other in self.others]
        return self.combined([own_NV, *theirs])

    def save(self, directory: Path) -> None:
        """A combination is decoded from, not stored.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{directory}: a combination of models cannot be saved as one model")


class _CombinedDecoder:
    def __init__(self, policy: CombinedPolicy) -> None:
        self._policy = policy
        self._decoders = [ModelDecoder(each) for each in (policy, *policy.others)]

    def logits(self, inputs_BT: Tensor, attention_mask_BT: Tensor, positions_BT: Tensor) -> Tensor:
        return self._policy.combined(
            [each.logits(inputs_BT, attention_mask_BT, positions_BT) for each in self._decoders]
        )

    def keep(self, rows_B: Tensor) -> None:
        for each in self._decoders:
            each.keep(rows_B)


def decoder_of(policy: Policy) -> Decoder:
    """What samples from a policy, one token at a time."""
    return policy.decoder() if isinstance(policy, CombinedPolicy) else ModelDecoder(policy)


@dataclass(slots=True, kw_only=True)
class MixedPolicy(CombinedPolicy):
    """alpha p_T + (1 - alpha) pi at each step (MiniLLM, arXiv 2306.08543, section 2.2)."""

    alpha: float
    """The teacher's share, in (0, 1]."""

    def combined(self, logits: list[Tensor]) -> Tensor:
        """The mixture's log-probabilities."""
        own, teacher = (each.log_softmax(-1) for each in logits)
        return mixture_log_probs(own, teacher, self.alpha)
