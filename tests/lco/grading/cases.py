"""Rewrites that have to be accepted and near misses that have to be refused, by kind: see `cases.txt`."""

from pathlib import Path


def _read() -> dict[str, list[tuple[str, str, bool]]]:
    """(reference, answer, is correct) by kind."""
    cases: dict[str, list[tuple[str, str, bool]]] = {}
    kind, is_correct = "", False
    for line in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines():
        if line[:2] in ("= ", "! ") and "¦" not in line:
            kind, is_correct = line[2:], line[0] == "="
        elif kind and line:
            reference, answer = line.split(" ¦ ")
            cases.setdefault(kind, []).append((reference, answer, is_correct))
    return cases


CASES = _read()
