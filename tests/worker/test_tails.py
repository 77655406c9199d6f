import json
from pathlib import Path

import pytest

from lco.manifest import write_manifest
from worker.tails import Tails


def lines(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_records_become_rows(tmp_path: Path) -> None:
    state = tmp_path / "checkpoints" / "step-000002"
    state.mkdir(parents=True)
    (state / "weights").write_text("w")
    write_manifest(state, step=2, outputs={}, include=["weights"])
    (tmp_path / "progress.jsonl").write_text(
        lines(
            {"type": "event", "level": "info", "message": "resumed from step 1"},
            {"type": "progress", "step": 1, "total": 9, "message": "sampling"},
            {"type": "progress", "step": 2, "total": 9, "message": "fitting"},
            {"type": "metrics", "step": 2, "values": {"train/loss": 0.5, "train/entropy": None, "x": float("inf")}},
            {"type": "checkpoint", "step": 2, "path": "checkpoints/step-000002"},
            {"type": "checkpoint", "step": 1, "path": "checkpoints/step-000001"},
            {"type": "event", "level": "warning", "message": "a\0b\ud800"},
        )
    )
    batch = Tails(tmp_path, "log.txt").read()
    assert batch.progress == (2, 9, "fitting")
    assert batch.resumed_from_step == 1
    assert batch.metrics == [(2, {"train/loss": 0.5, "train/entropy": None, "x": None})]
    assert [manifest.step for manifest in batch.checkpoints] == [2], "the rotated one is left out"
    assert batch.messages == [("info", "resumed from step 1"), ("warning", "a\ufffdb\ufffd")]


def test_spending_is_the_largest_sum_that_was_told(tmp_path: Path) -> None:
    told = [{"type": "spending", "usd": usd} for usd in (0.5, 1.25, None, 0.75)]
    (tmp_path / "progress.jsonl").write_text(lines(*told, {"type": "spending", "usd": "2"}))
    batch = Tails(tmp_path, "log.txt").read()
    assert batch.spent == 1.25
    assert batch.messages == [("warning", "1 malformed lines in progress.jsonl were left out")]


def test_a_batch_is_read_again_until_it_is_stored(tmp_path: Path) -> None:
    tails = Tails(tmp_path, "log.txt")
    assert tails.read().is_empty
    (tmp_path / "log.txt").write_bytes("one\n€".encode()[:-1])
    first = tails.read()
    assert first.log == tails.read().log == "one\n", "the character is not complete"
    tails.advance(first)
    with (tmp_path / "log.txt").open("ab") as stream:
        stream.write("€".encode()[-1:])
    assert tails.read().log == "€"


def test_an_unfinished_line_waits_for_its_end(tmp_path: Path) -> None:
    tails = Tails(tmp_path, "log.txt")
    whole = lines({"type": "progress", "step": 1, "total": 2})
    (tmp_path / "progress.jsonl").write_text(whole + whole[:10])
    batch = tails.read()
    assert batch.progress_bytes == len(whole) and not batch.messages
    tails.advance(batch)
    assert tails.read().is_empty
    assert tails.read(is_final=True).messages == [("warning", "1 malformed lines in progress.jsonl were left out")]


@pytest.mark.parametrize(
    "line",
    [
        "", "null", "[]", "nonsense", '{"type":"other"}',
        '{"type":"progress"}', '{"type":"progress","step":-1,"total":1}', '{"type":"progress","step":true,"total":1}',
        '{"type":"metrics","step":1,"values":[]}', '{"type":"metrics","step":1,"values":{"a":"1"}}',
        '{"type":"metrics","step":1e3,"values":{}}', '{"type":"metrics","step":9223372036854775808,"values":{}}',
        '{"type":"metrics","step":1,"values":{"a":1' + "0" * 400 + "}}",
        '{"type":"checkpoint","step":1,"path":"../../etc"}', '{"type":"checkpoint","step":1,"path":"/etc"}',
        "[" * 100_000, "\udcff", "x" * (1 << 18),
    ],
)  # fmt: skip
def test_a_malformed_line_is_counted_and_harms_nothing(tmp_path: Path, line: str) -> None:
    good = lines({"type": "metrics", "step": 1, "values": {"train/loss": 1}})
    (tmp_path / "progress.jsonl").write_text(line + "\n" + good, errors="surrogateescape")
    tails, metrics, warnings = Tails(tmp_path, "log.txt"), [], 0
    while not (batch := tails.read()).is_empty:
        metrics += batch.metrics
        warnings += len(batch.messages)
        tails.advance(batch)
    assert metrics == [(1, {"train/loss": 1.0})]
    assert warnings >= 1


def test_an_endless_log_is_cut(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("x" * 100)
    tails = Tails(tmp_path, "log.txt", max_log_bytes=64)
    batch = tails.read()
    assert batch.log.startswith("x" * 64 + "\n[log.txt goes on")
    tails.advance(batch)
    assert tails.read().is_empty


def rollout(position: int = 0, **changes: object) -> dict[str, object]:
    return {
        "iteration": 10,
        "position": position,
        "prompt_id": "p",
        "prompt": "1+1=",
        "reference": "2",
        "num_tokens": 2,
        "is_truncated": False,
        "reward": None,
        "is_correct": None,
        "parts": {},
        "pieces": ["2", ""],
        "advantages": [0.5, None],
        "logprobs": [-0.1, -0.2],
    } | changes


def test_rollouts_are_read_once_each_and_malformed_ones_are_counted(tmp_path: Path) -> None:
    tails = Tails(tmp_path, "log.txt")
    whole = lines(rollout(), rollout(1, advantages=[1.0]), rollout(2))
    (tmp_path / "rollouts.jsonl").write_text(whole + lines(rollout(3))[:20])
    batch = tails.read()
    assert [row.position for row in batch.rollouts] == [0, 2]
    assert batch.messages == [("warning", "1 malformed lines in rollouts.jsonl were left out")]
    assert not batch.is_empty
    tails.advance(batch)
    assert tails.read().is_empty
