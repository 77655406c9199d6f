"""Objects for a terminal: columns for a person, JSON for a program."""

import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel


def print_json(data: BaseModel | Sequence[BaseModel]) -> int:
    """Prints an object or a list of objects as JSON."""
    document: Any = (
        data.model_dump(mode="json") if isinstance(data, BaseModel) else [item.model_dump(mode="json") for item in data]
    )
    print(json.dumps(document, indent=2))
    return 0


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> int:
    """Prints rows under a head: coloured on a terminal, else plain columns; says so where there are none."""
    if not rows:
        print("(none)")
        return 0
    cells = [list(head), *[[shown(cell) for cell in row] for row in rows]]
    if is_terminal():
        return _print_rich(cells)
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


_COLORS = {
    "running": "cyan", "leased": "cyan", "stopping": "cyan", "succeeded": "green", "alive": "green", "active": "green",
    "failed": "red", "quarantined": "red", "gone": "red", "revoked": "dim", "cancelled": "dim", "blocked": "dim",
    "paused": "yellow", "retry_wait": "yellow", "draining": "yellow",
}  # fmt: skip


def _print_rich(cells: Sequence[Sequence[str]]) -> int:
    """The table for a person: long cells are folded, ids never are."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in cells[0]:
        table.add_column(Text(name), no_wrap=name == "id", overflow="fold")
    for row in cells[1:]:
        table.add_row(*(Text(cell, style=_COLORS.get(cell, "")) for cell in row))
    Console(highlight=False).print(table)
    return 0


def is_terminal() -> bool:
    """Whether a person looks at what is printed, who likes colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def shown(cell: object) -> str:
    """A cell as text: safe for a terminal, whatever it holds."""
    if isinstance(cell, datetime):
        return cell.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return safe("-" if cell is None or cell == "" else str(cell))


def safe(text: str) -> str:
    """Text without the control characters that terminals obey; line ends and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
