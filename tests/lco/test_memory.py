"""Pieces that fit: cut by sequences and padded tokens, and halved where memory ends, without another result."""

import json
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import LlamaForCausalLM

from lco.config import DpoConfig, Sampling, SftConfig
from lco.dpo import tune
from lco.memory import Limits, Memory
from lco.policy import load_policy
from lco.rollout import sample
from lco.sft import warm_up
from lco.stage import Stage, Stopped, classify, is_out_of_memory
from lco.train import train
from tests.lco.launcher import metrics


@contextmanager
def room_for(max_sequences, monkeypatch, *, while_=("sampling", "scoring", "fitting"), in_backward=False):
    """Every model's calls with more sequences end as on a GPU that is full."""
    plain = LlamaForCausalLM.forward
    sizes = []

    def fail(*_):
        raise torch.OutOfMemoryError(f"CUDA out of memory: no room for more than {max_sequences} sequences")

    def forward(self, input_ids, **kwargs):
        kind = "fitting" if torch.is_grad_enabled() else "sampling" if kwargs.get("use_cache") else "scoring"
        is_full = kind in while_ and len(input_ids) > max_sequences
        if is_full and not in_backward:
            fail()
        sizes.append(len(input_ids))
        output = plain(self, input_ids=input_ids, **kwargs)
        if is_full and torch.is_grad_enabled():
            output.logits.register_hook(fail)
        return output

    with monkeypatch.context() as patch:
        patch.setattr(LlamaForCausalLM, "forward", forward)
        yield sizes


def events(run_dir):
    records = [json.loads(line) for line in (run_dir / "progress.jsonl").read_text().splitlines()]
    return [record["message"] for record in records if record["type"] == "event"]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 12), st.integers(0, 90), st.integers(1, 4))
def test_pieces_are_every_sequence_once_in_order_and_within_the_limits(lengths, max_sequences, max_tokens, least):
    pieces = Memory().cut("work", lengths, Limits(max_sequences, max_tokens), least)
    assert [position for piece in pieces for position in piece] == list(range(len(lengths)))
    assert all(pieces) and max(map(len, pieces)) <= -(-len(lengths) // least)
    for piece in pieces:
        padded = len(piece) * max(lengths[position] for position in piece)
        assert len(piece) <= max_sequences
        assert len(piece) == 1 or not max_tokens or padded <= max_tokens


def test_a_budget_takes_as_many_short_sequences_as_fit():
    assert Memory().cut("work", [2, 2, 2, 3, 3, 9, 20], Limits(64, 12)) == [
        range(4),
        range(4, 5),
        range(5, 6),
        range(6, 7),
    ]
    assert Memory().cut("work", [], Limits(3)) == []


def test_the_systems_words_for_the_end_of_memory_are_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert is_out_of_memory(caught.value) and classify(caught.value) == "oom"
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory")) and is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


def test_sizes_are_halved_until_they_fit_and_stay_so():
    told, seen = [], []
    memory = Memory(report=lambda level, message: told.append((level, message)))

    def compute(pieces):
        seen.append([len(piece) for piece in pieces])
        if max(seen[-1]) > 2:
            raise torch.OutOfMemoryError
        return len(pieces)

    assert memory.whole("fitting", [5] * 9, Limits(64), compute, least=1) == 5
    assert seen == [[9], [4, 4, 1], [2, 2, 2, 2, 1]]
    assert memory.whole("fitting", [5] * 9, Limits(64), compute, least=1) == 5 and len(seen) == 4
    assert told == [
        ("warning", f"out of memory while fitting; it goes on with at most {size} sequences at once") for size in (4, 2)
    ]
    again = Memory()
    again.restore(json.loads(json.dumps(memory.state())))
    assert again.cut("fitting", [5] * 3, Limits(64)) == [range(2), range(2, 3)]
    assert again.cut("sampling", [5] * 3, Limits(64)) == [range(3)]


def test_a_token_budget_is_halved_from_what_was_tried():
    memory = Memory(report=lambda *_: None)

    def compute(pieces):
        if max(map(len, pieces)) > 2:
            raise torch.OutOfMemoryError
        return pieces

    assert memory.whole("fitting", [4, 4, 4, 8, 8], Limits(64, 1000), compute, least=1) == [
        range(2),
        range(2, 3),
        range(3, 4),
        range(4, 5),
    ]
    assert memory.found["fitting"] == Limits(64, 8)


@pytest.mark.parametrize("method", ["whole", "each"])
def test_a_single_sequence_that_does_not_fit_is_the_error(method):
    memory = Memory(report=lambda *_: None)

    def compute(_):
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        memory.whole("fitting", [5] * 4, Limits(4), compute, 1) if method == "whole" else memory.each(
            "fitting", [5] * 4, Limits(4), compute
        )
    assert memory.found["fitting"].max_sequences == 1


def test_another_error_is_not_taken_for_the_end_of_memory():
    def compute(_):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        Memory().whole("fitting", [1, 1], Limits(2), compute, 1)
    with pytest.raises(RuntimeError, match="shapes"):
        Memory().each("sampling", [1, 1], Limits(2), compute)


def test_pieces_that_fitted_are_not_computed_again():
    done = []

    def compute(piece):
        if len(piece) > 1 and piece.stop > 3:
            raise torch.OutOfMemoryError
        done.append(piece)
        return len(piece)

    assert Memory(report=lambda *_: None).each("scoring", [3] * 6, Limits(3), compute) == [3, 1, 1, 1]
    assert done == [range(3), range(3, 4), range(4, 5), range(5, 6)]


def test_completions_do_not_depend_on_how_many_fit(tiny_model, config_of, monkeypatch):
    policy = load_policy(tiny_model, config_of("grpo"))
    told = []
    policy.memory.report = lambda level, message: told.append(message)
    prompts = [policy.encode_prompt(f"{n}+{n + 3}=") for n in range(9)]
    sampling = Sampling(max_tokens=8)
    whole = sample(policy, prompts, list(range(9)), sampling)
    with room_for(2, monkeypatch) as sizes:
        assert sample(policy, prompts, list(range(9)), sampling) == whole
    assert max(sizes) == 2 and len(told) == 2 and all("sampling" in message for message in told)


@pytest.mark.parametrize("in_backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("name", ["lco-kld", "gspo"])
def test_a_step_that_does_not_fit_is_made_in_halves_with_the_same_loss_and_gradient(
    config_of, tmp_path, monkeypatch, name, in_backward
):
    config = config_of(name, iterations=2, micro_batch_size=8)
    with closing(Stage(tmp_path / "roomy", [])) as stage:
        train(config, stage)
    assert not events(stage.run_dir)
    while_ = ("fitting",) if in_backward else ("sampling", "scoring", "fitting")
    with (
        closing(Stage(tmp_path / "tight", [])) as tight,
        room_for(3, monkeypatch, while_=while_, in_backward=in_backward) as sizes,
    ):
        train(config, tight)
    told = events(tight.run_dir)
    for work in while_:
        assert f"out of memory while {work}; it goes on with at most 2 sequences at once" in told
    assert in_backward or max(sizes) <= 3
    expected = metrics(stage.run_dir)
    assert metrics(tight.run_dir).keys() == expected.keys()
    for step, values in metrics(tight.run_dir).items():
        assert values == pytest.approx(expected[step], rel=2e-3, abs=1e-5), step


def test_sizes_found_are_kept_by_a_checkpoint_so_that_a_resumed_run_is_bit_for_bit_the_same(
    config_of, tmp_path, monkeypatch
):
    config = config_of("lco-kld", iterations=2, micro_batch_size=8)
    with room_for(3, monkeypatch):
        with closing(Stage(tmp_path / "whole", [])) as whole:
            train(config, whole)
        with closing(Stage(tmp_path / "first", [])) as first:
            first.stop()
            with pytest.raises(Stopped):
                train(config, first)
    with closing(Stage(tmp_path / "second", [first.run_dir])) as second:  # there is room again
        train(config, second)
    assert metrics(first.run_dir, second.run_dir) == metrics(whole.run_dir)


def test_a_token_budget_gives_the_run_without_one(config_of, tmp_path):
    found = []
    for tokens in (0, 40):
        with closing(Stage(tmp_path / str(tokens), [])) as stage:
            train(config_of("lco-kld", iterations=1, micro_batch_size=8, micro_batch_tokens=tokens), stage)
        found.append(metrics(stage.run_dir))
    for step, values in found[0].items():
        assert found[1][step] == pytest.approx(values, rel=2e-3, abs=1e-5)


def test_a_mean_over_micro_batches_refuses_a_token_budget(config_of):
    algorithm = {"name": "lco-kld", "beta": 1, "advantage": {"name": "sparse"}, "token_reduction": "micro-mean"}
    with pytest.raises(ValidationError, match="micro_batch_tokens: a mean over micro-batches"):
        config_of("lco-kld-sparse", algorithm=algorithm, micro_batch_tokens=100)


@pytest.mark.parametrize("changes", [{}, {"micro_batch_tokens": 60}], ids=["sequences", "tokens"])
def test_supervised_and_preference_stages_go_on_in_halves(tiny_model, tmp_path, monkeypatch, changes):
    rows = [
        {"prompt": f"{n}+1=", "completion": "1" * n, "chosen": f"{n + 1}", "rejected": "0" * n} for n in range(1, 9)
    ]
    path = Path(tmp_path / "rows.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {"policy": str(tiny_model), "batch_size": 8, "device": "cpu", "optimizer": {"learning_rate": 0.01}}
    sft = SftConfig.model_validate(common | {"prompts": {"name": "jsonl", "path": str(path)}, "steps": 2} | changes)
    dpo = DpoConfig.model_validate(common | {"pairs": str(path), "epochs": 2} | changes)
    for body, config in ((warm_up, sft), (tune, dpo)):
        found = []
        for is_tight in (False, True):
            run_dir = tmp_path / f"{body.__name__}-{is_tight}"
            with closing(Stage(run_dir, [])) as stage:
                if is_tight:
                    with room_for(4, monkeypatch):
                        body(config, stage)
                else:
                    body(config, stage)
            found.append(metrics(run_dir))
            assert bool(events(run_dir)) == is_tight
        for step, values in found[0].items():
            assert found[1][step] == pytest.approx(values, rel=1e-3, abs=1e-5)
