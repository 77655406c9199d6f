"""Fixtures of the evaluation's tests: those of the engine."""

from tests.lco.conftest import _one_thread, generator, launcher, stage, tiny_model, tiny_policy

__all__ = ["_one_thread", "generator", "launcher", "stage", "tiny_model", "tiny_policy"]
