"""A user's week over HTTP, through real processes: data, a matrix, a champion, a suite that flags what got worse."""

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from api.client import Client
from api.local_platform import LocalPlatform
from api.transport import ApiFailure
from store.database import Database, make_engine
from store.fsck import check
from store.settings import Settings

pytestmark = pytest.mark.timeout(900)
_ENOUGH_SECONDS = 300.0
POLICY = {
    "name": "llama",
    "characters": "0123456789+=;",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_layers": 2,
    "num_heads": 2,
    "max_positions": 32,
}
SUMS = {"name": "sums", "num_terms": 2, "max_term": 12, "num_problems": 36}


@dataclass
class Receiver:
    """A server of the user's own that hears webhooks, and refuses the first of them once."""

    url: str = ""
    heard: "queue.Queue[tuple[dict[str, str], bytes]]" = field(default_factory=queue.Queue)
    num_refused: int = 0

    def next(self, type: str) -> tuple[dict[str, str], bytes]:
        """The next message of a type; its headers and body."""
        deadline = time.monotonic() + _ENOUGH_SECONDS
        while time.monotonic() < deadline:
            with suppress(queue.Empty):
                headers, body = self.heard.get(timeout=1.0)
                if json.loads(body)["type"] == type:
                    return headers, body
        raise AssertionError(f"no {type} was delivered")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if not found.num_refused:
                found.num_refused += 1
                self.send_response(503)
                self.send_header("retry-after", "1")
            else:
                found.heard.put(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(204)
            self.send_header("content-length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield found
    server.shutdown()
    server.server_close()


def until(condition: Callable[[], Any]) -> Any:
    """What the condition gives once it is true."""
    deadline = time.monotonic() + _ENOUGH_SECONDS
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"it never came true: {condition}")


def rows() -> bytes:
    """Demonstrations of sums, as JSON Lines."""
    pairs = [(first, second) for first in range(1, 13) for second in range(1, 13)]
    made = [
        {
            "prompt": f"{first}+{second}=",
            "completion": f"{first}+{second}={first + second}",
            "reference": str(first + second),
        }
        for first, second in pairs
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in made)


def matrix(dataset: str) -> dict[str, Any]:
    """One warm-up, shared by two methods, each evaluated: an axis over the methods."""
    start = {"policy": POLICY, "prompts": SUMS, "batch_size": 32, "optimizer": {"learning_rate": 0.01}}
    train = {
        "algorithm": {"name": "{method.loss}"},
        **{"policy": "job:warm-up", "prompts": SUMS, "reward": {"extraction": "last-equals"}},
        **{"sampling": {"max_tokens": 12}, "prompts_per_iteration": 8, "group_size": 2, "iterations": 3},
        "optimizer": {"learning_rate": 0.001},
    }
    measure = {
        "policy": "job:{method.name}",
        "benchmarks": [{"name": "sums", "problems": {**SUMS, "split": "test", "num_problems": 30}, "max_tokens": 12}],
        "decodings": ["t1.0"],
        "eval_seeds": [0, 1],
    }
    return {
        "name": "week",
        "seeds": [0, 1],
        "axes": {"method": [{"name": "grpo", "loss": "grpo"}, {"name": "rloo", "loss": "rloo"}]},
        "jobs": [
            {"name": "warm-up", "kind": "sft", "config": {**start, "steps": 60}, "metadata": {"data": dataset}},
            {"name": "{method.name}", "each": ["method"], "kind": "train", "config": train},
            {"name": "measure-{method.name}", "each": ["method"], "kind": "evaluation", "config": measure},
        ],
    }


def warm_up(name: str, dataset: str, steps: int, seed: int) -> dict[str, Any]:
    """A job that gives a candidate: good after many steps on the data, worse after one."""
    config = {
        "policy": POLICY,
        "prompts": {"name": "jsonl", "path": dataset},
        "steps": steps,
        "batch_size": 64,
        "optimizer": {"learning_rate": 0.005},
    }
    return {"kind": "sft", "name": name, "seeds": [seed], "config": config, "metadata": {"line": "sums"}}


def succeeds(client: Client, identifier: str) -> None:
    """Waits for a job or an experiment, which must succeed."""
    status = client.wait(identifier, timeout_seconds=_ENOUGH_SECONDS, poll_seconds=0.3).status
    assert status == "succeeded", [
        (run.job_name, run.error or run.status_reason) for run in client.runs(state="failed")
    ]


def model_of(client: Client, job: str) -> str:
    """The id of the model that a job published."""
    succeeds(client, job)
    return next(client.checkpoints(job=job, kind="model")).id


def test_a_users_week(tmp_path: Path, receiver: Receiver) -> None:
    data_dir = tmp_path / "var"
    environment = {"LCO_PORT": "0", "LCO_POLL_SECONDS": "0.05", "LCO_WEBHOOK_ORIGINS": receiver.url}
    with (
        LocalPlatform(data_dir, environment=environment) as platform,
        Client(platform.url, settings=Settings(data_dir=data_dir)) as client,
    ):
        # Monday: data of one's own, split by the hash of the prompt.
        uploaded = client.upload_dataset("sums", rows(), "jsonl", text_fields=["prompt", "completion"])
        train, test = client.split_dataset(uploaded.id, {"train": 0.9, "test": 0.1}, key="prompt")
        assert train.num_rows + test.num_rows == uploaded.num_rows == 144

        # Tuesday: a matrix experiment, watched to its end, and its methods compared.
        submitted = client.submit_experiment(matrix(uploaded.source))
        seen = {event.type for event in client.follow(submitted.jobs[0].id)}
        assert {"run.state", "job.state"} <= seen
        succeeds(client, submitted.id)
        assert submitted.num_runs == 10
        table = client.results_table(experiment=submitted.id)
        assert {(row.method, row.n) for row in table.rows if row.metric == "pass@1"} == {("grpo", 2), ("rloo", 2)}
        (against,) = client.comparisons(submitted.id, "grpo", metric="pass@1")
        assert (against.method, against.seeds) == ("rloo", [0, 1])
        runs = [run.id for run in client.runs(experiment=submitted.id) if run.kind == "train"]
        beside = client.compare(runs[:2])
        assert beside.configuration, "two of the runs differ in seed or method"

        # Wednesday: a champion, a suite that guards it, a signed webhook, a schedule.
        champion = model_of(client, client.submit(warm_up("champion", train.source, 200, seed=0)).id)
        client.set_alias("champion", champion)
        endpoint = client.create_webhook_endpoint({"kind": "webhook", "url": receiver.url}, ["verdict.*"])
        suite = client.create_suite(
            {
                "name": "guard",
                "benchmarks": [{"name": "sums", "problems": SUMS, "max_tokens": 12}],
                "decodings": ["greedy"],
                "eval_seeds": [0],
                "baseline": "alias:champion",
                "gates": [{"benchmark": "sums", "metric": "pass@1", "decoding": "greedy", "max_drop": 0.3}],
                "triggers": {"checkpoints": {"metadata": {"line": "sums"}}},
            }
        )
        trigger = {"kind": "cron", "expression": "30 2 * * *", "time_zone": "Europe/Berlin"}
        action = {"kind": "suite", "suite": suite.id, "checkpoints": {"alias": "champion"}}
        nightly = client.create_schedule({"name": "nightly", "trigger": trigger, "action": action})

        # Thursday: a checkpoint that got worse is flagged by itself, one as good passes.
        worse = model_of(client, client.submit(warm_up("worse", train.source, 1, seed=0)).id)
        good = model_of(client, client.submit(warm_up("good", train.source, 200, seed=1)).id)
        verdicts = until(lambda: decided(client, suite.id, {worse, good}))
        assert verdicts[worse].outcome == "regressed", verdicts[worse].reason
        assert verdicts[good].outcome in ("pass", "improved"), verdicts[good].reason
        again = client.request_verdict(suite.id, worse)
        assert again.id == verdicts[worse].id, "a checkpoint is judged once per version"

        # The signed webhook came, although it was refused at first.
        headers, body = receiver.next("verdict.regressed")
        message = Webhook(endpoint.secret).verify(body, headers)
        assert message["data"]["id"] == verdicts[worse].id
        assert receiver.num_refused == 1

        # Friday: the schedule, fired by hand, finds the champion judged or judges it.
        client.trigger_schedule(nightly.id)
        fire = until(lambda: next(iter(client.schedule_fires(nightly.id)), None))
        assert (fire.cause, fire.outcome) == ("manual", "submitted"), fire.message
        judged = until(lambda: decided(client, suite.id, {champion}))
        assert judged[champion].outcome == "pass"

        # A changed copy takes over what was computed; what nothing needs is deleted, what something needs is not.
        axes = {"method": [{"name": "grpo", "loss": "grpo"}]}
        patch = {"name": "copy", "axes": axes, "jobs": {"measure-{method.name}": {"config": {"eval_seeds": [0]}}}}
        copy = client.clone_experiment(submitted.id, patch)
        succeeds(client, copy.id)
        assert client.experiment(copy.id).num_reused == 4
        client.delete(copy.id)
        with pytest.raises(ApiFailure) as gone:
            client.experiment(copy.id)
        assert gone.value.status == 410
        with pytest.raises(ApiFailure) as held:
            client.delete(champion)
        assert (held.value.status, held.value.code) == (409, "held")

        database = Database(make_engine(Settings(data_dir=data_dir)))
        try:
            assert list(check(database, Settings(data_dir=data_dir))) == []
        finally:
            database.dispose()


def decided(client: Client, suite: str, checkpoints: set[str]) -> dict[str, Any]:
    """The verdicts on some checkpoints, once all of them are decided; empty before."""
    found = {one.checkpoint_id: one for one in client.verdicts(suite=suite) if one.checkpoint_id in checkpoints}
    errors = [one.reason for one in found.values() if one.state == "error"]
    assert not errors, errors
    return found if len(found) == len(checkpoints) and all(one.state == "decided" for one in found.values()) else {}
