"""One grader for all tests: its process takes about a second to start."""

import pytest

from lco.grading.grader import Grader


@pytest.fixture(scope="session")
def grader():
    with Grader(num_workers=1) as grader:
        yield grader
