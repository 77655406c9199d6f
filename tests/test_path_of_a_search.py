"""A search from `Client` to its best trial through real processes: trials pause, the better one goes on."""

import time
from pathlib import Path
from typing import Any

import pytest

from api.client import Client
from api.local_platform import LocalPlatform
from store.settings import Settings

pytestmark = pytest.mark.timeout(400)
SUMS = {"name": "sums", "num_terms": 3, "num_problems": 30}
DOCUMENT: dict[str, Any] = {
    "name": "search",
    "search": {
        "method": "grid",
        "space": {"rate": {"choice": [1e-6, 0.02]}},
        "metric": "train/loss",
        "goal": "min",
        "halving": {"factor": 2, "min_iterations": 30},
    },
    "jobs": [
        {
            "kind": "sft",
            "each": ["trial"],
            "name": "sft-{trial.name}",
            "config": {
                "policy": {
                    "name": "llama",
                    "hidden_size": 32,
                    "intermediate_size": 64,
                    "num_layers": 1,
                    "num_heads": 2,
                },
                "prompts": SUMS,
                "steps": 45,
                "batch_size": 32,
                "optimizer": {"learning_rate": "{trial.rate}"},
            },
        }
    ],
}


def test_the_better_trial_goes_on_from_its_checkpoint_and_the_other_is_stopped(tmp_path: Path) -> None:
    environment = {"LCO_PORT": "0", "LCO_POLL_SECONDS": "0.05"}
    platform = LocalPlatform(tmp_path / "var", with_services=False, environment=environment)
    with platform, Client(platform.url, settings=Settings(data_dir=tmp_path / "var")) as client:
        submitted = client.submit_experiment(DOCUMENT)
        client.wait(submitted.id, timeout_seconds=120, poll_seconds=0.2)
        while (found := client.search(submitted.id)).num_running:  # the next round of the reconciler sees the end
            time.sleep(0.1)
        worse, better = found.trials
        assert (worse.state, better.state, better.is_best) == ("stopped", "finished", True)
        assert better.values[1] is not None
        assert better.values[0] is not None
        assert better.values[1] < better.values[0]
        runs = {run.job_name: run for run in client.runs(experiment=submitted.id)}
        assert {name: run.state for name, run in runs.items()} == {"sft-t00": "cancelled", "sft-t01": "succeeded"}
        attempts = list(client.attempts(runs["sft-t01"].id))
        assert [attempt.outcome for attempt in attempts] == ["boundary", "succeeded"]
        assert attempts[1].resumed_from_step == 30
        assert client.experiment(submitted.id).status == "succeeded"  # what was stopped makes it no worse
        assert runs["sft-t00"].status_reason == worse.reason
