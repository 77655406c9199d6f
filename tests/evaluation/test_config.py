"""What the configuration of an evaluation refuses, with the field named."""

import json

import pytest
from pydantic import ValidationError

from evaluation.config import Decoding, EvalConfig, parse_decoding

BASE = {"policy": "p", "benchmarks": [{"name": "sums"}]}


@pytest.mark.parametrize(
    ("label", "temperature", "top_p"),
    [
        ("greedy", 0.0, 1.0),
        ("t1.0", 1.0, 1.0),
        ("t1", 1.0, 1.0),
        ("t0.6-p0.95", 0.6, 0.95),
        ("t0.6-p.9", 0.6, 0.9),
        ("t2-p1", 2.0, 1.0),
    ],
)
def test_a_label_names_its_decoding(label, temperature, top_p):
    assert parse_decoding(label) == Decoding(temperature=temperature, top_p=top_p)


@pytest.mark.parametrize(
    "label",
    [
        "",
        "t",
        "t0",
        "t0.0",
        "t-1",
        "1.0",
        "t1.0-p",
        "t1.0-p0",
        "t1.0-p0.0",
        "t1.0-p1.5",
        "t11",
        "Greedy",
        "t1.0 ",
        "t1e0",
        "t٣",
    ],
)
def test_any_other_label_is_refused(label):
    with pytest.raises(ValueError, match="is no decoding"):
        parse_decoding(label)


@pytest.mark.parametrize(
    "change",
    [
        {"benchmarks": []},
        {"benchmarks": [{"name": "sum"}]},
        {"benchmarks": [{"name": "gsm8k"}]},
        {"benchmarks": [{"name": "gsm8k", "problems": {"path": "x"}, "extraction": "last-equals"}]},
        {"decodings": []},
        {"decodings": ["t0"]},
        {"eval_seeds": []},
        {"eval_seeds": [-1]},
        {"batch_size": 0},
        {"policy": ""},
        {"judge": "x"},
    ],
    ids=str,
)
def test_a_wrong_field_is_refused_by_name(change):
    with pytest.raises(ValidationError) as error:
        EvalConfig.model_validate_json(json.dumps(BASE | change))
    assert error.value.errors()[0]["loc"][0] == next(iter(change))


@pytest.mark.parametrize(
    "change",
    [
        {"benchmarks": [{"name": "sums"}, {"name": "sums", "max_tokens": 3}]},
        {"decodings": ["greedy", "greedy"]},
        {"eval_seeds": [1, 2, 1]},
    ],
    ids=str,
)
def test_nothing_is_measured_twice_under_one_name(change):
    with pytest.raises(ValidationError, match=f"{next(iter(change))}: .* names one twice"):
        EvalConfig.model_validate(BASE | change)


def test_every_field_says_what_it_is():
    for name, field in EvalConfig.model_fields.items():
        assert field.description, f"EvalConfig.{name} has no docstring"
