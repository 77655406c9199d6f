"""Journals: what was recorded is found again, by key, whatever a kill left of the file."""

import json
import math
import threading

import pytest

from evaluation.records import Journal, content_key, sound


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def write(path, *entries):
    with Journal(path) as journal:
        for key, value in entries:
            journal.put(key, value)


def test_equal_contents_have_equal_keys_and_other_contents_others():
    assert content_key(a=1, b=[2, "x"]) == content_key(b=[2, "x"], a=1)
    assert len({content_key(a=1), content_key(a=2), content_key(b=1), content_key(a="1"), content_key()}) == 5


def test_what_was_put_is_got_by_this_process_and_the_next(path):
    with Journal(path) as journal:
        assert journal.get("k") is None and "k" not in journal
        journal.put("k", {"text": "é\n"})
        assert journal.get("k") == {"text": "é\n"} and "k" in journal
    with Journal(path) as again:
        assert again.get("k") == {"text": "é\n"} and len(again) == 1


def test_a_line_is_in_the_file_when_put_returns(path):
    with Journal(path, sync_seconds=1e9) as journal:
        journal.put("k", {"n": 1})
        assert json.loads(path.read_text()) == {"key": "k", "value": {"n": 1}}


def test_the_newest_value_of_a_key_counts(path):
    write(path, ("k", {"n": 1}), ("k", {"n": 2}))
    with Journal(path) as journal:
        assert journal.get("k") == {"n": 2}


def test_earlier_attempts_are_read_newest_first_and_never_written(tmp_path, path):
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    write(old, ("a", {"n": 1}), ("b", {"n": 1}))
    write(new, ("b", {"n": 2}))
    before = old.read_bytes(), new.read_bytes()
    with Journal(path, [new, tmp_path / "missing.jsonl", old]) as journal:
        assert (journal.get("a"), journal.get("b")) == ({"n": 1}, {"n": 2})
        journal.put("a", {"n": 3})
        assert journal.get("a") == {"n": 3}
    assert (old.read_bytes(), new.read_bytes()) == before


def test_a_journal_cut_at_any_byte_keeps_every_whole_line_and_goes_on(path):
    write(path, *((str(n), {"text": "é" * n}) for n in range(4)))
    whole = path.read_bytes()
    ends = [position + 1 for position, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends)
        with Journal(path) as journal:
            assert len(journal) == kept
            assert [journal.get(str(n)) for n in range(kept)] == [{"text": "é" * n} for n in range(kept)]
            journal.put("next", {"n": cut})
        with Journal(path) as again:
            assert (len(again), again.get("next")) == (kept + 1, {"n": cut})


@pytest.mark.parametrize(
    "line", [b"\xff\x00", b"", b"null", b"[]", b'{"key": "k"}', b'{"key": 1, "value": {}}', b"[" * 50_000]
)
def test_a_damaged_line_costs_itself_alone(path, line):
    write(path, ("a", {"n": 1}))
    path.write_bytes(path.read_bytes() + line + b"\n")
    write(path, ("b", {"n": 2}))
    with Journal(path) as journal:
        assert (journal.get("a"), journal.get("b"), len(journal)) == ({"n": 1}, {"n": 2}, 2)


def test_several_threads_write_whole_lines(path):
    with Journal(path, sync_seconds=1.0) as journal:

        def work(name):
            for n in range(50):
                journal.put(f"{name}-{n}", {"text": name * 100})
                assert journal.get(f"{name}-{n}") == {"text": name * 100}

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(journal) == 200
    assert all(json.loads(line)["value"]["text"] for line in path.read_text().splitlines())
    with Journal(path) as again:
        assert len(again) == 200


def test_what_no_reader_could_take_is_mended():
    value = {"a\ud800": ["\udfff", 1.5, math.nan, -math.inf, None, True, ("é", 3)]}
    assert sound(value) == {"a\ufffd": ["\ufffd", 1.5, None, None, None, True, ["é", 3]]}
