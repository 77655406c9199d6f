"""Fixtures of the evaluation's tests: those of the engine, and graders."""

import pytest

from evaluation.graders import Graders
from tests.lco.conftest import _one_thread, generator, launcher, stage, tiny_model, tiny_policy

__all__ = ["_one_thread", "generator", "graders", "launcher", "stage", "tiny_model", "tiny_policy"]


@pytest.fixture
def graders(tmp_path):
    (tmp_path / "graders").mkdir()
    with Graders(tmp_path / "graders") as opened:
        yield opened
