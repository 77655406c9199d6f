"""Functions that an operator could declare as rewards: sound ones, and some with every trouble."""

import os
import time


def length(prompts: list[str], completions: list[str], references: list[str]) -> list[float]:
    """The completion's length; prints, which must disturb nobody."""
    print("a function may print")
    return [float(len(completion)) for completion in completions]


def raises(prompts: list[str], completions: list[str], references: list[str]) -> list[float]:
    raise RuntimeError("the tokenizer is gone")


def odd(prompts: list[str], completions: list[str], references: list[str]) -> list[object]:
    """Every second one is no number."""
    return [1.0 if number % 2 else float("nan") for number in range(len(completions))]


def short(prompts: list[str], completions: list[str], references: list[str]) -> list[float]:
    return [1.0] * (len(completions) - 1)


def hangs(prompts: list[str], completions: list[str], references: list[str]) -> list[float]:
    """Only for completions that ask for it."""
    if "hang" in completions:
        time.sleep(60)
    return [1.0] * len(completions)


def dies(prompts: list[str], completions: list[str], references: list[str]) -> list[float]:
    if "die" in completions:
        os._exit(3)
    return [1.0] * len(completions)
