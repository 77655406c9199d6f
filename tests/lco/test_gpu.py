"""The engine on a GPU: the same mathematics as on the CPU, for every algorithm."""

from contextlib import closing
from pathlib import Path

import pytest
import torch

from lco.collection import collect
from lco.config import StageConfig
from lco.diagnostics import token_sums
from lco.estimation import Estimator
from lco.losses import LOSSES
from lco.policy import load_policy
from lco.prompts import load_prompts
from lco.stage import Stage
from lco.train import train
from tests.lco.launcher import metrics
from tests.lco.union import ALGORITHMS

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", ALGORITHMS)
def test_losses_and_diagnostics_on_a_gpu_are_those_on_the_cpu(config_of, name):
    rollouts, found = None, []
    for device in ("cpu", "cuda"):
        config = config_of(name, device=device)
        policy = load_policy(Path(config.policy), config)
        estimator = Estimator(config, policy)
        rollouts = rollouts or collect(config, policy, load_prompts(config.prompts), 0)
        batch = estimator.batch(rollouts)
        assert policy.device.type == batch.actions_N.device.type == device
        logits = policy.token_logits(batch.input_ids_BT, batch.attention_mask_BT, batch.mask_BT)
        logits = (
            (logits + torch.sin(torch.arange(logits.numel(), device=device).view_as(logits)))
            .detach()
            .requires_grad_(True)
        )
        loss = LOSSES[type(estimator.algorithm)](logits, batch, estimator.algorithm)
        loss.sum().backward()
        sums = token_sums(logits.detach(), batch, estimator.algorithm)
        found.append([loss.detach().cpu(), logits.grad.cpu(), *(sums[key].cpu() for key in sorted(sums))])
    for on_cpu, on_gpu in zip(*found, strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_trains_on_a_gpu(config_of, name, precision, stage):
    config = config_of(name, device="cuda", precision=precision)
    train(config, stage)
    found = metrics(stage.run_dir)
    assert len(found) == 6
    assert all(value is not None for values in found.values() for value in values.values())
    load_policy(stage.run_dir / "model", StageConfig(device="cpu"))


def test_a_run_stopped_inside_an_iteration_resumes_on_a_gpu(config_of, tmp_path):
    from lco.stage import Stopped

    config = config_of("lco-kld", device="cuda")
    with closing(Stage(tmp_path / "whole", [])) as whole:
        train(config, whole)
    with closing(Stage(tmp_path / "first", [])) as first:
        first.stop()
        with pytest.raises(Stopped):
            train(config, first)
    with closing(Stage(tmp_path / "second", [first.run_dir])) as second:
        train(config, second)
    expected, found = metrics(whole.run_dir), metrics(first.run_dir, second.run_dir)
    assert sorted(found) == sorted(expected)
    for step, values in expected.items():
        assert found[step] == pytest.approx(values, rel=1e-2, abs=1e-4), step


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_a_run_of_two_gpus_is_the_run_of_one(config_of, launcher, tmp_path, parallel):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    config = config_of("lco-kld", device="cuda", parallel=parallel).model_dump(mode="json")
    assert launcher.run("lco.train", config, tmp_path / "one") == 0
    ranks = launcher.start_ranks(2, "lco.train", config, tmp_path / "two")
    assert [rank.wait() for rank in ranks] == [0, 0], "\n".join(rank.log.read_text() for rank in ranks)
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert one.keys() == two.keys()
    for step, values in one.items():
        assert two[step] == pytest.approx(values, rel=1e-2, abs=1e-4), step
