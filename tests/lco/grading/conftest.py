"""One grader for all tests: its process takes about a second to start."""

import pytest

from lco.grading.grader import Grader


@pytest.fixture(scope="session")
def grader():
    with Grader(num_workers=1, wall_seconds=6.0) as grader:  # what is right does not depend on a busy machine
        yield grader
