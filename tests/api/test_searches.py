"""The trials of a search over HTTP, on the command line and on the page."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api import cli
from api.client import Client
from api.dashboard.search import drawn
from store.queue import append_metrics
from store.search import advance_searches
from store.states import Outcome
from tests.api.conftest import Hand
from tests.store.test_search import DOCUMENT


@pytest.fixture
def client(http: TestClient) -> Client:
    """A client of the application under test."""
    return Client("http://test", http.headers["authorization"].removeprefix("Bearer "), http=http)


@pytest.fixture
def searched(client: Client, hand: Hand) -> str:
    """An experiment whose first rung was decided."""
    document: dict[str, Any] = json.loads(json.dumps(DOCUMENT))
    found = client.submit_experiment(document | {"seeds": [0]})
    for number in range(6):
        claim = hand.claim()
        with hand.database.write() as session:
            append_metrics(session, claim, [(2, {"eval/accuracy": 0.1 * number})])
        hand.finish(claim, Outcome.BOUNDARY)
    with hand.database.write() as session:
        assert advance_searches(session) == 6
    return found.id


def test_a_search_tells_its_trials(client: Client, http: TestClient, searched: str, experiment: dict[str, Any]) -> None:
    found = client.search(searched)
    assert (found.method, found.metric, found.factor) == ("random", "eval/accuracy", 2)
    assert (found.num_running, found.num_stopped, found.num_finished) == (3, 3, 0)
    (best,) = [trial for trial in found.trials if trial.is_best]
    assert (best.trial, best.value, best.rung, best.num_rungs) == ("t05", pytest.approx(0.5), 2, 3)
    assert set(best.parameters) == {"rate", "size"}
    other = client.submit_experiment(experiment)
    assert http.get(f"/v1/experiments/{other.id}/search").status_code == 404


def test_the_page_draws_every_trial_against_every_searched_value(
    client: Client, http: TestClient, searched: str
) -> None:
    page = http.get(f"/experiments/{searched}").text
    assert page.count('class="trial is-stopped"') == 6
    assert page.count('class="trial is-running is-best"') == 2
    assert "stopped by the search after step 2" in page
    drawing = drawn(client.search(searched))
    assert [(plot.name, plot.is_log) for plot in drawing.plots] == [("rate", True), ("size", False)]
    assert all(0 <= dot.x <= drawing.width and 0 <= dot.y <= drawing.height for p in drawing.plots for dot in p.dots)
    assert client.experiment(searched).status == next(client.experiments()).status == "queued"
    waiting = http.get(f"/jobs/{client.search(searched).trials[5].job_id}").text
    assert "goes on to rung 2 of 3" in waiting


def test_lco_search_show_prints_the_best_first(
    live: str, make_key: Any, searched: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LCO_URL", live)
    monkeypatch.setenv("LCO_API_KEY", make_key())
    assert cli.main(["search", "show", searched]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["trial", "rate", "size", "rung", "eval/accuracy", "state", "why"]
    assert lines[1].startswith("t05")
    assert "best" in lines[1]
    assert cli.main(["search", "show", searched, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_stopped"] == 3
