"""`lco train` and its sisters, and `lco models`: processes that are started as anybody may start them."""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from api.client import Client
from api.commands.tables import print_json, print_table
from api.commands.usage import UsageError
from api.registry_schemas import ModelRead
from store.settings import Settings


def become(module: str, arguments: Sequence[str]) -> None:
    """Becomes the process of one stage, the very one that a job of this kind runs."""
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - no shell is wanted


def import_model(options: Namespace) -> int:
    """Becomes the process that makes a model available as `model:NAME`."""
    root = Settings.from_environment().models
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    more = ["--gguf", options.gguf] if options.gguf else []
    become("lco.importing", [options.name, str(root), *more])
    return 0


def register(options: Namespace) -> int:
    """Makes a model known to the platform."""
    if options.revision and not options.hub:
        raise UsageError("--revision goes with --hub")
    if options.hub and not options.revision:
        raise UsageError("--hub needs --revision: a branch or tag can move")
    with Client() as client:
        found = client.register_model(options.name, hub_id=options.hub, revision=options.revision)
        if options.wait and found.job_id is not None:
            client.wait(found.job_id)
            found = _named(client, found.id)
    if options.json:
        print_json(found)
    else:
        print(
            f"{found.source} is {found.state}" + (f": {found.job_id}" if found.job_id else f": {found.checkpoint_id}")
        )
    return 1 if found.state == "failed" else 0


def show(options: Namespace) -> int:
    """Prints a registered model as JSON."""
    with Client() as client:
        return print_json(_named(client, options.model))


def remove(options: Namespace) -> int:
    """Forgets a registered model."""
    with Client() as client:
        found = _named(client, options.model)
        client.delete(found.id)
    print(f"{found.source} is gone")
    return 0


def _named(client: Client, name: str) -> ModelRead:
    """A registered model by its id or name."""
    if name.startswith("mdl_"):
        found = client.show(name)
        assert isinstance(found, ModelRead)
        return found
    for model in client.models(name=name.removeprefix("model:")):
        return model
    raise UsageError(f"no model is registered as {name!r}")


def list_models(options: Namespace) -> int:
    """Lists registered models, or the directories below the models root that hold a configuration."""
    if not options.local:
        with Client() as client:
            models = list(client.models())
        if options.json:
            return print_json(models)
        rows = [
            [m.source, m.state, m.hub_id or "local", m.revision[:12], _megabytes(m.size_bytes), m.id] for m in models
        ]
        return print_table(["model", "state", "from", "revision", "size", "id"], rows)
    root = Settings.from_environment().models
    found = sorted(path for path in root.glob("*") if (path / "config.json").is_file())
    if options.json:
        import json

        print(json.dumps([f"model:{path.name}" for path in found]))
        return 0
    return print_table(["model", "size", "path"], [[f"model:{p.name}", _size(p), p] for p in found])


def _size(directory: Path) -> str:
    return _megabytes(sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()))


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"
