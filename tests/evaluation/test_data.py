"""Rows of a source: every kind of file gives the same rows; what is wrong is named by file and row."""

import csv
import gzip
import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.data import find_file, locate, manifest_hash, read_rows

ROWS = [{"id": "a", "text": 'x, "y"\nz'}, {"id": "b", "text": "ü\u2028é"}]
REVISION = "0123456789abcdef0123456789abcdef01234567"


def content_of(suffix: str) -> bytes:
    if suffix.endswith(".gz"):
        return gzip.compress(content_of(suffix.removesuffix(".gz")))
    if suffix == ".json":
        return json.dumps(ROWS).encode()
    if suffix == ".jsonl":
        return "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=["id", "text"])
    writer.writeheader()
    writer.writerows(ROWS)
    return stream.getvalue().encode()


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".jsonl.gz", ".json.gz", ".csv.gz", ".JSONL"])
def test_every_kind_of_file_gives_the_same_rows_and_hash(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content_of(suffix.lower()))
    rows = list(read_rows(path))
    if "csv" in suffix:
        assert [row.fields["id"] for row in rows] == ["a", "b"]
    else:
        assert [row.fields for row in rows] == ROWS
        assert manifest_hash(row.fields for row in rows) == manifest_hash(ROWS)
    assert [row.number for row in rows] == [1, 2]


def test_parquet_gives_the_same_rows(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{**row, "score": float("nan"), "raw": b"x"} for row in ROWS]), path)
    assert [row.fields for row in read_rows(path)] == [{**row, "score": None, "raw": "x"} for row in ROWS]
    path.write_bytes(b"PAR1 no parquet")
    with pytest.raises(ValueError, match=r"rows\.parquet: cannot be read"):
        list(read_rows(path))


def test_parquet_without_its_extra_says_which(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match="extra `parquet`"):
        list(read_rows(tmp_path / "rows.parquet"))


def test_an_object_with_one_list_is_read_as_that_list(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"version": 1, "data": ROWS}))
    assert [row.fields for row in read_rows(path)] == ROWS


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.jsonl", b'{"x": 1}\n[2]\n', "row 2 is no JSON object"),
        ("a.jsonl", b'{"x": 1}\n{"x"\n', "row 2 is no JSON"),
        ("a.json", b"[1]", "row 1 is no JSON object"),
        ("a.json", b'{"a": [], "b": []}', "neither a list of rows"),
        ("a.json", b"[" * 100_000, "is no JSON"),
        ("a.csv", b"id,text\n1\n", "row 1 has not 2 fields"),
        ("a.csv", b"id,text\n1,2,3\n", "row 1 has not 2 fields"),
        ("a.csv", b'id,text\n1,2\n1,"2', "row 2 is no CSV"),
        ("a.csv", b"id,text\n1,\xff\n", "is no UTF-8"),
        ("a.json.gz", b"no gzip", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"x": 1}\n' * 1000, mtime=0)[:-20], "cannot be read"),
        ("a.txt", b"", "ends in none of"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_row(tmp_path, name, content, complaint):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint) as caught:
        list(read_rows(path))
    assert str(path) in str(caught.value)


def test_a_missing_file_is_an_error_with_its_name(tmp_path):
    for name in ("a.jsonl", "a.json", "a.csv", "a.parquet"):
        with pytest.raises(ValueError, match=f"{name}: cannot be read"):
            list(read_rows(tmp_path / name))
    with pytest.raises(ValueError, match=r"has none of a\.jsonl, b\.json"):
        find_file(tmp_path, ["a.jsonl", "b.json"])


def test_the_first_of_several_names_is_found(tmp_path):
    (tmp_path / "b.json").write_text("[]")
    assert find_file(tmp_path, ["a.jsonl", "b.json"]) == tmp_path / "b.json"


def test_a_field_of_another_type_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 1, "y": "text"}\n')
    (row,) = read_rows(path)
    assert row.text("y") == "text"
    assert row.text("z", default="") == ""
    with pytest.raises(ValueError, match=r"a\.jsonl: row 1 has no text field 'x'"):
        row.text("x")


@pytest.mark.parametrize(
    "source",
    [
        "hub:org/name@main/test.jsonl",
        f"hub:org/name@{REVISION[:-1]}/test.jsonl",
        f"hub:org@{REVISION}/test.jsonl",
        f"hub:org/name@{REVISION}/",
        f"hub:org/name@{REVISION}/../secret",
        "hub:",
    ],
)
def test_a_hub_source_without_a_pinned_revision_and_a_file_is_refused(source):
    with pytest.raises(ValueError, match="40-hex revision"):
        locate(source)


def test_a_hub_file_comes_from_the_local_cache_when_offline(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "datasets--org--name/snapshots" / REVISION / "data"
    snapshot.mkdir(parents=True)
    (snapshot / "test.jsonl").write_text('{"x": 1}\n')
    (row,) = read_rows(locate(f"hub:org/name@{REVISION}/data/test.jsonl"))
    assert row.fields == {"x": 1}
    with pytest.raises(ValueError, match="cannot be downloaded"):
        locate(f"hub:org/name@{REVISION}/data/absent.jsonl")


def test_a_path_is_itself(tmp_path):
    assert locate(str(tmp_path / "x.jsonl")) == tmp_path / "x.jsonl"


def test_any_change_changes_the_hash_and_the_order_of_fields_does_not():
    assert manifest_hash([{"a": 1, "b": 2}]) == manifest_hash([{"b": 2, "a": 1}])
    distinct = [[{"a": 1}], [{"a": 2}], [{"a": "1"}], [{"a": 1}, {"a": 1}], [], [{}], [{"a": 1.0}]]
    assert len({manifest_hash(rows) for rows in distinct}) == len(distinct)


def test_rows_that_are_no_json_have_no_hash():
    with pytest.raises(ValueError, match="no JSON"):
        manifest_hash([{"a": object()}])


@given(st.binary(max_size=300), st.sampled_from([".jsonl", ".json", ".csv", ".json.gz", ".parquet"]))
def test_no_content_raises_anything_but_a_value_error(content, suffix):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"a{suffix}"
        path.write_bytes(content)
        try:
            list(read_rows(path))
        except ValueError as error:
            assert str(path) in str(error)
