"""The behaviour policy samples; `Rollout` and `Batch`, the two types every later file speaks.

Shapes: B sequences, T time, N trained tokens of all B sequences in a row, V vocabulary, K entries of the support.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from lco.config import Sampling
from lco.decoding import decoder_of
from lco.distributed import gather, share
from lco.memory import Limits
from lco.policy import Policy
from lco.prompts import Prompt
from lco.seeds import uniforms


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A prompt, one completion of the behaviour policy, and its reward."""

    prompt: Prompt
    prompt_ids: list[int]
    completion_ids: list[int]
    """The sampled ids, with the end-of-sequence token where it was sampled; never tokenized again from text."""
    completion: str
    """The text, special tokens left out."""
    is_truncated: bool
    """The completion reached `max_tokens` without an end."""
    reward: float | None = 0.0
    """None where our side failed to give one: the completion is left out of what is learned from rewards."""
    is_correct: bool | None = False
    """None where the reward does not say."""
    step_rewards: tuple[float, ...] = ()
    """Of each step, from a step verifier; empty where the completion is judged as a whole."""
    step_tokens: tuple[int, ...] = ()
    """Tokens of each step; together all of the completion's."""
    is_timed_out: bool = False
    """The answer took the grader too much time or memory; it counts as incorrect."""
    reward_parts: tuple[tuple[str, float | None], ...] = ()
    """What the reward is made of, by name; empty where it has no parts."""


@dataclass(slots=True, kw_only=True)
class Support:
    """The vocabulary entries with a known advantage, for N tokens. `ids_NK` is None for the whole vocabulary, K = V."""

    ids_NK: Tensor | None
    valid_NK: Tensor | None
    """False at an entry that stands in its row already; None with the whole vocabulary."""
    behaviour_logits_NK: Tensor
    """z_old, float32."""
    advantages_NK: Tensor
    behaviour_logsumexp_N: Tensor
    """Of z_old over the whole vocabulary."""
    behaviour_max_N: Tensor
    """Largest z_old of the whole vocabulary."""
    tail_advantages_N: Tensor
    """The one advantage of all entries outside the support; unused where K = V."""
    is_agreed_N: Tensor
    """True where policy and reward model are both sure of the sampled token (the agreement gate)."""


@dataclass(slots=True, kw_only=True)
class States:
    """What a support over the whole vocabulary is made of when it is needed, for N tokens.

    The last hidden states of the models that scored them, in the type of the products: a row of the vocabulary would be
    some hundred times as long.
    """

    behaviour_NH: Tensor
    reward_NH: Tensor | None
    reference_NH: Tensor | None
    initial_NH: Tensor | None
    """None also where the reference is the starting policy."""
    mean_N: Tensor
    """Uniform mean of the token's advantages over the vocabulary; beside it their deviation and extremes."""
    std_N: Tensor
    largest_N: Tensor
    smallest_N: Tensor
    is_agreed_N: Tensor
    """See `Support`."""
    shift_N: Tensor
    """Subtracted from the token's advantages, which are then divided by `divisor_N`."""
    divisor_N: Tensor
    head_VH: Tensor | None = None
    """The behaviour policy's head; None where no step changes it before the states are used up."""
    head_bias_V: Tensor | None = None


PartT = TypeVar("PartT", Support, States)


def selected(part: PartT, rows: Tensor | slice) -> PartT:
    """Some of the tokens of a support or of states."""
    known = {field.name: getattr(part, field.name) for field in fields(part)}
    return replace(
        part,
        **{name: value[rows] for name, value in known.items() if value is not None and not name.startswith("head_")},
    )


def joined(parts: list[PartT]) -> PartT:
    """The tokens of several supports, or states, one after another."""
    values: dict[str, Any] = {
        field.name: None
        if getattr(parts[0], field.name) is None
        else torch.cat([getattr(part, field.name) for part in parts])
        for field in fields(parts[0])
    }
    return type(parts[0])(**values)


@dataclass(slots=True, kw_only=True)
class Batch:
    """Sequences to fit, right-padded, and what is known of their N trained tokens."""

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    mask_BT: Tensor
    """True at position t where the token at t + 1 is trained."""
    num_tokens_B: Tensor
    """Trained tokens of each sequence."""
    actions_N: Tensor
    """The sampled tokens."""
    weights_N: Tensor
    """What each token's loss is multiplied by before the sum; set for a whole optimizer step."""
    behaviour_logprobs_N: Tensor
    advantages_N: Tensor
    """Advantage of the sampled token."""
    reference_logprobs_N: Tensor
    """log pi_0 of the sampled token; 0 where no term needs it."""
    support: Support | None = None
    states: States | None = None
    """In place of a support; None where that is kept, or where there is none."""
    is_marked_N: Tensor | None = None
    """Tokens that the algorithm treats apart (Clip-Cov, KL-Cov); None where it knows none."""
    is_kept_B: Tensor | None = None
    """False for a sequence left out of the loss and its average; None keeps all."""
    values_N: Tensor | None = None
    """The critic's value of the state before each token when it was sampled; None without a critic."""
    returns_N: Tensor | None = None
    """What the critic learns."""
    importance_N: Tensor | None = None
    """pi_old over the distribution that the tokens were drawn from; None where that is pi_old itself."""
    is_demonstration_B: Tensor | None = None
    """True for a demonstration beside the completions; None where there is none."""

    def select(self, indices_B: Tensor) -> Self:
        """The batch of some of the sequences, in the given order, without columns that none of them needs."""
        starts_B = self.num_tokens_B.cumsum(0) - self.num_tokens_B
        ranges = [
            torch.arange(start, start + count, device=self.actions_N.device)
            for start, count in zip(starts_B[indices_B].tolist(), self.num_tokens_B[indices_B].tolist(), strict=True)
        ]
        rows_N = torch.cat(ranges) if ranges else torch.zeros(0, dtype=torch.long, device=self.actions_N.device)
        width = int(self.attention_mask_BT[indices_B].sum(1).max()) if len(indices_B) else 0
        values: dict[str, Tensor | Support | States | None] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, Tensor):
                continue
            if field.name.endswith("_BT"):
                values[field.name] = value[indices_B, :width]
            elif field.name.endswith("_B"):
                values[field.name] = value[indices_B]
            else:
                values[field.name] = value[rows_N]
        if self.support is not None:
            values["support"] = selected(self.support, rows_N)
        if self.states is not None:
            values["states"] = selected(self.states, rows_N)
        return type(self)(**values)  # type: ignore[arg-type]

    def tokens(self, rows: slice) -> Self:
        """Some of the tokens, each as a sequence of its own; for losses that give a token's value from itself."""
        known: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                if field.name.endswith("_BT"):
                    value = value[:0]
                elif field.name.endswith("_B"):
                    value = value.repeat_interleave(self.num_tokens_B)[rows]
                else:
                    value = value[rows]
                known[field.name] = value
        known["num_tokens_B"] = torch.ones_like(known["num_tokens_B"])
        if self.support is not None:
            known["support"] = selected(self.support, rows)
        if self.states is not None:
            known["states"] = selected(self.states, rows)
        return type(self)(**known)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor under a flat name, for a checkpoint."""
        found = {f.name: v for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        for name, part in (("support", self.support), ("states", self.states)):
            for field in fields(part) if part is not None else ():
                if (value := getattr(part, field.name)) is not None:
                    found[f"{name}.{field.name}"] = value
        return {name: value.contiguous() for name, value in found.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Self:
        """The batch that `tensors` flattened."""
        known: dict[str, Any] = {name: tensor for name, tensor in tensors.items() if "." not in name}
        parts: tuple[tuple[str, type[Support | States]], ...] = (("support", Support), ("states", States))
        for name, kind in parts:
            own = {n.removeprefix(f"{name}."): tensor for n, tensor in tensors.items() if n.startswith(f"{name}.")}
            if own:
                known[name] = kind(**{field.name: own.get(field.name) for field in fields(kind)})  # type: ignore[arg-type]
        return cls(**known)


def padded(sequences: list[list[int]], pad_id: int, side: str = "right") -> tuple[Tensor, Tensor]:
    """Token ids `[B, T]` and their attention mask, padded on one side."""
    width = max(map(len, sequences))
    ids_BT = torch.full((len(sequences), width), pad_id)
    mask_BT = torch.zeros((len(sequences), width), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        span = slice(0, len(sequence)) if side == "right" else slice(width - len(sequence), width)
        ids_BT[row, span] = torch.tensor(sequence)
        mask_BT[row, span] = 1
    return ids_BT, mask_BT


def sequence_tensors(
    prompts: list[list[int]], completions: list[list[int]], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Right-padded ids, attention mask and mask of trained positions `[B, T]`, and the trained tokens `[N]`.

    Masks come from lengths, never from ids: a sampled token may equal the padding.
    """
    ids_BT, attention_mask_BT = padded([p + c for p, c in zip(prompts, completions, strict=True)], pad_id=0)
    mask_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        mask_BT[row, len(prompt) - 1 : len(prompt) + len(completion) - 1] = True
    actions_N = torch.tensor([token for completion in completions for token in completion], dtype=torch.long)
    return ids_BT.to(device), attention_mask_BT.to(device), mask_BT.to(device), actions_N.to(device)


@torch.no_grad()
def sample(
    policy: Policy,
    prompts: list[list[int]],
    seeds: list[int],
    sampling: Sampling,
    has_ended: Callable[[list[int]], bool] | None = None,
) -> list[list[int]]:
    """One completion per prompt: token ids, with the end-of-sequence token where it was sampled.

    Each completion draws its own uniform numbers from its own seed by inverting the cumulative distribution, so the
    order and the company of the prompts decide nothing. Processes share the prompts and all have every completion.

    Args:
        has_ended: whether a completion, given as its token ids so far, ends here without an end-of-sequence token.

    Raises:
        ValueError: a prompt with `max_tokens` more does not fit into the model.
    """
    longest = max(map(len, prompts))
    if longest + sampling.max_tokens > policy.max_positions:
        raise ValueError(
            f"max_tokens: a prompt of {longest} tokens and {sampling.max_tokens} more exceed "
            f"the model's {policy.max_positions} positions"
        )
    mine = share(list(zip(prompts, seeds, strict=True)))

    def completed(piece: range) -> list[list[int]]:
        some = [mine[position] for position in piece]
        some_prompts, some_seeds = [prompt for prompt, _ in some], [seed for _, seed in some]
        return _sample_batch(policy, some_prompts, some_seeds, sampling, has_ended)

    lengths = [len(prompt) + sampling.max_tokens for prompt, _ in mine]
    pieces = policy.memory.each("sampling", lengths, Limits(sampling.batch_size), completed)
    return gather([completion for piece in pieces for completion in piece])


def _sample_batch(
    policy: Policy,
    prompts: list[list[int]],
    seeds: list[int],
    sampling: Sampling,
    has_ended: Callable[[list[int]], bool] | None,
) -> list[list[int]]:
    device = policy.device
    ids_BT, attention_mask_BT = (tensor.to(device) for tensor in padded(prompts, policy.eos_id, side="left"))
    uniforms_BT = torch.from_numpy(uniforms(seeds, sampling.max_tokens)).to(device)
    rows_B = torch.arange(len(prompts), device=device)  # which completion each live row of the cache belongs to
    tokens_BT = torch.full((len(prompts), sampling.max_tokens), policy.eos_id, device=device)
    lengths_B = torch.full((len(prompts),), sampling.max_tokens, device=device)
    is_done_B = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    decoder = decoder_of(policy)
    inputs_BT = ids_BT
    positions_BT = (attention_mask_BT.cumsum(1) - 1).clamp(min=0)
    for t in range(sampling.max_tokens):
        logits_BV = decoder.logits(inputs_BT, attention_mask_BT, positions_BT)
        next_B = draw(logits_BV, uniforms_BT[rows_B, t], sampling.temperature, sampling.top_p)
        live_B = ~is_done_B
        tokens_BT[rows_B[live_B], t] = next_B[live_B]
        ended_B = live_B & (next_B == policy.eos_id)
        if has_ended is not None:
            drawn = tokens_BT[rows_B, : t + 1].tolist()
            stopped = [is_live and has_ended(ids) for is_live, ids in zip(live_B.tolist(), drawn, strict=True)]
            ended_B = ended_B | torch.tensor(stopped, device=device)
        lengths_B[rows_B[ended_B]] = t + 1
        is_done_B = is_done_B | ended_B
        num_live = int((~is_done_B).sum())
        if num_live == 0:
            break
        attention_mask_BT = torch.nn.functional.pad(attention_mask_BT, (0, 1), value=1)
        positions_BT = positions_BT[:, -1:] + 1
        inputs_BT = next_B[:, None]
        if num_live <= len(rows_B) // 2:  # finished rows leave once they are the majority
            keep = (~is_done_B).nonzero()[:, 0]
            decoder.keep(keep)
            rows_B, is_done_B, inputs_BT = rows_B[keep], is_done_B[keep], inputs_BT[keep]
            attention_mask_BT, positions_BT = attention_mask_BT[keep], positions_BT[keep]
    tokens, lengths = tokens_BT.tolist(), lengths_B.tolist()
    return [row[:length] for row, length in zip(tokens, lengths, strict=True)]


def draw(logits_BV: Tensor, uniforms_B: Tensor, temperature: float, top_p: float) -> Tensor:
    """Tokens `[B]` drawn by inverse transform from softmax(logits / temperature) cut to its nucleus; argmax at 0."""
    if temperature == 0:
        return logits_BV.argmax(-1)
    probs_BV = (logits_BV / temperature).softmax(-1, dtype=torch.float64)
    order_BV = None
    if top_p < 1:
        probs_BV, order_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
        before_BV = probs_BV.cumsum(-1) - probs_BV
        probs_BV = probs_BV.masked_fill(before_BV >= top_p, 0.0)
    cumulative_BV = probs_BV.cumsum(-1)
    total_B1 = cumulative_BV[:, -1:]
    thresholds_B1 = uniforms_B[:, None].to(torch.float64) * total_B1
    # A product rounded up to the total would draw a token outside the nucleus.
    thresholds_B1 = thresholds_B1.minimum(total_B1.nextafter(torch.zeros_like(total_B1)))
    drawn_B1 = torch.searchsorted(cumulative_BV, thresholds_B1, right=True).clamp(max=logits_BV.shape[-1] - 1)
    if order_BV is not None:
        drawn_B1 = order_BV.gather(-1, drawn_B1)
    return drawn_B1[:, 0]
