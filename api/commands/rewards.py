"""`lco rollouts`, `lco sample` and `lco rewards`."""

import itertools
import json
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from api.calls import base
from api.client import Client
from api.commands.documents import read_document
from api.commands.jobs import run_of
from api.commands.tables import print_json, print_table, safe
from api.commands.usage import UsageError
from api.commands.watching import PATIENCE_SECONDS, POLL_SECONDS
from api.rollout_schemas import RolloutRead
from api.sample_schemas import SampleRead
from api.transport import ApiFailure
from evaluation.sample_options import asked, told


def rollouts(options: Namespace) -> int:
    """Prints rollouts of a training run, newest first."""
    with Client() as client:
        found = client.rollouts(run_of(client, options.id), iteration=options.iteration, order="desc")
        some = list(itertools.islice(found, options.limit))
    if options.json:
        return print_json(some)
    if not some:
        print("(none)")
    for one in some:
        print(_head(one))
        print(_indented("prompt", one.prompt))
        print(_indented("completion", one.completion))
    return 0


def _head(one: RolloutRead) -> str:
    parts = "".join(f", {name} {_number(value)}" for name, value in one.parts.items())
    end = ", truncated" if one.is_truncated else ""
    reference = f", reference {one.reference}" if one.reference else ""
    return safe(
        f"iteration {one.iteration}, completion {one.position}: reward {_number(one.reward)}{parts}, "
        f"{one.num_tokens} tokens{end}{reference}"
    )


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _indented(name: str, text: str) -> str:
    lines = safe(text).splitlines() or [""]
    return "\n".join(f"  {name if number == 0 else '':<11}{line}" for number, line in enumerate(lines))


def sample(options: Namespace) -> int:
    """Samples completions, waits for them and prints them; progress goes to standard error."""
    if Path(options.checkpoint).is_dir():
        raise UsageError("a directory comes first: lco sample DIR --prompt TEXT")
    try:
        wanted = asked(options)
    except ValueError as error:
        raise UsageError(str(error)) from None
    policies = [{"policy": name} for name in wanted.policies]
    with Client() as client:
        found = client.submit_sample({"policies": policies, "gpus": options.gpus, **wanted.fields})
        if options.no_wait:
            print(f"{found.id}  /sample/{found.id}")
            return 0
        print(f"{found.id}: {client.url}/sample/{found.id}", file=sys.stderr)
        found = _waited(client, found)
    if options.json:
        print_json(found)
    elif found.rows:
        print(safe(told(found.prompts, [policy.label for policy in found.policies], found.rows)))
    if found.status != "succeeded":
        print(safe(f"{found.id} {found.status}: {found.error.message if found.error else ''}"), file=sys.stderr)
        return 1
    return 0


def _waited(client: Client, found: SampleRead) -> SampleRead:
    """The sampling when it has ended; a line on standard error for every change."""
    spoken, answered = "", time.monotonic()
    while not base.is_final(found):
        line = f"{found.status}: {len(found.rows)} of {found.num_completions}"
        if line != spoken:
            spoken = line
            print(line, file=sys.stderr, flush=True)
        time.sleep(POLL_SECONDS)
        try:
            found = client.sample(found.id)
            answered = time.monotonic()
        except ApiFailure as error:
            if not base.is_outage(error) or time.monotonic() - answered > PATIENCE_SECONDS:
                raise
    return found


def list_rewards(options: Namespace) -> int:
    """Lists the kinds of reward."""
    with Client() as client:
        found = list(client.rewards())
    if options.json:
        return print_json(found)
    head = ["reward", "computed by", "what it is", "functions"]
    by = {True: "others", False: "the run"}
    return print_table(
        head, [[o.name, by[o.is_remote], o.description.partition(". ")[0], ", ".join(o.functions)] for o in found]
    )


def check(options: Namespace) -> int:
    """Tries a reward; 1 where the platform refuses it."""
    document = read_document(Path(options.file))
    config = document.get("config", document)
    reward = config.get("reward", config if "name" in config else None)
    if not isinstance(reward, dict):
        raise UsageError(f"{options.file} holds no reward: neither a training job nor a table with its `name`")
    with Client() as client:
        found = client.check_reward(reward, _samples(options.samples) if options.samples else ())
    if options.json:
        return print_json(found)
    print(f"{found.name} is sound" + ("; what others compute is tried when a run starts" if found.is_remote else ""))
    if found.rows:
        rows = [[row.reward, row.is_correct, _parts(row.parts), row.completion[:60], row.reason] for row in found.rows]
        print_table(["reward", "correct", "parts", "completion", "why none"], rows)
    return 0


def _parts(parts: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {_number(value)}" for name, value in parts.items())


def _samples(name: str) -> list[Any]:
    try:
        return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError(f"{name} cannot be read as JSON Lines: {error}") from None
