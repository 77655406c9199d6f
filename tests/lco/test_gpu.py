"""The engine on a GPU: the same mathematics as on the CPU, for every algorithm."""

import gc
from contextlib import closing
from pathlib import Path

import pytest
import torch

from lco.collection import collect
from lco.config import Optimizer, SftConfig, StageConfig, Sums
from lco.diagnostics import token_sums
from lco.estimation import Estimator
from lco.head import Head, chunked_loss
from lco.initial import initial_policy
from lco.losses import LOSSES
from lco.memory import Limits, Memory
from lco.optimization import Fitting
from lco.policy import load_policy, load_trained, trained
from lco.prompts import load_prompts
from lco.stage import Stage
from lco.train import train
from tests.lco.conftest import TINY
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


LORA = {"rank": 4, "alpha": 8.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": LORA},
        {"adapter": LORA | {"quantization": "nf4"}},
        {"adapter": LORA, "frozen_weights": "bfloat16", "precision": "bfloat16"},
        {"gradient_checkpointing": True, "micro_batch_tokens": 60},
        {"loss_chunk_tokens": 9},
        {"loss_chunk_tokens": 9, "precision": "bfloat16"},
    ],
    ids=["lora", "qlora", "lora-bf16", "checkpointed", "chunks", "chunks-bf16"],
)
def test_what_saves_memory_trains_on_a_gpu(config_of, changes, stage):
    train(config_of("lco-kld", device="cuda", **changes), stage)
    found = metrics(stage.run_dir)
    assert len(found) == 6
    assert all(value is not None for values in found.values() for value in values.values())
    load_policy(stage.run_dir / "model", StageConfig(device="cpu"))


def test_bfloat16_products_leave_weights_and_optimizer_state_float32_on_a_gpu(config_of):
    config = config_of("lco-kld", device="cuda", precision="bfloat16")
    policy = load_trained(Path(config.policy), config)
    fitting = Fitting(policy.model, Optimizer(), 1)
    ids = torch.tensor([[4, 5, 6, 7]], device="cuda")
    fitting.update(0, [lambda: policy.token_logits(ids, torch.ones_like(ids), torch.ones_like(ids).bool()).sum()])
    assert {parameter.dtype for parameter in policy.model.parameters()} == {torch.float32}
    state = fitting.optimizer.state.values()
    assert {value.dtype for values in state for value in values.values()} == {torch.float32}


def _peak(work):
    """Bytes that some work needs above what is held before it."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def test_a_loss_in_chunks_needs_a_fraction_of_the_memory():
    """2,048 tokens, a vocabulary of 50,000: the logits alone are 410 MB."""
    hidden = torch.randn(2048, 64, device="cuda", requires_grad=True)
    head = Head(torch.randn(50_000, 64, device="cuda", requires_grad=True), None, 50_000, torch.float32)

    def loss_of(logits_NV, _):
        return logits_NV.log_softmax(-1).square().mean(-1).sum()

    naive = _peak(lambda: loss_of(head.logits(hidden), slice(None)).backward())
    chunked = _peak(lambda: chunked_loss(head, hidden, 64, loss_of).backward())
    assert chunked < 0.25 * naive


def test_checkpointed_blocks_need_less_memory(config_of):
    wide = TINY.model_copy(update={"hidden_size": 128, "intermediate_size": 512, "num_layers": 8, "max_positions": 512})
    ids = torch.randint(3, 16, (32, 512), device="cuda")
    peaks = []
    for is_checkpointed in (False, True):
        config = SftConfig(policy=wide, prompts=Sums(), device="cuda", gradient_checkpointing=is_checkpointed)
        policy = trained(initial_policy(wide, config), config)
        mask = torch.ones_like(ids)
        peaks.append(_peak(lambda: policy.token_logits(ids, mask, mask.bool()).sum().backward()))  # noqa: B023
    assert peaks[1] < 0.5 * peaks[0]


def test_an_adapter_needs_no_second_model_for_its_reference(config_of):
    config = config_of("grpo", device="cuda", adapter=LORA)
    policy = load_trained(Path(config.policy), config)
    held = torch.cuda.memory_allocated()
    estimator = Estimator(config, policy)
    assert estimator.scorer.initial is not None
    assert torch.cuda.memory_allocated() == held


def test_a_full_gpu_halves_the_micro_batch(config_of, stage):
    """The error is the allocator's own: the process may use a sliver of the memory for a while."""
    memory, sizes = Memory(report=stage.event), []

    def compute(pieces):
        sizes.append(max(map(len, pieces)))
        for piece in pieces:
            torch.empty(len(piece) * 2**20, dtype=torch.uint8, device="cuda")

    free, total = torch.cuda.mem_get_info()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**26) / total)
    try:
        memory.whole("fitting", [1] * 256, Limits(256), compute, least=1)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert sizes[0] == 256 and sizes[-1] <= 64


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_two_gpus_train_as_one(config_of, launcher, tmp_path, parallel):
    config = config_of("lco-kld", device="cuda", parallel=parallel, iterations=1)
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json())
    ranks = launcher.start_ranks(2, "lco.train", path, tmp_path / "two")
    assert [rank.wait() for rank in ranks] == [0, 0], "\n".join(rank.log.read_text() for rank in ranks)
    with closing(Stage(tmp_path / "one", [])) as one:
        train(config, one)
    expected, found = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    for step, values in expected.items():
        assert found[step]["train/loss"] == pytest.approx(values["train/loss"], rel=1e-2, abs=1e-4)
