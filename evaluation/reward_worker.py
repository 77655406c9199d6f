"""The process that computes remote rewards: `python -m evaluation.reward_worker`, started by `lco.reward_process`.

JSON lines on standard input and output. First the reward's configuration and where replies are recorded; the answer is
`{"ready": true}`, or `{"refused": why}`. Then `{"items": [...]}` each; the answer is `{"rewards": [...]}`, or `refused`
(no later completion could be rewarded either) or `failed` (what computes them is down), each with the US dollars
`spent` so far. Standard output is the
protocol's alone: whatever a function prints goes to standard error, into the run's log.
"""

import importlib
import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter

from evaluation.calls import answered
from evaluation.json_endpoint import JsonEndpoint
from evaluation.limits import CircuitOpen, EndpointFailure
from evaluation.records import Journal, content_key, sound
from lco.reward_config import HttpReward, JudgeReward, PythonReward

DECLARED = "LCO_REWARDS"
"""Variable with the operator's functions: `NAME=package.module:function,...`."""
MAX_TEXT_CHARACTERS = 100_000
_SCORE = re.compile(r"score\W{0,8}(?P<score>-?\d{1,9}(?:\.\d{1,9})?)", re.IGNORECASE)
_NUMBER = re.compile(r"\s*(?P<score>-?\d{1,9}(?:\.\d{1,9})?)\s*")

Row = dict[str, Any]
"""`reward`, null with a `reason` where there is none; `is_correct` and `parts` where they are known."""


class Source(Protocol):
    """Computes rewards."""

    @property
    def spent(self) -> float:
        """US dollars so far, of what is recorded too."""

    def rewards(self, items: Sequence[Mapping[str, str]]) -> list[Row]:
        """One row for each item, in order."""


class JudgeSource:
    """A language model's score."""

    def __init__(self, config: JudgeReward, journal: Journal) -> None:
        from evaluation.endpoint import Endpoint  # its SDK takes seconds to load, which the others need not wait for

        self._config = config
        self._endpoint = Endpoint(config.endpoint, journal=journal)

    @property
    def spent(self) -> float:
        """See `Source`."""
        return self._endpoint.budget.spent

    def rewards(self, items: Sequence[Mapping[str, str]]) -> list[Row]:
        """See `Source`. Equal items are asked once."""
        rows: list[Row | None] = [None] * len(items)
        places: dict[str, list[int]] = {}
        for place, item in enumerate(items):
            places.setdefault(content_key(item=dict(sound(item))), []).append(place)
        firsts = [group[0] for group in places.values()]
        threads = self._config.endpoint.max_concurrency
        for place, row in answered(firsts, lambda place: self._row(items[place]), threads):
            for same in places[content_key(item=dict(sound(items[place])))]:
                rows[same] = row
        assert all(row is not None for row in rows)
        return [row for row in rows if row is not None]

    def _row(self, item: Mapping[str, str]) -> Row:
        config = self._config
        if not item["completion"].strip():
            return {"reward": config.worst_reward}
        text = config.told(*(item[name][:MAX_TEXT_CHARACTERS] for name in ("prompt", "completion", "reference")))
        messages = [{"role": "user", "content": text}]
        if config.system_prompt:
            messages.insert(0, {"role": "system", "content": config.system_prompt})
        try:
            reply = self._endpoint.chat(messages, max_tokens=config.max_tokens, temperature=config.temperature)
        except EndpointFailure as failure:
            return {"reward": None, "reason": str(failure)}
        score = score_of(reply.text, config.lowest, config.highest)
        if score is None:
            return {"reward": None, "reason": "the judge's reply has no score on the scale"}
        share = (score - config.lowest) / (config.highest - config.lowest)
        return {"reward": config.worst_reward + share * (config.best_reward - config.worst_reward)}


def score_of(reply: str, lowest: float, highest: float) -> float | None:
    """The score in a judge's reply: a bare number, or the last `Score: N`. None where there is none on the scale."""
    match = _NUMBER.fullmatch(reply)
    if match is None:
        for match in _SCORE.finditer(reply):  # noqa: B007 - the last one counts
            pass
    score = None if match is None else float(match["score"])
    return score if score is not None and lowest <= score <= highest else None


class HttpSource:
    """A server of one's own."""

    spent = 0.0

    def __init__(self, config: HttpReward, journal: Journal) -> None:
        self._config, self._journal = config, journal
        self._endpoint = JsonEndpoint(config)

    def rewards(self, items: Sequence[Mapping[str, str]]) -> list[Row]:
        """See `Source`. What the server said once of an item is recorded, and not asked again."""
        keys = [content_key(kind="reward", url=self._config.url, item=dict(sound(item))) for item in items]
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in self._journal}
        failed: dict[str, Row] = {}
        names = list(missing)
        batches = [
            names[start : start + self._config.batch_size] for start in range(0, len(names), self._config.batch_size)
        ]
        threads = self._config.max_concurrency
        for batch, rows in answered(batches, lambda batch: self._asked([missing[key] for key in batch]), threads):
            told = list(zip(batch, rows, strict=True))
            self._journal.put_all([(key, row) for key, row in told if row["reward"] is not None])
            failed |= {key: row for key, row in told if row["reward"] is None}
        return [failed.get(key) or self._journal.get(key) or {"reward": None} for key in keys]

    def _asked(self, items: list[Mapping[str, str]]) -> list[Row]:
        documents = [
            {
                "prompt": item["prompt"],
                "completion": item["completion"],
                "reference": item["reference"],
                "metadata": {"prompt_id": item["id"]},
            }
            for item in sound(items)
        ]
        try:
            answer = self._endpoint.post({"items": documents})
        except EndpointFailure as failure:
            return [{"reward": None, "reason": str(failure)} for _ in items]
        rewards = answer.get("rewards") if isinstance(answer, dict) else answer
        if not isinstance(rewards, list) or len(rewards) != len(items):
            reason = f"the server answered no list of {len(items)} rewards"
            return [{"reward": None, "reason": reason} for _ in items]
        return [_row_of(reward) for reward in rewards]


class PythonSource:
    """A function that the operator declared."""

    spent = 0.0

    def __init__(self, config: PythonReward, environment: Mapping[str, str] = os.environ) -> None:
        self._name = config.function
        self._function = declared_function(config.function, environment.get(DECLARED, ""))

    def rewards(self, items: Sequence[Mapping[str, str]]) -> list[Row]:
        """See `Source`. An exception of the function leaves all of the call without a reward."""
        columns = [[item[name] for item in items] for name in ("prompt", "completion", "reference")]
        try:
            found = list(self._function(*columns))
        except Exception as error:
            reason = f"the function {self._name} raised {type(error).__name__}: {str(error)[:300]}"
            return [{"reward": None, "reason": reason} for _ in items]
        if len(found) != len(items):
            reason = f"the function {self._name} returned {len(found)} rewards for {len(items)} completions"
            return [{"reward": None, "reason": reason} for _ in items]
        return [_row_of(reward) for reward in found]


def declared_function(name: str, declared: str) -> Callable[[list[str], list[str], list[str]], Sequence[Any]]:
    """The function that was declared under a name.

    Raises:
        ValueError: there is none, or it cannot be imported.
    """
    known = dict(item.strip().split("=", 1) for item in declared.split(",") if "=" in item)
    if name not in known:
        raise ValueError(f"function: {name!r} is declared nowhere; {DECLARED} names {', '.join(known) or 'none'}")
    module, _, attribute = known[name].partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever the module's own code raises
        raise ValueError(f"function: {name!r}, {known[name]}, cannot be imported: {error}") from error
    if not callable(function):
        raise ValueError(f"function: {name!r}, {known[name]}, is no function")
    return function  # type: ignore[no-any-return]


def _row_of(reward: Any) -> Row:
    """What somebody else says of a completion, in which every type is looked at."""
    said = reward if isinstance(reward, Mapping) else {"reward": reward}
    value = _number(said.get("reward"))
    if value is None:
        return {
            "reward": None,
            "reason": str(said.get("reason") or "there is no reward, or it is no finite number")[:300],
        }
    parts = said.get("parts")
    is_correct = said.get("is_correct")
    return {
        "reward": value,
        "is_correct": is_correct if isinstance(is_correct, bool) else None,
        "parts": {str(name)[:32]: _number(part) for name, part in list(parts.items())[:16]}
        if isinstance(parts, Mapping)
        else {},
    }


def _number(value: Any) -> float | None:
    """A finite number; also one of numpy's or torch's, which a function may well return."""
    if isinstance(value, bool | str) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
    return number if math.isfinite(number) else None


_REWARD: TypeAdapter[JudgeReward | HttpReward | PythonReward] = TypeAdapter(JudgeReward | HttpReward | PythonReward)


def make_source(config: JudgeReward | HttpReward | PythonReward, journal: Journal) -> Source:
    """What computes a reward.

    Raises:
        ValueError: it cannot work as it is configured.
    """
    if isinstance(config, JudgeReward):
        return JudgeSource(config, journal)
    return HttpSource(config, journal) if isinstance(config, HttpReward) else PythonSource(config)


def main() -> int:
    """Answers until the input ends; the exit status."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the run checkpoints first, and then ends the input
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(document: Any) -> None:
        out.write(json.dumps(sound(document)) + "\n")
        out.flush()

    start = json.loads(sys.stdin.buffer.readline() or b"null")
    if start is None:
        return 0
    earlier = [Path(path) for path in start["earlier"]]
    with Journal(Path(start["journal"]), earlier) as journal:
        try:
            source = make_source(_REWARD.validate_json(json.dumps(start["reward"])), journal)
        except ValueError as error:
            answer({"refused": str(error)})
            return 0
        answer({"ready": True})
        for line in sys.stdin.buffer:
            try:
                found: dict[str, Any] = {"rewards": source.rewards(json.loads(line)["items"])}
            except ValueError as error:  # a wrong key or address, no money left
                found = {"refused": str(error)}
            except CircuitOpen as error:
                found = {"failed": str(error)}
            answer(found | {"spent": source.spent})
    return 0


if __name__ == "__main__":
    sys.exit(main())
