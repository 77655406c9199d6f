"""Objects for a terminal: columns for a person, JSON for a program."""

import json
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
    """Prints rows under a head, each column as wide as it needs; says so where there are none."""
    if not rows:
        print("(none)")
        return 0
    cells = [list(head), *[[shown(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def shown(cell: object) -> str:
    """A cell as text: safe for a terminal, whatever it holds."""
    if isinstance(cell, datetime):
        return cell.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return safe("-" if cell is None or cell == "" else str(cell))


def safe(text: str) -> str:
    """Text without the control characters that terminals obey; line ends and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
