"""Prompts: disjoint splits, stable ids, demonstrations, and errors that name file and row."""

import gzip
import json
import random
from collections import Counter

import pytest

from lco.answers import grade
from lco.config import Gsm8k, Jsonl, Sums
from lco.prompts import MAX_ROW_BYTES, load_prompts, make_sums, read_jsonl, split_of

SPLITS = ("train", "validation", "test")


def test_no_problem_is_in_two_splits():
    texts = [{prompt.text for prompt in make_sums(Sums(split=split, num_problems=2000), 3)} for split in SPLITS]
    assert all(len(found) == 2000 for found in texts)
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]


def test_a_split_holds_exactly_the_problems_whose_hash_says_so():
    for split in SPLITS:
        assert {split_of(prompt.text) for prompt in make_sums(Sums(split=split, num_problems=200))} == {split}
    counts = Counter(split_of(f"{n}+{n + 1}=") for n in range(9000))
    assert all(abs(count - 3000) < 200 for count in counts.values())


def test_ids_are_stable_names_of_the_problem_alone():
    first = {prompt.id: prompt.text for prompt in make_sums(Sums(num_problems=1000, num_terms=2, max_term=60), 0)}
    second = {prompt.id: prompt.text for prompt in make_sums(Sums(num_problems=1000, num_terms=2, max_term=60), 1)}
    shared = first.keys() & second.keys()
    assert all(first[name] == second[name] for name in shared)
    assert all(name == f"sums/{text}" for name, text in first.items())


def test_the_same_seed_gives_the_same_problems_and_another_seed_others():
    config = Sums(num_problems=50, wrong_step_rate=0.3)
    assert list(make_sums(config, 1)) == list(make_sums(config, 1))
    assert list(make_sums(config, 1)) == list(make_sums(config.model_copy(update={"seed": 1}), 0))
    assert [p.text for p in make_sums(config, 1)] != [p.text for p in make_sums(config, 2)]


def test_a_demonstration_adds_up_step_by_step_to_the_reference():
    for prompt in make_sums(Sums(num_problems=200, num_terms=4, max_term=99)):
        terms = [int(term) for term in prompt.text[:-1].split("+")]
        assert prompt.reference == str(sum(terms))
        total = terms[0]
        for step, term in zip(prompt.demonstration.split(";"), terms[1:], strict=True):
            assert step == f"{total}+{term}={total + term}"
            total += term
        assert grade(prompt.demonstration, prompt.reference, "last-equals").is_correct


def test_wrong_steps_come_at_the_configured_rate_and_are_continued_from():
    num_steps = num_wrong = 0
    for prompt in make_sums(Sums(num_problems=1500, num_terms=4, max_term=99, wrong_step_rate=0.2)):
        shown = prompt.text.split("+")[0]
        for step in prompt.demonstration.split(";"):
            left, right = step.split("=")
            start, term = left.split("+")
            assert start == shown
            num_steps, num_wrong, shown = num_steps + 1, num_wrong + (int(start) + int(term) != int(right)), right
    assert num_wrong / num_steps == pytest.approx(0.2, abs=0.03)


def test_a_problem_space_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="num_problems: the test split has fewer than 1000 problems"):
        load_prompts(Sums(split="test", num_terms=2, max_term=9, num_problems=1000))


def test_making_problems_leaves_the_global_generator_alone():
    random.seed(5)
    state = random.getstate()
    list(make_sums(Sums(num_problems=10)))
    assert random.getstate() == state


def write_rows(path, rows):
    content = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_gsm8k_rows_become_prompts_with_reference_and_demonstration(tmp_path, name):
    rows = [
        {"question": "2 and 3?", "answer": "2 + 3 = <<2+3=5>>5 apples\n#### 1,005"},
        {"question": "more?", "answer": "#### 7"},
    ]
    path = write_rows(tmp_path / name, rows)
    first, second = load_prompts(Gsm8k(path=str(path), instruction="Q: {question} A:"))
    assert (first.text, first.reference) == ("Q: 2 and 3? A:", "1005")
    assert first.demonstration == "2 + 3 = 5 apples\nThe final answer is \\boxed{1005}."
    assert grade(first.demonstration, first.reference, "boxed").is_correct
    assert first.id.startswith("gsm8k/") and first.id != second.id
    assert load_prompts(Gsm8k(path=str(path), num_problems=1, instruction="other {question}"))[0].id == first.id


def test_jsonl_fields_are_named_by_the_configuration_and_numbers_are_references_too(tmp_path):
    rows = [{"q": "a", "r": 12, "c": "so 12"}, {"q": "b", "r": "x"}, {"q": "c", "r": None, "c": None}]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    fields = {"prompt_field": "q", "reference_field": "r", "completion_field": "c"}
    found = load_prompts(Jsonl(path=str(path), **fields))
    assert [(p.text, p.reference, p.demonstration) for p in found] == [
        ("a", "12", "so 12"),
        ("b", "x", ""),
        ("c", "", ""),
    ]


def test_blank_lines_are_passed_over_and_counted_in_row_numbers(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", ["", '{"a": 1}', "  ", '{"a": 2}'])
    assert list(read_jsonl(path)) == [(2, {"a": 1}), (4, {"a": 2})]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "a"}, "{"], "row 2 is no JSON"),
        ([{"prompt": "a"}, "[1]"], "row 2 is no JSON object"),
        ([{"prompt": "a"}, {"other": "b"}], "row 2 has no text field 'prompt'"),
        ([{"prompt": 3}], "row 1 has no text field 'prompt'"),
        (["[" * 200_000], "row 1 is no JSON"),
        (['{"prompt": ' + "9" * 5000 + "}"], "row 1 is no JSON"),
        (['{"prompt": "' + "x" * MAX_ROW_BYTES + '"}'], "row 1 is longer than"),
        ([{"prompt": "a", "completion": 3}], "row 1 has no text field 'completion'"),
        ([{"prompt": ""}], "row 1: the prompt is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_error_in_a_file_names_file_and_row(tmp_path, rows, message):
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ValueError) as error:
        load_prompts(Jsonl(path=str(path)))
    assert str(path) in str(error.value) and message in str(error.value)


def test_a_gsm8k_row_without_its_answer_line_is_named(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"question": "q", "answer": "5"}])
    with pytest.raises(ValueError, match=r"row 1: the answer has no line `#### N`"):
        load_prompts(Gsm8k(path=str(path)))


def test_a_missing_or_broken_file_is_the_users_error(tmp_path):
    whole = gzip.compress(b'{"prompt": "a"}\n' * 1000)
    for name, content in (
        ("cut.gz", whole[: len(whole) // 2]),
        ("bad.gz", b"no gzip"),
        ("flip.gz", whole[:12] + b"\0\0" + whole[14:]),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            load_prompts(Jsonl(path=str(tmp_path / name)))
    for path in (tmp_path / "absent.jsonl", tmp_path):
        with pytest.raises(ValueError, match="cannot be read"):
            load_prompts(Jsonl(path=str(path)))
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xff"}\n')
    with pytest.raises(ValueError, match="row 1 is no JSON"):
        load_prompts(Jsonl(path=str(tmp_path / "latin.jsonl")))
