"""Head and loss in chunks of tokens: the loss, the gradient and the metrics of all tokens at once, in less memory."""

import json
from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch import nn

from lco.collection import collect
from lco.config import DpoConfig, Optimizer, SftConfig, StageConfig, TrainingStageConfig
from lco.estimation import Estimator
from lco.fused import two_entries
from lco.head import Head, chunked_log_probs, chunked_loss
from lco.log_probs import action_log_probs
from lco.memory import Limits
from lco.optimization import Fitting
from lco.policy import Policy, load_policy, load_trained
from lco.prompts import load_prompts
from lco.rollout import Batch
from lco.stage import Stage, Stopped
from lco.train import _minibatch, fit, train
from tests.lco.launcher import metrics
from tests.lco.union import ALGORITHMS

N, H, ROWS, V = 23, 6, 13, 11
"""Ragged: no chunk below divides 23; two rows of the head are no tokens."""


def made_up_head(generator, *, has_bias=False, **changes):
    weight = torch.randn(ROWS, H, generator=generator, dtype=torch.float64).requires_grad_(True)
    bias = torch.randn(ROWS, generator=generator, dtype=torch.float64).requires_grad_(True) if has_bias else None
    return Head(weight, bias, V, torch.float64, **changes)


def compared(head, hidden, naive, chunked):
    """Values and gradients of two functions of hidden states and head."""
    found = []
    for function in (naive, chunked):
        leaf = hidden.clone().requires_grad_(True)
        loss = function(leaf)
        leaves = [leaf, head.weight_VH] + ([] if head.bias_V is None else [head.bias_V])
        found.append([loss.detach(), *torch.autograd.grad(loss * 3, leaves)])
    return zip(*found, strict=True)


@pytest.mark.parametrize("size", [1, 5, 7, 22, 23, 64])
@pytest.mark.parametrize(
    "changes", [{}, {"has_bias": True}, {"softcap": 2.0}, {"scale": 0.3}], ids=["plain", "bias", "softcap", "scale"]
)
def test_a_chunked_loss_is_the_loss_and_its_gradient(generator, size, changes):
    head = made_up_head(generator, **changes)
    hidden = torch.randn(N, H, generator=generator, dtype=torch.float64)
    target = torch.randn(N, V, generator=generator, dtype=torch.float64).softmax(-1)
    weights = torch.rand(N, generator=generator, dtype=torch.float64)

    def loss_of(logits, rows):
        return (-(target[rows] * logits.double().log_softmax(-1)).sum(-1) * weights[rows]).sum()

    for naive, chunked in compared(
        head,
        hidden,
        lambda leaf: loss_of(head.logits(leaf), slice(None)),
        lambda leaf: chunked_loss(head, leaf, size, loss_of),
    ):
        torch.testing.assert_close(chunked, naive, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", [1, 5, 23, 64])
def test_chunked_log_probs_are_those_of_the_tokens_with_their_gradient(generator, size):
    head = made_up_head(generator, has_bias=True, softcap=3.0)
    hidden = torch.randn(N, H, generator=generator, dtype=torch.float64)
    actions = torch.randint(V, (N,), generator=generator)
    seen = []
    for naive, chunked in compared(
        head,
        hidden,
        lambda leaf: (action_log_probs(head.logits(leaf), actions).double() ** 2).sum(),
        lambda leaf: (
            chunked_log_probs(head, leaf, actions, size, lambda logits, rows: seen.append(rows)).double() ** 2
        ).sum(),
    ):
        torch.testing.assert_close(chunked, naive, rtol=1e-5, atol=1e-6)
    assert [row for rows in seen for row in range(rows.start, rows.stop)] == list(range(N))


def test_a_frozen_head_gets_no_gradient(generator):
    head = made_up_head(generator)
    head.weight_VH.requires_grad_(False)
    hidden = torch.randn(N, H, generator=generator, dtype=torch.float64).requires_grad_(True)
    chunked_loss(head, hidden, 4, lambda logits, rows: logits.square().sum()).backward()
    assert head.weight_VH.grad is None and hidden.grad.any()


def test_no_tensor_of_all_tokens_by_the_vocabulary_is_ever_made(generator):
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            out = function(*arguments, **(options or {}))
            sizes.extend(
                part.numel() for part in (out if isinstance(out, tuple | list) else [out]) if hasattr(part, "numel")
            )
            return out

    weight = torch.randn(500, 4, generator=generator).requires_grad_(True)
    head = Head(weight, None, 500, torch.float32)
    hidden = torch.randn(300, 4, generator=generator).requires_grad_(True)
    with Watch():
        chunked_loss(head, hidden, 20, lambda logits, rows: logits.log_softmax(-1).square().sum()).backward()
    assert max(sizes) == 20 * 500


def test_two_entries_give_the_log_probability_and_its_gradient():
    values = torch.tensor([-30.0, -2.0, -0.5, -1e-3, -1e-7, 0.0], requires_grad=True)
    found = action_log_probs(two_entries(values), torch.zeros(6, dtype=torch.long))
    torch.testing.assert_close(found, values, rtol=1e-6, atol=1e-7)
    (slopes,) = torch.autograd.grad(found.sum(), values)
    torch.testing.assert_close(slopes[:5], torch.ones(5), rtol=1e-4, atol=1e-4)
    assert torch.isfinite(slopes).all()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithms_step_in_chunks_is_the_step_at_once(config_of, name):
    """Loss, gradient and metrics, for sequences of all lengths and a chunk that divides nothing."""
    config = config_of(name, steps_per_epoch=1)
    policy = load_policy(Path(config.policy), config)
    estimator = Estimator(config, policy)
    batch = estimator.batch(collect(config, estimator.behaviour, load_prompts(config.prompts), 0))
    part = _minibatch(config, batch, 0, 0)
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=noise)
    found = []
    for chunk_tokens in (0, 7):
        fitting = Fitting(policy.model, Optimizer(learning_rate=1e-30, max_grad_norm=0.0), 1)
        values = fit(policy, fitting, estimator.algorithm, part, Limits(5), 0, chunk_tokens)
        found.append((values, [parameter.grad.clone() for parameter in policy.model.parameters()]))
    scale = max(gradient.abs().max() for gradient in found[0][1])
    assert scale > 0
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-4, abs=1e-6)
    for naive, chunked in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(chunked, naive, rtol=1e-4, atol=1e-5 * float(scale))


@pytest.mark.parametrize(
    "changes",
    [{}, {"precision": "bfloat16"}, {"adapter": {"rank": 4}}, {"gradient_checkpointing": True}],
    ids=["plain", "bf16", "lora", "checkpointed"],
)
@pytest.mark.parametrize("name", ["lco-kld", "gspo"])
def test_a_run_in_chunks_is_the_run_at_once(config_of, tmp_path, name, changes):
    found = []
    for size in (0, 9):
        with closing(Stage(tmp_path / str(size), [])) as stage:
            train(config_of(name, iterations=1, loss_chunk_tokens=size, **changes), stage)
        found.append(metrics(stage.run_dir))
    loose = "precision" in changes
    for step, values in found[0].items():
        assert found[1][step] == pytest.approx(values, rel=0.05 if loose else 2e-3, abs=0.05 if loose else 1e-5), step


STATES = {
    "lco-kld": {"steps_per_epoch": 2},
    "lco-kld-global": {
        "algorithm": {"name": "lco-kld", "advantage": {"name": "dpo"}, "center": True, "scale": "global"}
    },
    "lco-kld-step": {
        "algorithm": {"name": "lco-kld", "advantage": {"name": "logprob"}, "beta": 1, "scale": "per-step"},
        "frozen_weights": "bfloat16",
    },
    "lco-kld-sparse": {"steps_per_epoch": 1},
    "lco-kld-ratio": {"inner_epochs": 2},
    "lco-mse-full": {
        "algorithm": {
            "name": "lco-mse",
            "advantage": {"name": "logprob"},
            "beta": 1.0,
            "support": {"name": "full"},
            "center": True,
            "scale": "per-step",
            "std_floor": 0.1,
            "gate_threshold": -0.5,
            "gauge": "max-shift",
        }
    },
    "lco-lch-sparse": {
        "algorithm": {"name": "lco-lch", "beta": 2, "advantage": {"name": "sparse"}, "support": {"name": "full"}}
        | {"sparse_fill": "zero-mean", "vocab_reduction": "mean", "scale": "global", "negative_beta_factor": 3}
    },
    "gkd": {},
    "minillm": {"steps_per_epoch": 1},
    "lora": {"algorithm": {"name": "lco-kld", "advantage": {"name": "dpo"}}, "adapter": {"rank": 4}},
}
"""Runs with a support over the whole vocabulary; the changes to the tiny configuration of that name, or of lco-kld."""


def states_config(config_of, name, **changes):
    changes = STATES[name] | changes
    config = config_of(name if name in ALGORITHMS else "lco-kld", iterations=2)
    document = json.loads(config.model_dump_json()) | json.loads(json.dumps(changes))
    advantage = document["algorithm"].get("advantage", {})
    if advantage.get("name") in ("dpo", "logprob", "dpo-ratio"):
        advantage["reward_model"] = json.loads(config.model_dump_json())["algorithm"]["advantage"]["reward_model"]
    return type(config).model_validate_json(json.dumps(document))


@pytest.mark.parametrize("name", STATES)
def test_a_run_that_keeps_hidden_states_is_the_run_that_keeps_targets(config_of, tmp_path, name):
    found = []
    for size in (0, 9):
        with closing(Stage(tmp_path / str(size), [])) as stage:
            train(states_config(config_of, name, loss_chunk_tokens=size), stage)
        found.append(metrics(stage.run_dir))
    assert found[0].keys() == found[1].keys()
    for step, values in found[0].items():
        assert found[1][step] == pytest.approx(values, rel=5e-3, abs=2e-5), step


@pytest.mark.parametrize("name", STATES)
def test_nothing_of_all_tokens_by_the_vocabulary_is_kept(config_of, name):
    config = states_config(config_of, name, loss_chunk_tokens=9)
    policy = load_trained(Path(config.policy), config)
    estimator = Estimator(config, policy)
    batch = estimator.batch(collect(config, estimator.behaviour, load_prompts(config.prompts), 0))
    assert batch.support is None and batch.states is not None
    width = policy.model.config.hidden_size
    tensors = batch.tensors()
    for key, tensor in tensors.items():
        if key.startswith("states.") and "head" not in key:
            assert tensor.shape in [(len(batch.actions_N),), (len(batch.actions_N), width)], key
    steps = config.inner_epochs * config.steps_per_epoch
    assert ("states.head_VH" in tensors) == (steps > 1 and config.adapter is None)
    again = Batch.from_tensors({key: tensor.clone() for key, tensor in tensors.items()}).tensors()
    assert again.keys() == tensors.keys() and all(torch.equal(again[key], tensors[key]) for key in again)


@pytest.mark.parametrize("name", ["lco-kld", "lora", "gkd"])
def test_a_run_that_keeps_hidden_states_resumes_bit_for_bit_inside_an_iteration(config_of, tmp_path, name):
    config = states_config(config_of, name, loss_chunk_tokens=9)
    with closing(Stage(tmp_path / "whole", [])) as whole:
        train(config, whole)
    with closing(Stage(tmp_path / "first", [])) as first:
        first.stop()
        with pytest.raises(Stopped):
            train(config, first)
    with closing(Stage(tmp_path / "second", [first.run_dir])) as second:
        train(config, second)
    assert metrics(first.run_dir, second.run_dir) == metrics(whole.run_dir)


@pytest.mark.parametrize("is_dense", [False, True], ids=["sampled", "dense"])
def test_advantages_of_ones_own_in_chunks_are_those_at_once(config_of, tmp_path, is_dense):
    def advantages(rollouts, batch):
        logits_NV = batch.support.behaviour_logits_NK
        return logits_NV.cos() if is_dense else batch.behaviour_logprobs_N.cos()

    found = []
    for size in (0, 9):
        with closing(Stage(tmp_path / str(size), [])) as stage:
            train(config_of("lco-kld-sparse", iterations=1, loss_chunk_tokens=size), stage, advantages)
        found.append(metrics(stage.run_dir))
    for step, values in found[0].items():
        assert found[1][step] == pytest.approx(values, rel=5e-3, abs=2e-5), step


def test_numbers_on_request_are_the_same_with_hidden_states_kept(config_of, tmp_path):
    found = []
    for size in (0, 9):
        asked = {"advantage_gradients": True, "gradient_bound": True}
        with closing(Stage(tmp_path / str(size), [])) as stage:
            train(config_of("lco-kld", iterations=1, loss_chunk_tokens=size, diagnostics=asked), stage)
        found.append(metrics(stage.run_dir)[1])
    for name in ("train/grad_norm_positive", "train/grad_bound"):
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-3)


def test_a_head_that_is_no_linear_layer_is_refused(tiny_model, monkeypatch):
    policy = load_policy(tiny_model, StageConfig(device="cpu"))
    policy.model.lm_head = nn.Sequential(policy.model.lm_head)
    with pytest.raises(ValueError, match="loss_chunk_tokens: the model's head is no plain linear layer"):
        policy.head()


def test_an_architecture_with_more_after_its_hidden_states_is_refused(tiny_model, monkeypatch):
    plain = Policy.hidden_states
    monkeypatch.setattr(Policy, "hidden_states", lambda *arguments: plain(*arguments) + 1)
    with pytest.raises(ValueError, match="loss_chunk_tokens: the architecture has more"):
        load_trained(tiny_model, TrainingStageConfig(device="cpu", loss_chunk_tokens=4))


@pytest.mark.parametrize("architecture", ["Gemma2", "Cohere", "Granite", "GPT2", "Qwen2"])
def test_what_architectures_do_to_their_logits_is_known(tiny_policy, tmp_path, architecture):
    import transformers

    sizes = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "head_dim": 8}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 1}
    special = {
        "Gemma2": {"final_logit_softcapping": 0.5, "pad_token_id": 0},
        "Cohere": {"logit_scale": 0.25, "pad_token_id": 0},
        "Granite": {"logits_scaling": 4.0, "pad_token_id": 0},
        "GPT2": {"n_embd": 16, "n_layer": 1, "n_head": 2},
        "Qwen2": {},
    }[architecture]
    if architecture == "GPT2":
        sizes = {"vocab_size": 20, "bos_token_id": 1, "eos_token_id": 1}
    model = "GPT2LMHeadModel" if architecture == "GPT2" else f"{architecture}ForCausalLM"
    made = getattr(transformers, model)(getattr(transformers, f"{architecture}Config")(**sizes, **special)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    policy = Policy(made, tiny_policy.tokenizer)
    policy.check_head()
    ids = torch.tensor([[4, 5, 6, 7]])
    masks = torch.ones_like(ids), torch.ones_like(ids).bool()
    with torch.no_grad():
        found, expected = policy.head().logits(policy.hidden_states(ids, *masks)), policy.token_logits(ids, *masks)
    torch.testing.assert_close(found, expected)


def test_supervised_and_preference_stages_in_chunks_are_those_at_once(tiny_model, tmp_path):
    from lco.dpo import tune
    from lco.sft import warm_up

    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": f"{n}+1=", "completion": "1" * n, "chosen": f"{n + 1}", "rejected": "0" * n} for n in range(1, 9)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {"policy": str(tiny_model), "batch_size": 8, "device": "cpu", "optimizer": {"learning_rate": 0.01}}
    sft = SftConfig.model_validate(common | {"prompts": {"name": "jsonl", "path": str(path)}, "steps": 3})
    dpo = DpoConfig.model_validate(common | {"pairs": str(path), "epochs": 3, "nll_weight": 0.5})
    for body, config in ((warm_up, sft), (tune, dpo)):
        found = []
        for size in (0, 5):
            with closing(Stage(tmp_path / f"{body.__name__}-{size}", [])) as stage:
                body(config.model_copy(update={"loss_chunk_tokens": size}), stage)
            found.append(metrics(stage.run_dir))
        for step, values in found[0].items():
            assert found[1][step] == pytest.approx(values, rel=1e-3, abs=1e-5)
