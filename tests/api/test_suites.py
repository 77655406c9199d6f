"""Suites and verdicts: over HTTP, by the client, on the command line."""

import asyncio
import json

import pytest

from api import cli
from api.client import AsyncClient, Client
from api.transport import ApiFailure
from store.ids import encode_id, new_id
from store.models.project import Project
from store.repositories.suites import Suites
from store.verdicts import advance
from tests.api.conftest import BASE_URL
from tests.store.conftest import Rig
from tests.store.laboratory import BAD, GOOD, Laboratory, answers

SUITE = {
    "name": "nightly",
    "description": "sums, before anything is shown",
    "benchmarks": [{"name": "sums"}],
    "eval_seeds": [0, 1],
    "baseline": "alias:champion",
    "gates": [{"benchmark": "sums", "max_drop": 0.1}],
}


@pytest.fixture
def lab(database, sqlite_settings):
    return Laboratory(Rig(database, sqlite_settings))


@pytest.fixture
def champion(lab):
    checkpoint_id = lab.checkpoint()
    lab.name("champion", checkpoint_id)
    return checkpoint_id


@pytest.fixture
def suite(http, champion):
    made = http.post("/v1/suites", json=SUITE)
    assert made.status_code == 201, made.text
    return made.json()


@pytest.fixture
def client(http, make_key):
    return Client(BASE_URL, make_key(), http=http)


def ckpt(checkpoint_id):
    return encode_id("ckpt", checkpoint_id)


def conclude(lab, told):
    lab.evaluate(told)
    advance(lab.database)


def test_a_suite_shows_its_gates_with_every_name_filled_in(http, suite):
    assert suite["gates"] == [
        {
            "benchmark": "sums",
            "metric": "pass@1",
            "decoding": "t0.6-p0.95",
            "unit": "fraction",
            "min_value": None,
            "max_drop": 0.1,
        }
    ]
    assert (suite["version"], suite["level"], suite["counts"]["open"]) == (1, 0.05, 0)
    assert http.get(f"/v1/suites/{suite['id']}").json() == suite
    assert http.get("/v1/suites?name=nightly&archived=false").json()["data"] == [suite]
    assert http.get("/v1/suites?archived=true").json()["data"] == []


@pytest.mark.parametrize(
    ("change", "pointer", "message"),
    [
        ({"baseline": "alias:nobody"}, "/baseline", "there is no alias nobody"),
        ({"baseline": "job:x"}, "/baseline", ""),
        ({"gates": []}, "/gates", ""),
        ({"gates": [{"benchmark": "sums"}]}, "/gates/0", "a gate needs one of them"),
        ({"gates": [{"benchmark": "sums", "max_drop": -0.1}]}, "/gates/0/max_drop", ""),
        ({"gates": [{"benchmark": "gsm8k", "max_drop": 0.1}]}, "", "'gsm8k' is none of sums"),
        ({"gates": [{"benchmark": "sums", "metric": "truncated", "max_drop": 0.1}]}, "", "'truncated' is none"),
        ({"decodings": ["warm"]}, "/decodings/0", "is no decoding"),
        ({"promote": {"alias": "Not A Name"}}, "/promote/alias", ""),
        ({"triggers": {"checkpoints": {"kinds": ["pairs"]}}}, "/triggers/checkpoints/kinds/0", ""),
        ({"benchmarks": [{"name": "gsm8k", "problems": {"name": "gsm8k", "source": "dataset:no"}}]}, "", ""),
        ({"more": 1}, "/more", ""),
    ],
)
def test_a_wrong_suite_is_refused_and_says_where(http, champion, change, pointer, message):
    refused = http.post("/v1/suites", json=SUITE | change)
    assert refused.status_code == 422
    error = refused.json()["errors"][0]
    assert error["pointer"].startswith(pointer)
    assert message in error["message"]


def test_a_drop_of_what_is_no_mean_of_examples_is_refused_and_told_what_to_do(http, champion):
    mmlu = {"name": "mmlu"}
    gate = {"benchmark": "mmlu", "metric": "macro-accuracy", "max_drop": 0.1}
    refused = http.post("/v1/suites", json=SUITE | {"benchmarks": [mmlu], "gates": [gate]})
    assert "set `min_value`" in refused.json()["errors"][0]["message"]
    gate |= {"max_drop": None, "min_value": 0.5}
    made = http.post("/v1/suites", json=SUITE | {"benchmarks": [mmlu], "gates": [gate]})
    assert made.status_code == 201, made.text
    assert made.json()["gates"][0]["decoding"] == "likelihood"


def test_a_patch_makes_a_version_where_the_plan_changes_alone(http, suite):
    here = f"/v1/suites/{suite['id']}"
    assert http.patch(here, json={"description": "x", "triggers": {"aliases": ["next"]}}).json()["version"] == 1
    changed = http.patch(here, json={"level": 0.01}).json()
    assert (changed["version"], changed["level"], changed["description"]) == (2, 0.01, "x")
    assert http.patch(here, json={"benchmarks": {"sums": {"max_tokens": 9}}}).json()["benchmarks"][0]["max_tokens"] == 9
    assert http.patch(here, json={"promote": {"alias": "best"}}).json()["promote"] == {"alias": "best", "on": "pass"}
    assert http.patch(here, json={"promote": None}).json()["promote"] is None
    refused = http.patch(here, json={"level": 7})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/level")
    assert http.get(here).json()["version"] == 5


def test_two_suites_may_not_have_one_name(http, suite):
    assert http.post("/v1/suites", json=SUITE).json()["code"] == "name_taken"


def test_a_verdict_goes_from_asked_for_to_its_numbers(http, lab, suite, champion):
    checkpoint_id = lab.checkpoint()
    here = f"/v1/suites/{suite['id']}/verdicts"
    asked = http.post(here, json={"checkpoint": ckpt(checkpoint_id)})
    assert (asked.status_code, asked.json()["state"], asked.json()["gates"]) == (201, "pending", [])
    again = http.post(here, json={"checkpoint": ckpt(checkpoint_id), "cause": "release 7"})
    assert (again.status_code, again.json()) == (200, asked.json())
    conclude(lab, {champion: answers(GOOD), checkpoint_id: answers(BAD)})
    found = http.get(f"/v1/verdicts/{asked.json()['id']}").json()
    assert (found["outcome"], found["checkpoint_name"], found["cause"]) == (
        "regressed",
        "sft, seed 0, step 10",
        "manual",
    )
    (gate,) = found["gates"]
    assert (gate["value"], gate["baseline_value"], gate["num_losses"]) == (0.3, 0.9, 60)
    assert gate["alarm_p"] < 0.05 < gate["holds_p"]
    assert 0.1 < gate["detectable_drop"] < 0.5
    assert found["run_id"] != found["baseline_run_id"]
    pairs = http.get(f"/v1/runs/{found['baseline_run_id']}/completions/against/{found['run_id']}?change=lost").json()
    assert len(pairs["data"]) == 100
    assert http.get(f"{here}?outcome=regressed").json()["data"] == [found]
    assert http.get(f"{here}?outcome=pass").json()["data"] == []
    assert http.get(f"/v1/verdicts?checkpoint={ckpt(checkpoint_id)}&state=decided").json()["data"] == [found]
    assert http.get(f"/v1/suites/{suite['id']}").json()["counts"]["regressed"] == 1


def test_history_holds_each_metric_beside_its_baseline(http, lab, suite, champion):
    told = {champion: answers(GOOD)}
    for share in (0.8, 0.7):
        checkpoint_id = lab.checkpoint()
        told[checkpoint_id] = answers(share)
        http.post(f"/v1/suites/{suite['id']}/verdicts", json={"checkpoint": ckpt(checkpoint_id)})
    conclude(lab, told)
    (series,) = http.get(f"/v1/suites/{suite['id']}/history").json()["series"]
    assert (series["benchmark"], series["metric"], series["unit"]) == ("sums", "pass@1", "fraction")
    assert [point["value"] for point in series["points"]] == [0.8, 0.7]
    point = series["points"][0]
    assert point["baseline_low"] < point["baseline_value"] == 0.9 < point["baseline_high"]
    assert len(http.get(f"/v1/suites/{suite['id']}/history?limit=1").json()["series"][0]["points"]) == 1


def test_what_cannot_be_judged_is_refused(http, lab, suite):
    here = f"/v1/suites/{suite['id']}/verdicts"
    for wrong in (encode_id("ckpt", new_id()), "alias:nobody", "job:x"):
        refused = http.post(here, json={"checkpoint": wrong})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/checkpoint")
    assert http.post(f"/v1/suites/{suite['id']}/archive").json()["archived_at"] is not None
    assert http.post(here, json={"checkpoint": "alias:champion"}).json()["code"] == "archived"
    assert http.post(f"/v1/suites/{suite['id']}/restore").json()["archived_at"] is None
    assert http.post(here, json={"checkpoint": "alias:champion"}).status_code == 201


def test_an_error_is_tried_again(http, lab, suite, champion):
    asked = http.post(f"/v1/suites/{suite['id']}/verdicts", json={"checkpoint": "alias:champion"}).json()
    assert http.post(f"/v1/verdicts/{asked['id']}/retry").json()["code"] == "invalid_state"
    lab.fail("the disk is full")
    advance(lab.database)
    found = http.get(f"/v1/verdicts/{asked['id']}").json()
    assert (found["state"], found["outcome"]) == ("error", None)
    assert "the disk is full" in found["reason"]
    assert http.post(f"/v1/verdicts/{asked['id']}/retry").json()["state"] == "pending"


def test_suites_and_verdicts_of_another_project_are_unknown(http, lab, suite, champion, make_key, database):
    asked = http.post(f"/v1/suites/{suite['id']}/verdicts", json={"checkpoint": "alias:champion"}).json()
    other = Project(id=new_id(), name="other")
    with database.write() as session:
        session.add(other)
    theirs = {"Authorization": f"Bearer {make_key(project_id=other.id)}"}
    for path in (f"suites/{suite['id']}", f"suites/{suite['id']}/history", f"verdicts/{asked['id']}"):
        assert http.get(f"/v1/{path}", headers=theirs).status_code == 404
    assert http.patch(f"/v1/suites/{suite['id']}", json={}, headers=theirs).status_code == 404
    assert http.post(f"/v1/verdicts/{asked['id']}/retry", headers=theirs).status_code == 404
    for path in ("suites", "verdicts"):
        assert http.get(f"/v1/{path}", headers=theirs).json()["data"] == []
    assert http.post("/v1/suites", json=SUITE, headers=theirs).json()["errors"][0]["pointer"] == "/baseline"


def test_client_judges_by_name(client, lab, suite, champion):
    assert client.suite("nightly").id == suite["id"]
    assert [one.name for one in client.suites()] == ["nightly"]
    with pytest.raises(ApiFailure, match="there is no suite 'weekly'"):
        client.suite("weekly")
    asked = client.request_verdict("nightly", "alias:champion", cause="test")
    with pytest.raises(TimeoutError, match="is not decided within"):
        client.wait_verdict(asked.id, timeout_seconds=0, poll_seconds=0.01)
    conclude(lab, {champion: answers(GOOD)})
    assert client.wait_verdict(asked.id).outcome == "pass"
    assert [one.id for one in client.verdicts(suite=suite["id"])] == [asked.id]
    assert client.suite_history("nightly").series[0].points[0].verdict_id == asked.id
    assert client.update_suite("nightly", {"level": 0.01}).version == 2
    assert client.archive_suite("nightly").archived_at
    assert client.restore_suite("nightly").archived_at is None
    assert client.show(asked.id).id == asked.id


async def judged(url, key):
    async with AsyncClient(url, key) as client:
        asked = await client.request_verdict("nightly", "alias:champion")
        found = await client.wait_verdict(asked.id, timeout_seconds=5)
        names = [suite.name async for suite in client.suites()]
        verdicts = [one.id async for one in client.verdicts()]
        history = await client.suite_history("nightly")
    return found, names, verdicts, history


def test_the_asynchronous_client_does_the_same(live, make_key, lab, suite, champion):
    with lab.database.read() as session:
        row = Suites(session).page(1).rows[0]
    lab.request(row, champion)
    conclude(lab, {champion: answers(GOOD)})
    found, names, verdicts, history = asyncio.run(judged(live, make_key()))
    assert (found.outcome, names, verdicts) == ("pass", ["nightly"], [found.id])
    assert len(history.series) == 1


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def platform(self, live, make_key, monkeypatch):
        monkeypatch.setenv("LCO_URL", live)
        monkeypatch.setenv("LCO_API_KEY", make_key())

    @pytest.fixture
    def outcomes(self, lab, champion):
        """A suite on the command line, and a checkpoint for each outcome."""
        shares = {"pass": GOOD, "regressed": BAD, "inconclusive": 0.84}
        return {outcome: (lab.checkpoint(), answers(share)) for outcome, share in shares.items()}

    def test_regress_exits_by_the_verdict(self, lab, champion, outcomes, tmp_path, capsys):
        (tmp_path / "suite.json").write_text(json.dumps(SUITE))
        assert cli.main(["suites", "create", str(tmp_path / "suite.json")]) == 0
        told = {champion: answers(GOOD), **dict(outcomes.values())}
        for checkpoint_id, _ in outcomes.values():
            assert cli.main(["regress", ckpt(checkpoint_id), "--suite", "nightly", "--no-wait"]) == 0
        conclude(lab, told)
        codes = {
            outcome: cli.main(["regress", ckpt(one), "--suite", "nightly"]) for outcome, (one, _) in outcomes.items()
        }
        assert codes == {"pass": 0, "regressed": 1, "inconclusive": 3}
        printed = capsys.readouterr().out
        assert "regressed: nightly version 1 on sft, seed 0, step 10" in printed
        assert "dropped by more than allowed" in printed

    def test_no_answer_is_no_regression(self, lab, champion, suite, capsys):
        assert cli.main(["regress", "alias:champion", "--suite", "weekly"]) == 4
        assert cli.main(["regress", "alias:nobody", "--suite", "nightly"]) == 4
        assert cli.main(["regress", "alias:champion", "--suite", "nightly", "--timeout", "0"]) == 4
        lab.fail("the disk is full")
        advance(lab.database)
        assert cli.main(["regress", "alias:champion", "--suite", "nightly", "--json"]) == 4
        told = capsys.readouterr()
        assert "there is no suite 'weekly'" in told.err
        assert json.loads(told.out)["state"] == "error"
        verdict = json.loads(told.out)["id"]
        assert cli.main(["suites", "retry", verdict]) == 0

    def test_suites_are_listed_shown_changed_and_archived(self, lab, champion, suite, tmp_path, capsys):
        (tmp_path / "patch.toml").write_text("level = 0.01\n")
        assert cli.main(["suites", "update", "nightly", str(tmp_path / "patch.toml")]) == 0
        assert cli.main(["suites", "list"]) == 0
        assert cli.main(["suites", "show", "nightly"]) == 0
        cli.main(["regress", "alias:champion", "--suite", "nightly", "--no-wait"])
        verdict = capsys.readouterr().out.split()[-1]
        conclude(lab, {champion: answers(GOOD)})
        assert cli.main(["suites", "verdicts", "nightly"]) == 0
        assert cli.main(["suites", "verdict", verdict]) == 0
        assert cli.main(["suites", "show", "nightly", "--json"]) == 0
        assert cli.main(["suites", "archive", "nightly"]) == 0
        assert cli.main(["suites", "list"]) == 0
        assert cli.main(["suites", "restore", "nightly"]) == 0
        printed = capsys.readouterr().out
        assert "pass" in printed
        assert "nightly is archived\n(none)\nnightly is in use" in printed
