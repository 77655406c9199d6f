"""The platform's own log: its forms, what a line is about, and no secrets in it."""

import json
import logging
from collections.abc import Callable, Iterator

import pytest

from store import logs
from store.settings import Settings


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What was written to stderr; the root logger is as before afterwards."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield lambda: capsys.readouterr().err
    root.handlers[:] = before
    root.setLevel(level)


def configured(settings: Settings, **more: object) -> logging.Logger:
    logs.configure(settings.model_copy(update=more), logging.INFO)
    return logging.getLogger("worker.test")


def test_a_json_line_says_what_it_is_about(settings: Settings, written: Callable[[], str]) -> None:
    logger = configured(settings, log_format="json")
    with logs.bound(run_id="run_x", attempt=2), logs.bound(request_id="r\n1"):
        logger.warning("two\nlines: %s", "ü")
    logger.info("later")
    first, second = [json.loads(line) for line in written().splitlines()]
    moment = first.pop("time")
    assert first == {
        "level": "warning",
        "logger": "worker.test",
        "message": "two\nlines: ü",
        "run_id": "run_x",
        "attempt": 2,
        "request_id": "r\n1",
    }
    assert moment.endswith("+00:00")
    assert second.keys() == {"time", "level", "logger", "message"}


def test_an_exception_is_part_of_its_line(settings: Settings, written: Callable[[], str]) -> None:
    logger = configured(settings, log_format="json")
    try:
        raise ValueError("wrong")
    except ValueError:
        logger.exception("it failed")
    (line,) = written().splitlines()
    assert json.loads(line)["exception"].splitlines()[-1] == "ValueError: wrong"


def test_text_names_what_it_is_about_at_its_end(settings: Settings, written: Callable[[], str]) -> None:
    logger = configured(settings)
    with logs.bound(run_id="run_x"):
        logger.info("started")
    assert written().endswith(" INFO worker.test: started  [run_id=run_x]\n")


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_is_in_a_log(
    settings: Settings, written: Callable[[], str], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "canary-judge")
    logger = configured(
        settings,
        log_format=form,
        endpoints="https://judge.example=JUDGE_KEY",
        database_url="postgresql://lco:canary-database@db/lco",
        broker_url="redis://:canary-broker@broker/0",
        api_key="canary-admin",
    )
    logger.error("judge canary-judge, canary-admin, canary-database alone, redis://:canary-broker@broker/0")
    logger.error("lco_sk_01abc_canary-secret and https://me:canary-url@host/x and Authorization: Bearer canary-bearer")
    try:
        raise RuntimeError("canary-judge")
    except RuntimeError:
        logger.exception("refused")
    text = written()
    assert "canary" not in text
    assert text.count(logs.HIDDEN) == 9
    assert "redis://:" in text
