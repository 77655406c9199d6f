"""Uploaded rows: what is kept, and what is refused by its row."""

import json
import threading

import pytest

from store.artifacts import data_file, resolved_config
from store.errors import Invalid, InvalidRows
from store.naming import dataset_version
from store.repositories.datasets import Datasets, rows_of
from store.settings import Settings
from store.uploads import MAX_PROBLEMS, keep_rows


@pytest.fixture
def keep(tmp_path):
    settings = Settings(data_dir=tmp_path, dataset_max_bytes=10_000)

    def kept(content: bytes, form="jsonl", text_fields=()):
        place = tmp_path / "upload"
        place.write_bytes(content)
        rows = keep_rows(settings, place, form, text_fields)
        return rows, data_file(settings, rows.path).read_bytes()

    return kept


def complaints(keep, *arguments, **more):
    with pytest.raises(InvalidRows) as caught:
        keep(*arguments, **more)
    return {problem.row: problem.message for problem in caught.value.problems}


def test_the_same_rows_are_the_same_whatever_they_were_written_in(keep, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"prompt": ["a", 'b "c"\nd'], "completion": ["é", "2"]}), tmp_path / "p")
    lines = b'\xef\xbb\xbf{"prompt": "a", "completion":"\\u00e9"}\r\n\n{"prompt":"b \\"c\\"\\nd","completion":"2"}'
    table = 'prompt,completion\r\na,é\r\n"b ""c""\nd",2\r\n'.encode()
    found = [keep(lines), keep(table, "csv"), keep((tmp_path / "p").read_bytes(), "parquet")]
    assert len({rows.sha256 for rows, _ in found}) == 1
    assert [json.loads(line)["prompt"] for line in found[0][1].splitlines()] == ["a", 'b "c"\nd']
    assert (found[0][0].num_rows, found[0][0].columns) == (2, ["prompt", "completion"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "no JSON"),
        (b"[1]", "no JSON object"),
        (b'{"a": NaN}', "not finite"),
        (b'{"a": 1e999}', "not finite"),
        (b'{"a": 1, "a": 2}', "same key twice"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"": 1}', "name"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "nested"),
        (b'{"a": ' + b"[" * 9000 + b"}", "no JSON"),
    ],
)
def test_a_wrong_row_is_named_by_its_number(keep, line, message):
    found = complaints(keep, b'{"a": "1"}\n' + line + b'\n{"a": "2"}\n')
    assert list(found) == [2]
    assert message in found[2]


def test_csv_rows_are_counted_below_the_header(keep):
    assert list(complaints(keep, b"a,b\n1,2\n1\n1,2,3\n", "csv")) == [2, 3]
    assert list(complaints(keep, b'a,b\n1,2\n"1,2\n', "csv")) == [2]
    assert list(complaints(keep, b"a,b\n1,2\n\xff,2\n", "csv")) == [2]
    assert list(complaints(keep, b"a,a\n1,2\n", "csv")) == [0]


def test_fields_that_must_hold_text_are_looked_for_in_every_row(keep):
    found = complaints(keep, b'{"prompt": "a"}\n{"prompt": " "}\n{"prompt": 3}\n{}\n', text_fields=["prompt"])
    assert list(found) == [2, 3, 4]


def test_files_without_rows_or_of_another_format_are_refused(keep):
    assert complaints(keep, b"\n\n") == {0: "the file has no rows"}
    assert "Parquet" in complaints(keep, b"PAR1 no", "parquet")[1]


def test_reading_ends_after_some_wrong_rows(keep):
    assert len(complaints(keep, b"x\n" * 1000)) == MAX_PROBLEMS


def test_rows_beyond_the_cap_are_refused_and_leave_nothing(keep, tmp_path):
    assert "10000 bytes" in complaints(keep, (b'{"a": "%s"}\n' % (b"x" * 1000)) * 11)[10]
    assert [path.name for path in (tmp_path / "data" / "datasets").rglob("*")] == [".incoming"]


def uploaded(rig, content: bytes, name="mine"):
    rig.settings.data.mkdir(parents=True, exist_ok=True)
    place = rig.settings.data / "upload"
    place.write_bytes(content)
    rows = keep_rows(rig.settings, place, "jsonl")
    with rig.database.write() as session:
        return Datasets(session).add_version(name, "jsonl", rows, {})


def prompts(source):
    return {"prompts": {"name": "jsonl", "path": source}}


def test_versions_count_up_and_equal_rows_add_none(rig):
    seen = [uploaded(rig, content) for content in (b'{"p": 1}\n', b'{"p":1}', b'{"p": 2}\n', b'{"p": 1}\n')]
    assert [(row.version, is_new) for row, is_new in seen] == [(1, True), (1, False), (2, True), (3, True)]
    assert uploaded(rig, b'{"p": 1}\n', "other")[0].version == 1
    with rig.database.read() as session:
        assert [row.version for row in Datasets(session).page(name="mine").rows] == [3, 2, 1]
        assert dataset_version(session, "mine").version == 3
        assert dataset_version(session, "mine@2").sha256 == seen[2][0].sha256
        assert dataset_version(session, "mine@4") is None


def test_uploads_of_one_name_at_once_get_different_versions(rig):
    rows = [b'{"p": %d}\n' % number for number in range(6)]
    made: list[int] = []
    kept = []
    rig.settings.data.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(rows):
        place = rig.settings.data / f"upload{number}"
        place.write_bytes(content)
        kept.append(keep_rows(rig.settings, place, "jsonl"))

    def add(found):
        with rig.database.write() as session:
            made.append(Datasets(session).add_version("mine", "jsonl", found, {})[0].version)

    threads = [threading.Thread(target=add, args=(found,)) for found in kept]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [1, 2, 3, 4, 5, 6]


def test_a_submitted_job_keeps_the_version_that_was_newest(rig):
    first, _ = uploaded(rig, b'{"prompt": "a"}\n')
    job = rig.submit(config=prompts("dataset:mine"))
    uploaded(rig, b'{"prompt": "b"}\n')
    assert job.spec["config"]["prompts"]["path"] == "dataset:mine@1"
    taken = rig.take()
    with rig.database.read() as session:
        config = resolved_config(session, rig.settings, taken)
    assert config["prompts"]["path"] == str(rig.settings.data / first.path)


def test_reuse_goes_by_the_rows_not_by_name_or_version(rig):
    from tests.store.test_reuse import play, runs_of

    uploaded(rig, b'{"prompt": "a"}\n')
    rig.submit_experiment(rig.spec("sft", config=prompts("dataset:mine")))
    play(rig)
    uploaded(rig, b'{"prompt": "b"}\n')
    uploaded(rig, b'{"prompt": "a"}\n', "copy")
    states = [
        runs_of(rig, rig.submit_experiment(rig.spec("sft", config=prompts(source))))["sft"].state
        for source in ("dataset:mine@1", "dataset:copy", "dataset:mine")
    ]
    assert states == ["succeeded", "succeeded", "queued"]


@pytest.mark.parametrize("source", ["dataset:nothing", "dataset:mine@7"])
def test_what_does_not_exist_is_refused_by_its_place(sqlite_rig, source):
    uploaded(sqlite_rig, b'{"prompt": "a"}\n')
    with pytest.raises(Invalid) as caught:
        sqlite_rig.submit(config=prompts(source))
    assert caught.value.pointer == "/config/prompts/path"


def test_a_file_that_was_cut_is_refused(sqlite_rig):
    row, _ = uploaded(sqlite_rig, b'{"prompt": "a"}\n')
    (sqlite_rig.settings.data / row.path).write_bytes(b"{}\n")
    with pytest.raises(Invalid, match="damaged"):
        sqlite_rig.submit(config=prompts("dataset:mine"))


def test_rows_are_read_page_by_page(sqlite_rig):
    row, _ = uploaded(sqlite_rig, b"".join(b'{"p": %d}\n' % number for number in range(5)))
    assert rows_of(sqlite_rig.settings, row, 2) == ([{"p": 0}, {"p": 1}], True)
    assert rows_of(sqlite_rig.settings, row, 2, 3) == ([{"p": 3}, {"p": 4}], False)
