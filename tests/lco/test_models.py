"""Models of different shapes in one series, and models that are talked to: what the loop makes of them."""

import json
from contextlib import closing
from pathlib import Path

import pytest
import torch

from lco.collection import collect
from lco.config import PairsConfig, SftConfig, StageConfig
from lco.estimation import Estimator
from lco.initial import initial_policy
from lco.pairs import make_pairs
from lco.policy import load_policy, load_trained
from lco.prompts import load_prompts
from lco.reward_model import save_reward_model
from lco.rollout import sample
from lco.sft import warm_up
from lco.stage import Stage
from lco.train import train
from tests.lco.conftest import TINY
from tests.lco.launcher import metrics

CPU = StageConfig(device="cpu")
CHARACTERS = "".join(map(chr, range(33, 33 + 61)))
"""64 tokens with the special ones: the policy's embedding has just these, the reward model's 71 rows."""
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'][0] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> tuple[Path, Path]:
    """A policy 40 wide of 64 rows and a reward model 24 wide of 71, over one vocabulary of 64 tokens.

    The rows that pad the embedding would win every argmax, did they count.
    """
    root = tmp_path_factory.mktemp("series")
    wide = {"characters": CHARACTERS, "num_heads": 2, "num_layers": 1, "intermediate_size": 32, "max_positions": 64}
    policy = initial_policy(TINY.model_copy(update=wide | {"hidden_size": 40}), CPU)
    policy.save(root / "policy")
    made = [initial_policy(TINY.model_copy(update=wide | {"hidden_size": 24}), CPU) for _ in range(2)]
    for number, model in enumerate(made):
        noise = torch.Generator().manual_seed(number)
        model.model.resize_token_embeddings(71, mean_resizing=False)
        with torch.no_grad():
            for parameter in model.model.parameters():
                if parameter.ndim == 2:
                    parameter += 0.3 * torch.randn(parameter.shape, generator=noise)
            model.model.lm_head.weight[64:] *= 100
    made[1].save(root / "reference")
    save_reward_model(made[0], root / "reference", 0.1, root / "reward-model")
    return root / "policy", root / "reward-model"


def series_config(config_of, series, name, **changes):
    policy, reward_model = series
    config = config_of(name, iterations=1, prompts_per_iteration=2, group_size=2)
    document = json.loads(config.model_dump_json()) | {"policy": str(policy)} | changes
    document["algorithm"]["advantage"]["reward_model"] = str(reward_model)
    return type(config).model_validate_json(json.dumps(document))


@pytest.mark.parametrize("name", ["lco-kld", "lco-kld-top-k", "lco-lch", "lco-mse", "gkd", "minillm"])
def test_policy_and_reward_model_may_differ_in_width_and_in_padded_rows(config_of, series, stage, name):
    train(series_config(config_of, series, name), stage)
    found = metrics(stage.run_dir)
    assert len(found) == 2 and all(value is not None for values in found.values() for value in values.values())


@pytest.mark.parametrize("name", ["lco-kld", "lco-kld-top-k", "lco-mse", "gkd"])
def test_padded_rows_are_in_no_target_and_no_support(config_of, series, name):
    config = series_config(config_of, series, name)
    policy = load_trained(Path(config.policy), config)
    estimator = Estimator(config, policy)
    batch = estimator.batch(collect(config, policy, load_prompts(config.prompts), 0))
    assert estimator.scorer.reward_model.model.config.vocab_size == 71
    assert estimator.scorer.reward_model.model.config.hidden_size == 24 and policy.model.config.hidden_size == 40
    if batch.support.ids_NK is None:
        assert batch.support.behaviour_logits_NK.shape[1] == batch.support.advantages_NK.shape[1] == 64
    else:
        assert batch.support.ids_NK.max() < 64
    logits = estimator.scorer.reward_model.token_logits(batch.input_ids_BT, batch.attention_mask_BT, batch.mask_BT)
    assert logits.shape[1] == 64
    torch.testing.assert_close(logits.softmax(-1).sum(-1), torch.ones(len(logits)))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_padded_rows_are_never_sampled(series, temperature):
    from lco.config import Sampling

    policy = load_policy(series[1], CPU)
    prompts = [policy.encode_prompt(character) for character in CHARACTERS[:16]]
    every = policy.model(input_ids=torch.tensor(prompts)).logits[:, -1]
    assert (every.argmax(-1) >= 64).any()  # they would be, were they not left out
    completions = sample(policy, prompts, list(range(16)), Sampling(max_tokens=6, temperature=temperature))
    assert max(max(ids) for ids in completions) < 64


@pytest.fixture
def chat_model(tmp_path) -> Path:
    """A model whose tokenizer has a chat template."""
    characters = TINY.characters + "<>aus"
    policy = initial_policy(TINY.model_copy(update={"characters": characters}), CPU)
    policy.tokenizer.chat_template = TEMPLATE
    policy.save(tmp_path / "chat")
    return tmp_path / "chat"


@pytest.fixture
def problems(tmp_path) -> Path:
    path = tmp_path / "chat.jsonl"
    rows = [{"prompt": f"{n}+2=", "reference": str(n), "completion": f"{n + 2}"} for n in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("system", "before"), [("", ""), ("1+1=2", "<s>1+1=2")])
def test_a_chat_model_is_asked_through_its_template_in_every_stage(
    config_of, chat_model, problems, tmp_path, system, before, monkeypatch
):
    from lco import rollout

    asked = []
    plain = rollout._sample_batch
    monkeypatch.setattr(rollout, "_sample_batch", lambda *arguments: asked.extend(arguments[1]) or plain(*arguments))
    prompts = {"name": "jsonl", "path": str(problems)}
    common = {"policy": str(chat_model), "prompts": prompts, "system_prompt": system, "device": "cpu"}
    tokenizer = load_policy(chat_model, CPU).tokenizer
    expected = {f"{before}<u>{n}+2=<a>" for n in range(8)}

    config = config_of("grpo", **common | {"iterations": 1, "prompts_per_iteration": 8, "group_size": 2})
    with closing(Stage(tmp_path / "train", [])) as stage:
        train(config, stage)
    assert {tokenizer.decode(ids) for ids in asked} == expected
    asked.clear()
    pairs = PairsConfig.model_validate(
        common | {"sampling": {"max_tokens": 8}, "samples_per_prompt": 16, "extraction": "final-number"}
    )
    with closing(Stage(tmp_path / "pairs", [])) as stage:
        make_pairs(pairs, stage)
    assert {tokenizer.decode(ids) for ids in asked} == expected
    rows = [json.loads(line) for line in (tmp_path / "pairs/pairs.jsonl").read_text().splitlines()]
    assert {row["prompt"] for row in rows} <= {f"{n}+2=" for n in range(8)}  # the text, to be templated once

    with closing(Stage(tmp_path / "sft", [])) as stage:
        warm_up(SftConfig.model_validate(common | {"steps": 1}), stage)
    assert load_policy(tmp_path / "sft/model", CPU).tokenizer.chat_template == TEMPLATE


def test_a_completion_of_a_chat_model_ends_with_its_end_token(chat_model):
    policy = load_policy(chat_model, CPU)
    ids = policy.encode_completion("12")
    assert policy.decode(ids) == "12" and ids[-1] == policy.eos_id


def test_a_system_prompt_for_a_model_without_a_template_is_refused_at_the_start(config_of, stage):
    with pytest.raises(ValueError, match="system_prompt: the tokenizer has no chat template"):
        train(config_of("grpo", system_prompt="be brief"), stage)
