"""Several processes are one: the same samples, losses and gradients, one voice, one end."""

import json
import signal
import time
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from lco import distributed
from lco.config import StageConfig
from lco.manifest import read_manifest
from lco.stage import EXIT_STOPPED, EXIT_USER
from tests.lco.launcher import metrics, records
from tests.lco.ranks import MEASURED, Ways, measure
from tests.lco.union import ALGORITHMS

pytestmark = pytest.mark.timeout(600)

CUTS = ((3, 0), (16, 1))
RUNS: dict[str, tuple[str, dict]] = {name: (name, {}) for name in ALGORITHMS} | {
    "adapter": ("lco-kld", {"adapter": {"rank": 2}}),
    "memory": ("lco-kld", {"gradient_checkpointing": True, "loss_chunk_tokens": 7, "micro_batch_tokens": 40}),
}
"""Name -> the algorithm and further fields of its run: what changes how a model is held, or how a loss is made."""


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 7))
def test_every_piece_is_dealt_to_one_process_and_all_have_as_many_rounds(num_items, size, num_processes):
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(distributed, "count", lambda: num_processes)
        pieces = distributed.cut(list(range(num_items)), size)
        hands = []
        for rank in range(num_processes):
            patches.setattr(distributed, "rank", lambda rank=rank: rank)
            hands.append(distributed.rounds(pieces))
    assert list(chain(*pieces)) == list(range(num_items)), "in order"
    assert max(map(len, pieces)) <= size
    assert len({len(hand) for hand in hands}) == 1
    mine = [[piece for piece, is_mine in hand if is_mine] for hand in hands]
    assert sorted(chain(*mine)) == pieces
    assert max(map(len, mine)) - min(map(len, mine)) <= 1
    if num_items % num_processes == 0:
        assert all(mine), "nobody is idle"


def test_accelerate_going_on_alone_is_noticed(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("accelerate.PartialState", lambda **_: SimpleNamespace(num_processes=1, backend=None))
    with pytest.raises(AssertionError, match="2 processes became"):
        distributed.join(StageConfig(device="cpu"))


@pytest.fixture(scope="module")
def measured(config_of, launcher, tmp_path_factory) -> dict[str, torch.Tensor]:
    """What two gloo processes found for every algorithm, with DDP and with FSDP2; one start for all of them."""
    directory = tmp_path_factory.mktemp("ranks")
    ways = Ways(
        device="cpu",
        configs={name: config_of(of, **changes) for name, (of, changes) in RUNS.items()},
        parallel=("ddp", "fsdp2"),
        cuts=CUTS,
    )
    path = directory / "ways.json"
    path.write_text(ways.model_dump_json())
    ranks = launcher.start_ranks(2, "tests.lco.ranks", path, directory / "run")
    assert [rank.wait() for rank in ranks] == [0, 0], "\n".join(rank.log.read_text() for rank in ranks)
    return load_file(directory / "run" / MEASURED)


@pytest.mark.parametrize("name", RUNS)
def test_loss_and_gradient_of_two_processes_are_those_of_one(config_of, measured, name):
    """Whatever the micro-batch, the order, and how the model is held."""
    alone = measure(Ways(device="cpu", configs={name: config_of(RUNS[name][0], **RUNS[name][1])}, cuts=((16, 9),)))
    expected = {key.rpartition("16-9/")[2]: value for key, value in alone.items() if "16-9/" in key}
    scale = expected["gradient"].abs().max()
    assert scale > 0
    assert torch.equal(measured[f"{name}/batch/actions"], alone[f"{name}/batch/actions"]), "the same samples"
    for what in ("advantages", "behaviour"):
        key = f"{name}/batch/{what}"
        torch.testing.assert_close(measured[key], alone[key], rtol=1e-4, atol=1e-5)
    for parallel in ("ddp", "fsdp2"):
        for size, seed in CUTS:
            found = {metric: measured[f"{name}/{parallel}/{size}-{seed}/{metric}"] for metric in expected}
            assert (found["gradient"] - expected["gradient"]).abs().max() <= 2e-5 * scale, (parallel, size)
            for metric in expected.keys() - {"gradient"}:
                shown = (found[metric].item(), expected[metric].item())
                assert shown[0] == pytest.approx(shown[1], rel=2e-4, abs=1e-6), (metric, parallel, size)


@pytest.mark.parametrize(
    "name", [name for name, document in ALGORITHMS.items() if "critic" in document.get("advantage", {})]
)
def test_a_critics_step_on_two_processes_is_that_on_one(config_of, measured, name):
    alone = measure(Ways(device="cpu", configs={name: config_of(name)}, cuts=()))
    expected = {key.rpartition("/critic/")[2]: value for key, value in alone.items() if "/ddp/critic/" in key}
    scale = expected["gradient"].abs().max()
    assert scale > 0 and "train/value_loss" in expected
    for parallel in ("ddp", "fsdp2"):
        found = {metric: measured[f"{name}/{parallel}/critic/{metric}"] for metric in expected}
        assert (found["gradient"] - expected["gradient"]).abs().max() <= 1e-4 * scale, parallel
        for metric in expected.keys() - {"gradient"}:
            assert found[metric].item() == pytest.approx(expected[metric].item(), rel=1e-3, abs=1e-5), metric


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_a_step_that_is_not_finite_on_one_process_is_skipped_by_all(measured, parallel):
    assert measured[f"skipped/{parallel}"].tolist() == [1, 1]
    assert measured[f"changed/{parallel}"].item() == 0


def run_of(config, **changes) -> dict:
    return config.model_dump(mode="json") | changes


def close(found, expected, tolerance=2e-3):
    """The same steps, nearly the same numbers: sums over processes differ in their last bits, and steps compound."""
    assert found.keys() == expected.keys()
    for step, values in expected.items():
        assert found[step] == pytest.approx(values, rel=tolerance, abs=1e-5), step


def stages(config_of, tiny_model, tmp_path) -> dict[str, dict]:
    """A run of each stage with an optimizer."""
    rows = [{"prompt": f"{n}+1=", "chosen": f"{n}+1={n + 1}", "rejected": f"={n}"} for n in range(24)]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {"device": "cpu", "micro_batch_size": 3, "optimizer": {"learning_rate": 0.003}}
    sums = {"name": "sums", "num_problems": 40, "num_terms": 3}
    validation = {"prompts": sums | {"split": "test", "num_problems": 4}, "max_tokens": 6, "every_steps": 3}
    return {
        "lco.train": run_of(config_of("lco-kld", iterations=4, validation=validation)),
        "lco.train of a critic": run_of(config_of("ppo-critic", iterations=3)),
        "lco.train of an adapter": run_of(config_of("lco-kld", iterations=3, adapter={"rank": 2})),
        "lco.sft": common
        | {"policy": str(tiny_model), "prompts": sums, "steps": 6, "batch_size": 7, "validation": validation},
        "lco.dpo": common | {"policy": str(tiny_model), "pairs": str(pairs), "batch_size": 5, "nll_weight": 0.1},
    }


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
@pytest.mark.parametrize(
    "stage", ["lco.train", "lco.train of a critic", "lco.train of an adapter", "lco.sft", "lco.dpo"]
)
def test_a_run_of_two_processes_is_the_run_of_one(stage, parallel, config_of, tiny_model, launcher, tmp_path):
    module = stage.partition(" ")[0]
    config = stages(config_of, tiny_model, tmp_path)[stage] | {"parallel": parallel}
    assert launcher.run(module, config, tmp_path / "one") == 0
    ranks = launcher.start_ranks(2, module, config, tmp_path / "two")
    assert [rank.wait() for rank in ranks] == [0, 0], "\n".join(rank.log.read_text() for rank in ranks)
    close(metrics(tmp_path / "two"), metrics(tmp_path / "one"))
    one, two = (load_file(tmp_path / name / "model/model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all((one[name] - two[name]).abs().max() < 2e-3 for name in one)
    said = [rank.log.read_text() for rank in ranks]
    assert f"model: {tmp_path}/two/model" in said[0] and "step" not in said[1], "the first process alone speaks"
    steps = [record["step"] for record in records(tmp_path / "two") if record["type"] == "metrics"]
    assert len(steps) == len(set(steps))


def test_pairs_of_two_processes_are_those_of_one(tiny_model, config_of, launcher, tmp_path):
    config = {
        "policy": str(tiny_model),
        "prompts": config_of("ppo").prompts.model_dump(),
        "sampling": {"max_tokens": 12, "batch_size": 40},
        "extraction": "final-number",
        "device": "cpu",
    }
    assert launcher.run("lco.pairs", config, tmp_path / "one") == 0
    ranks = launcher.start_ranks(2, "lco.pairs", config, tmp_path / "two")
    assert [rank.wait() for rank in ranks] == [0, 0], "\n".join(rank.log.read_text() for rank in ranks)
    one, two = (read_manifest(tmp_path / name) for name in ("one", "two"))
    assert (one.directory / "pairs.jsonl").read_bytes() == (two.directory / "pairs.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("first", "second", "name", "changes"),
    [(2, 2, "lco-kld", {}), (2, 1, "ppo-critic", {}), (1, 2, "lco-kld", {"adapter": {"rank": 2}})],
    ids=["2-2", "2-1-critic", "1-2-adapter"],
)
def test_a_stopped_run_resumes_with_any_number_of_processes(
    first, second, name, changes, config_of, launcher, tmp_path
):
    """Sharded while it is stopped, so that the checkpoint must be whole. One process is asked to stop; all do."""
    config = run_of(config_of(name, iterations=8, parallel="fsdp2", **changes))
    ranks = launcher.start_ranks(first, "lco.train", config, tmp_path / "first")
    ranks[-1].wait_for("progress")
    ranks[-1].signal(signal.SIGTERM)
    assert [rank.wait() for rank in ranks] == [EXIT_STOPPED] * first, "\n".join(rank.log.read_text() for rank in ranks)
    last = records(tmp_path / "first")[-1]
    assert (last["type"], read_manifest(tmp_path / "first" / last["path"]).step) == ("checkpoint", last["step"])
    ranks = launcher.start_ranks(second, "lco.train", config, tmp_path / "second", tmp_path / "first")
    assert [rank.wait() for rank in ranks] == [0] * second, "\n".join(rank.log.read_text() for rank in ranks)
    ranks = launcher.start_ranks(second, "lco.train", config, tmp_path / "whole")
    assert [rank.wait() for rank in ranks] == [0] * second
    found, expected = metrics(tmp_path / "first", tmp_path / "second"), metrics(tmp_path / "whole")
    if first == second:
        assert found == expected, "bit for bit"
        models = [tmp_path / name / "model/model.safetensors" for name in ("second", "whole")]
        assert models[0].read_bytes() == models[1].read_bytes()
    else:
        close(found, expected)


def test_a_killed_process_ends_the_others_soon(config_of, launcher, tmp_path):
    config = run_of(config_of("lco-kld", iterations=5000))
    ranks = launcher.start_ranks(2, "lco.train", config, tmp_path / "run")
    ranks[0].wait_for("metrics")
    ranks[1].signal(signal.SIGKILL)
    started = time.monotonic()
    assert ranks[0].wait() == 1
    assert time.monotonic() - started < 5
    assert json.loads((tmp_path / "run/error.json").read_text())["outcome"] == "infra"


def test_a_mistake_is_told_once(config_of, launcher, tmp_path):
    config = run_of(config_of("lco-kld", policy=str(tmp_path)))
    ranks = launcher.start_ranks(2, "lco.train", config, tmp_path / "run")
    assert [rank.wait() for rank in ranks] == [EXIT_USER, EXIT_USER]
    assert "no model here" in json.loads((tmp_path / "run/error.json").read_text())["message"]
