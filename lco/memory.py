"""How many sequences are computed at once: cut by number and by padded tokens, and cut smaller where memory ends.

What is computed does not depend on the cuts beyond the last bits of a sum: a piece that did not fit is computed again
in halves, an optimizer step from its start. Sizes found too large stay small for the rest of the run, and when resumed.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from lco import distributed
from lco.config import TrainingStageConfig
from lco.stage import is_out_of_memory

ResultT = TypeVar("ResultT")


def _print(level: str, message: str) -> None:
    print(f"{level}: {message}", flush=True)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one piece may hold. A single sequence may always be a piece."""

    max_sequences: int
    max_tokens: int = 0
    """Padded tokens: sequences times the longest of them. 0 for no limit."""


def limits_of(config: TrainingStageConfig) -> Limits:
    """A stage's micro-batches."""
    return Limits(config.micro_batch_size, config.micro_batch_tokens)


@dataclass(slots=True)
class Memory:
    """Cuts work into pieces that fit, and remembers which sizes did not."""

    report: Callable[[str, str], None] = _print
    """Told, with its level, of every size that is halved."""
    found: dict[str, Limits] = field(default_factory=dict)
    """Limits that replace the configured ones, by the work that they are for."""

    def cut(self, what: str, lengths: Sequence[int], limits: Limits, least: int = 1) -> list[range]:
        """Pieces of consecutive sequences.

        Args:
            what: the work, as a person would call it.
            lengths: tokens of each sequence; sorted ones waste no padding.
            least: pieces to make of them at least, where there are so many sequences.
        """
        limits = self.found.get(what, limits)
        most = max(1, min(limits.max_sequences, -(-len(lengths) // least)))
        pieces, start, longest = [], 0, 0
        for position, length in enumerate(lengths):
            count, width = position - start, max(longest, length)
            is_full = count == most or 0 < limits.max_tokens < width * (count + 1)
            if count and is_full:
                pieces.append(range(start, position))
                start, width = position, length
            longest = width
        return [*pieces, range(start, len(lengths))] if lengths else []

    def whole(
        self, what: str, lengths: Sequence[int], limits: Limits, compute: Callable[[list[range]], ResultT], least: int
    ) -> ResultT:
        """The result of a computation over all pieces, begun anew with smaller ones where memory ends.

        Several processes cannot agree to begin anew once one has failed: there, the error goes on.

        Args:
            least: see `cut`; the rest likewise.

        Raises:
            RuntimeError: memory ends although every piece is a single sequence.
        """
        while True:
            pieces = self.cut(what, lengths, limits, least)
            try:
                return compute(pieces)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or max(map(len, pieces)) == 1 or distributed.count() > 1:
                    raise
            # Outside the handler, because the traceback holds the tensors of the pass that failed.
            self._halve(what, lengths, pieces, limits)

    def each(
        self, what: str, lengths: Sequence[int], limits: Limits, compute: Callable[[range], ResultT]
    ) -> list[ResultT]:
        """The result of every piece in order; from where memory ends on, pieces are smaller.

        Raises:
            RuntimeError: memory ends although the piece is a single sequence.
        """
        results: list[ResultT] = []
        done = 0
        while done < len(lengths):
            rest = lengths[done:]
            piece = self.cut(what, rest, limits)[0]
            try:
                results.append(compute(range(done, done + len(piece))))
                done += len(piece)
                continue
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or len(piece) == 1:
                    raise
            self._halve(what, rest, [piece], limits)
        return results

    def state(self) -> dict[str, list[int]]:
        """The sizes found, as JSON."""
        return {what: [limits.max_sequences, limits.max_tokens] for what, limits in self.found.items()}

    def restore(self, state: dict[str, list[int]]) -> None:
        """Takes up the sizes that `state` gave."""
        self.found = {what: Limits(*limits) for what, limits in state.items()}

    def _halve(self, what: str, lengths: Sequence[int], pieces: list[range], limits: Limits) -> None:
        """Halves the largest of the pieces, in sequences or, where they are limited, in padded tokens."""
        limits = self.found.get(what, limits)
        several = [piece for piece in pieces if len(piece) > 1]
        if limits.max_tokens:
            padded = max(len(piece) * max(lengths[position] for position in piece) for piece in several)
            smaller = Limits(limits.max_sequences, max(1, padded // 2))
            size = f"{smaller.max_tokens} padded tokens"
        else:
            smaller = Limits(max(map(len, several)) // 2)
            size = f"{smaller.max_sequences} sequences"
        self.found[what] = smaller
        self.report("warning", f"out of memory while {what}; it goes on with at most {size} at once")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
