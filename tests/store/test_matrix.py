import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Invalid
from store.matrix import MAX_JOBS, expand, is_matrix

METHODS = [{"name": "kld", "loss": {"name": "lco-kld", "beta": 1.0}}, {"name": "ppo", "loss": {"name": "ppo"}}]


def document(**changes):
    """Two axes over a training job and a shared stage."""
    plain = {
        "name": "sweep",
        "seeds": [0, 1],
        "axes": {"method": METHODS, "rate": [0.1, 0.01]},
        "jobs": [
            {"name": "sft", "config": {"text": "{question}"}},
            {
                "name": "train-{method.name}-{rate}",
                "each": ["method", "rate"],
                "seeds": [7],
                "config": {"algorithm": "{method.loss}", "rate": "{rate}", "text": "{{question}}"},
            },
        ],
    }
    return plain | changes


def test_every_combination_is_a_job_and_a_shared_stage_is_made_once():
    expanded = expand(document())
    names = [job["name"] for job in expanded.document["jobs"]]
    assert names == ["sft", "train-kld-0.1", "train-kld-0.01", "train-ppo-0.1", "train-ppo-0.01"]
    assert expanded.origins == [0, 1, 1, 1, 1]
    assert expanded.document.keys() == {"name", "jobs"}


def test_a_placeholder_alone_becomes_the_value_with_its_type():
    job = expand(document()).document["jobs"][2]
    assert job["config"] == {"algorithm": METHODS[0]["loss"], "rate": 0.01, "text": "{question}"}
    job["config"]["algorithm"]["beta"] = 2.0
    assert METHODS[0]["loss"]["beta"] == 1.0


def test_a_plain_job_keeps_its_braces_and_takes_the_seeds_it_does_not_state():
    sft, train, *_ = expand(document()).document["jobs"]
    assert sft == {"name": "sft", "config": {"text": "{question}"}, "seeds": [0, 1]}
    assert train["seeds"] == [7]


@pytest.mark.parametrize("excluded", [{"method": "ppo", "rate": 0.1}, {"method": METHODS[1], "rate": 0.1}])
def test_a_combination_is_left_out_by_value_or_by_name(excluded):
    names = [job["name"] for job in expand(document(exclude=[excluded])).document["jobs"]]
    assert names == ["sft", "train-kld-0.1", "train-kld-0.01", "train-ppo-0.01"]


@pytest.mark.parametrize(
    ("changes", "pointer", "message"),
    [
        ({"axes": [1]}, "/axes", "maps names"),
        ({"axes": {"method": METHODS, "rate": []}}, "/axes/rate", "at least one value"),
        ({"axes": {"method": METHODS, "rate": [1, 1]}}, "/axes/rate", "stands twice"),
        ({"axes": {"method": METHODS, "rate": [1], "A b": [1]}}, "/axes", "name of an axis"),
        ({"axes": {"method": METHODS, "rate": [1], "more": [1]}}, "/axes/more", "no job names this axis"),
        ({"exclude": [{"rat": 1}]}, "/exclude/0/rat", "no such axis"),
        ({"exclude": [{"rate": 5}]}, "/exclude/0/rate", "no such value"),
        ({"jobs": {}}, "/jobs", "list of jobs"),
        ({"jobs": [{"each": "rate"}]}, "/jobs/0/each", "list of names"),
        ({"jobs": [{"each": ["rates"]}]}, "/jobs/0/each/0", "no such axis"),
        ({"jobs": [{"each": ["rate"], "name": "{method}"}]}, "/jobs/0/name", "names no axis 'method'"),
        ({"jobs": [{"each": ["method"], "name": "{method.nam}"}]}, "/jobs/0/name", "has no field 'nam'"),
        ({"jobs": [{"each": ["method"], "a": [{"b": "x{method}"}]}]}, "/jobs/0/a/0/b", "stands alone"),
        ({"axes": {"method": METHODS, "rate": list(range(MAX_JOBS))}}, "/jobs/1", "more than 1000 jobs"),
    ],
)
def test_a_mistake_is_named_by_its_place(changes, pointer, message):
    with pytest.raises(Invalid, match=message) as caught:
        expand(document(**changes))
    assert caught.value.pointer == pointer


@given(st.lists(st.integers(0, 9), min_size=1, unique=True), st.lists(st.text(min_size=1), min_size=1, unique=True))
def test_the_number_of_jobs_is_the_product_of_the_axes(first, second):
    job = {"each": ["a", "b"], "value": ["{a}", "{b}"]}
    jobs = expand({"axes": {"a": first, "b": second}, "jobs": [job]}).document["jobs"]
    assert [tuple(job["value"]) for job in jobs] == [(a, b) for a in first for b in second]


def test_a_document_without_a_matrix_is_left_alone():
    assert not is_matrix({"name": "x", "jobs": [{"name": "y"}]})
    assert not is_matrix([1])
    assert is_matrix({"jobs": [{"each": []}]})
