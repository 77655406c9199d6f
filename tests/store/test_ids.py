from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.ids import decode_id, encode_id, new_id

UUIDS = st.integers(min_value=0, max_value=2**128 - 1).map(lambda number: UUID(int=number))


@given(UUIDS)
def test_an_id_on_the_wire_names_its_uuid(identifier):
    assert decode_id("job", encode_id("job", identifier)) == identifier


@given(UUIDS, UUIDS)
def test_ids_on_the_wire_sort_as_their_uuids_do(one, other):
    assert (encode_id("run", one) < encode_id("run", other)) == (one < other)


def test_new_ids_are_version_7_and_sort_in_the_order_they_were_made():
    identifiers = [new_id() for _ in range(2000)]
    assert all(earlier < later for earlier, later in pairwise(identifiers))
    assert {(identifier.version, identifier.variant) for identifier in identifiers} == {(7, "specified in RFC 4122")}


@pytest.mark.parametrize(
    "text",
    ["", "job_", "job", "run_" + "0" * 26, "job_" + "0" * 25, "job_" + "u" * 26, "job_" + "z" * 26, "job-" + "0" * 26],
)
def test_what_is_no_job_id_is_refused(text):
    with pytest.raises(ValueError, match="is no job id"):
        decode_id("job", text)
