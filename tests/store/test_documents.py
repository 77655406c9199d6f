import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.documents import Difference, differences, merged

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("document", "patch", "result"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_is_that_of_rfc_7396(document, patch, result):
    assert merged(document, patch) == result


def test_jobs_are_patched_by_their_names():
    jobs = {"jobs": [{"name": "a", "x": 1, "y": 2}, {"name": "b", "x": 1}, {"name": "c"}]}
    patch = {"jobs": {"a": {"x": 5, "y": None}, "b": None, "d": {"x": 9}}}
    assert merged(jobs, patch) == {"jobs": [{"name": "a", "x": 5}, {"name": "c"}, {"name": "d", "x": 9}]}


@given(JSON)
def test_a_document_does_not_differ_from_itself(document):
    assert list(differences(document, copy.deepcopy(document))) == []


@given(JSON, JSON)
def test_two_documents_differ_somewhere_unless_they_are_equal(before, after):
    assert bool(list(differences(before, after))) == (
        json.dumps(before, sort_keys=True) != json.dumps(after, sort_keys=True)
    )


def test_differences_name_the_place_and_one_more_job_moves_nothing():
    before = {"jobs": [{"name": "b", "config": {"rate": 1}}], "gone": 1}
    after = {"jobs": [{"name": "a"}, {"name": "b", "config": {"rate": 2}}]}
    assert list(differences(before, after)) == [
        Difference("/jobs/b/config/rate", 1, 2),
        Difference("/jobs/a", None, {"name": "a"}),
        Difference("/gone", 1, None),
    ]
