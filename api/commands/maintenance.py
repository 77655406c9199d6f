"""`lco backup`, `restore` and `fsck`: they work on database and files directly, with the settings of this machine."""

import json
import os
import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from api.commands.platform import only_one
from api.commands.tables import safe
from api.commands.usage import UsageError
from store import backup as backups
from store.database import Database, make_engine
from store.fsck import check
from store.settings import Settings


def backup(options: Namespace) -> int:
    """Makes a backup, and prints where it is."""
    os.umask(0o077)
    settings = _existing()
    try:
        made = backups.back_up(settings, Path(options.folder), _say)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    if options.json:
        print(json.dumps({**asdict(made), "directory": str(made.directory)}))
    else:
        print(made.directory)
        size = made.size_bytes / 1e6
        shared = f"{made.num_shared} shared with an earlier backup"
        _say(f"{made.num_rows} rows, {made.num_files} files ({shared}), {size:.1f} MB")
    for path in made.missing:
        _say(f"warning: a row names {safe(path)}, which is not there; `lco fsck` says more")
    return 0


def restore(options: Namespace) -> int:
    """Restores a backup, or only checks it."""
    os.umask(0o077)
    settings, source = Settings.from_environment(), Path(options.backup)
    try:
        if options.verify:
            damaged = backups.verify(source)
            for name in damaged:
                print(f"damaged or missing: {safe(name)}")
            _say("the backup is damaged" if damaged else "the backup is whole")
            return 1 if damaged else 0
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with only_one(settings.data_dir):
            made = backups.restore(settings, source, _say)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    _say(f"restored {made.num_rows} rows and {made.num_files} files")
    _say("`lco fsck` checks them, `lco up` starts the platform")
    return 0


def fsck(options: Namespace) -> int:
    """Prints what is wrong; 1 where anything is."""
    settings = _existing()
    database = Database(make_engine(settings))
    num_findings = 0
    try:
        for finding in check(database, settings, is_deep=not options.quick, say=lambda _: None):
            num_findings += 1
            if options.json:
                print(json.dumps(finding.document()), flush=True)
            else:
                print(f"{finding.check}: {safe(finding.object)} {safe(finding.message)}", flush=True)
    finally:
        database.dispose()
    if not options.json:
        _say(f"{num_findings} findings" if num_findings else "every check passed")
    return 1 if num_findings else 0


def _existing() -> Settings:
    """The settings of a platform that exists.

    Raises:
        UsageError: there is none here.
    """
    settings = Settings.from_environment()
    if not settings.database_url and not (settings.data_dir / "lco.sqlite3").exists():
        raise UsageError(f"there is no platform in {settings.data_dir.absolute()}: LCO_DATA_DIR names its directory")
    return settings


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
