"""Policies of this machine as generators: batched, length-sorted, loaded when the first completion is asked for."""

import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from evaluation.config import EvalConfig
from evaluation.generation import Generation, Request
from evaluation.records import content_key
from lco.config import ModelSource, OptimalPolicySource, RewardModelSource, Sampling, Source, StageConfig
from lco.manifest import MANIFEST, file_sha256
from lco.optimal_policy import load_decodable
from lco.policy import Policy
from lco.rollout import sample, sequence_tensors

_SLACK_TOKENS = 4
"""Tokens beyond one a byte among which a stop string is looked for."""


LocalPolicy = ModelSource | OptimalPolicySource
"""Policies whose weights are on this machine."""


def open_policy(source: LocalPolicy, config: EvalConfig) -> "PolicyGenerator":
    """The generator of a policy on this machine. Nothing but its files' hashes is read before it is used.

    Raises:
        ValueError: there is no model.
    """
    torch.set_num_threads(config.threads)
    fingerprint = policy_fingerprint(source, config)
    return PolicyGenerator(lambda: load_decodable(source, config), fingerprint, config.batch_size)


def policy_fingerprint(source: LocalPolicy, config: StageConfig) -> str:
    """Hash of every file that makes the policy what it is, of how they are combined, and of the matrix products' type.

    Raises:
        ValueError: there is no model.
    """
    if isinstance(source, str):
        return content_key(files=_hashes(source), precision=config.precision)
    combined = source.model_dump(mode="json")
    for name, field in type(source).model_fields.items():
        if any(isinstance(mark, Source) for mark in field.metadata):
            combined[name] = _hashes(combined[name])
    return content_key(combined=combined, precision=config.precision)


def _hashes(source: ModelSource | RewardModelSource) -> dict[str, str]:
    directory = Path(source)
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != MANIFEST]
    if not files:
        raise ValueError(f"policy: {directory} holds no model")
    return {path.relative_to(directory).as_posix(): file_sha256(path) for path in files}


class PolicyGenerator:
    """Completions of a causal language model on this machine."""

    def __init__(self, load: Callable[[], Policy], fingerprint: str, batch_size: int) -> None:
        """Loads nothing yet.

        Args:
            batch_size: completions sampled at a time.
        """
        self._load = load
        self._fingerprint = fingerprint
        self._batch_size = batch_size
        self._policy: Policy | None = None

    @property
    def fingerprint(self) -> str:
        """Names the policy by its files."""
        return self._fingerprint

    @property
    def policy(self) -> Policy:
        """The model, loaded now if it was not used before."""
        if self._policy is None:
            self._policy = self._load()
        return self._policy

    def close(self) -> None:
        """Frees the model's memory."""
        if self._policy is None:
            return
        self._policy = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Generation]]]:
        """See `Generator.complete`: the longest prompts first, so that what does not fit into memory fails at once."""
        prompts = _Prompts(self.policy)
        groups: dict[tuple[Sampling, tuple[str, ...]], list[int]] = {}
        refused = []
        for place, request in enumerate(requests):
            if error := prompts.error(request, request.max_tokens):
                refused.append((place, Generation(error=error)))
                continue
            sampling = Sampling(
                temperature=request.temperature,
                top_p=request.top_p,
                max_tokens=request.max_tokens,
                batch_size=self._batch_size,
            )
            groups.setdefault((sampling, request.stop), []).append(place)
        if refused:
            yield refused
        for (sampling, stop), places in groups.items():
            places.sort(key=lambda place: -len(prompts.ids(requests[place])))
            for start in range(0, len(places), self._batch_size):
                batch = places[start : start + self._batch_size]
                sampled = sample(
                    self.policy,
                    [prompts.ids(requests[place]) for place in batch],
                    [requests[place].seed for place in batch],
                    sampling,
                    _ending(self.policy, stop),
                )
                yield [(place, self._generation(ids, stop)) for place, ids in zip(batch, sampled, strict=True)]

    def _generation(self, ids: list[int], stop: tuple[str, ...]) -> Generation:
        text = self.policy.decode(ids)
        cut = _cut(text, stop)
        has_ended = ids[-1] == self.policy.eos_id or cut is not None
        return Generation(text=text if cut is None else cut, is_truncated=not has_ended, num_tokens=len(ids))

    @torch.no_grad()
    def choice_logprobs(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Generation]]]:
        """See `Generator.choice_logprobs`. Choices of one token each are compared by one pass over the prompt."""
        prompts = _Prompts(self.policy)
        rows: list[tuple[int, list[int], list[int]]] = []  # request, prompt ids, ids of one choice
        choices: dict[int, list[list[int]]] = {}
        refused = []
        for place, request in enumerate(requests):
            try:
                continuations = [prompts.continuation(request, choice) for choice in request.choices]
                if error := prompts.error(request, max(map(len, continuations))):
                    raise ValueError(error)
            except (ValueError, TypeError) as error:  # the second: a lone surrogate
                refused.append((place, Generation(error=str(error))))
                continue
            choices[place] = continuations
            is_short = all(len(ids) == 1 for ids in continuations)
            rows += [(place, prompts.ids(request), ids) for ids in continuations[: 1 if is_short else None]]
        if refused:
            yield refused
        rows.sort(key=lambda row: -len(row[1]))  # stable: the choices of a request stay in their order
        found: dict[int, list[float]] = {}
        for start in range(0, len(rows), self._batch_size):
            batch = rows[start : start + self._batch_size]
            for (place, _, _), logprobs in zip(batch, self._compared(batch, choices), strict=True):
                found.setdefault(place, []).extend(logprobs)
            done = [place for place, values in found.items() if len(values) == len(choices[place])]
            yield [(place, _chosen(requests[place], choices[place], found.pop(place))) for place in done]

    def _compared(
        self, rows: list[tuple[int, list[int], list[int]]], choices: dict[int, list[list[int]]]
    ) -> Iterator[list[float]]:
        """For each row the log-probabilities of all single-token choices, or of its own continuation."""
        ids_BT, attention_mask_BT, mask_BT, actions_N = sequence_tensors(
            [prompt for _, prompt, _ in rows], [continuation for _, _, continuation in rows], self.policy.device
        )
        logprobs_NV = self.policy.token_logits(ids_BT, attention_mask_BT, mask_BT).double().log_softmax(-1)
        taken = logprobs_NV.gather(-1, actions_N[:, None])[:, 0].tolist()
        start = 0
        for place, _, continuation in rows:
            if all(len(ids) == 1 for ids in choices[place]):
                yield logprobs_NV[start, [ids[0] for ids in choices[place]]].tolist()
            else:
                yield [sum(taken[start : start + len(continuation)])]
            start += len(continuation)


def _chosen(request: Request, continuations: list[list[int]], logprobs: list[float]) -> Generation:
    """The most probable choice, the first of equal ones."""
    best = logprobs.index(max(logprobs))
    return Generation(text=request.choices[best], num_tokens=len(continuations[best]), choice_logprobs=tuple(logprobs))


class _Prompts:
    """Token ids of prompts, each made once."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._known: dict[tuple[str, bool], list[int] | str] = {}

    def _encoded(self, request: Request) -> list[int] | str:
        """The ids, or why there are none."""
        key = (request.prompt, request.is_raw)
        if key not in self._known:
            try:
                self._known[key] = self._encode(*key)
            except (ValueError, TypeError) as error:  # the second: a lone surrogate
                self._known[key] = str(error)[:500]
        return self._known[key]

    def _encode(self, prompt: str, is_raw: bool) -> list[int]:
        if not is_raw:
            return self._policy.encode_prompt(prompt)
        ids = list(map(int, self._policy.tokenizer.encode(prompt, add_special_tokens=False)))
        if not ids:
            raise ValueError("the prompt has no tokens")
        return ids

    def ids(self, request: Request) -> list[int]:
        """Token ids of a prompt that has some."""
        found = self._encoded(request)
        assert not isinstance(found, str), found
        return found

    def error(self, request: Request, num_more: int) -> str | None:
        """Why a request cannot be served; None where it can."""
        found = self._encoded(request)
        if isinstance(found, str):
            return found
        if len(found) + num_more > self._policy.max_positions:
            return (
                f"a prompt of {len(found)} tokens and {num_more} more exceed "
                f"the model's {self._policy.max_positions} positions"
            )
        return None

    def continuation(self, request: Request, choice: str) -> list[int]:
        """Token ids of a choice as they follow the prompt, exactly as the tokenizer splits both together.

        Raises:
            ValueError: the choice has no tokens.
        """
        tokenizer = self._policy.tokenizer
        ids: list[int] = []
        if request.is_raw:
            whole = list(map(int, tokenizer.encode(request.prompt + choice, add_special_tokens=False)))
            prompt = self._encoded(request)
            if not isinstance(prompt, str) and whole[: len(prompt)] == prompt:
                ids = whole[len(prompt) :]
        ids = ids or list(map(int, tokenizer.encode(choice, add_special_tokens=False)))
        if not ids:
            raise ValueError(f"choices: {choice!r} has no tokens")
        return ids


def _cut(text: str, stop: tuple[str, ...]) -> str | None:
    """The text before the first of the strings that end it; None where it holds none."""
    ends = [place for string in stop if (place := text.find(string)) >= 0]
    return text[: min(ends)] if ends else None


def _ending(policy: Policy, stop: tuple[str, ...]) -> Callable[[list[int]], bool] | None:
    """Whether token ids spell one of the strings that end a completion."""
    if not stop:
        return None
    window = max(len(string.encode(errors="replace")) for string in stop) + _SLACK_TOKENS

    def has_ended(ids: list[int]) -> bool:
        # Decoding the last tokens alone is cheap and may differ from the whole: the whole decides.
        return _cut(policy.decode(ids[-window:]), stop) is not None and _cut(policy.decode(ids), stop) is not None

    return has_ended
