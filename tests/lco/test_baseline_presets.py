"""The presets `baselines` and `trl`: every table is a part of a stage's configuration, with its source's values."""

import json
import tomllib
from operator import attrgetter
from pathlib import Path
from typing import get_args

import pytest

import lco
from lco.algorithms import Algorithm, TrainConfig
from lco.config import DpoConfig, SftConfig

DIRECTORY = Path(lco.__file__).parent / "presets"
STAGES = {"sft": SftConfig, "dpo": DpoConfig}
"""The tables that belong to another stage than training."""
INPUTS = {
    SftConfig: {"policy": "job:start", "prompts": {"name": "sums"}},
    DpoConfig: {"policy": "job:start", "pairs": "job:pairs"},
    TrainConfig: {"policy": "job:start", "prompts": {"name": "sums"}},
}


def stage_presets(name):
    """Every table of a file as the configuration that it is a part of."""
    document = tomllib.loads((DIRECTORY / f"{name}.toml").read_text())
    kinds = {table: STAGES.get(table, TrainConfig) for table in document}
    return {
        table: kind.model_validate_json(json.dumps(INPUTS[kind] | document[table])) for table, kind in kinds.items()
    }


BASELINES, TRL = stage_presets("baselines"), stage_presets("trl")
FROZEN_DEFAULTS = json.loads((Path(__file__).parent / "parity/trl-1.12.0-defaults.json").read_text())


def test_every_baseline_of_the_union_has_the_values_of_its_report():
    names = {config.model_fields["name"].default for config in get_args(get_args(Algorithm)[0])}
    found = {table.algorithm.name for table in BASELINES.values() if isinstance(table, TrainConfig)}
    assert found == {name for name in names if not name.startswith("lco-")}
    assert {"sft", "dpo", "dr-grpo"} <= BASELINES.keys()
    assert TRL.keys() <= BASELINES.keys() | {"luspo"}


@pytest.mark.parametrize(
    ("table", "values"),
    [
        (
            "grpo",
            {"group_size": 64, "prompts_per_iteration": 16, "algorithm.kl_weight": 0.04, "sampling.max_tokens": 1024},
        ),
        ("dapo", {"group_size": 16, "steps_per_epoch": 16, "algorithm.clip_high": 0.28, "sampling.max_tokens": 20480}),
        ("gspo", {"steps_per_epoch": 4, "algorithm.clip_low": 3e-4, "algorithm.clip_high": 4e-4}),
        ("dcpo", {"algorithm.clip_low": 0.16, "algorithm.clip_high": 0.2, "algorithm.ratio_cap": 10.0}),
        ("vc-ppo", {"algorithm.advantage.critic_lambda": 1.0, "algorithm.advantage.policy_lambda": 0.95}),
        ("stable-reinforce", {"algorithm.pre_clip": 1000.0, "algorithm.advantage_filter": 3.0}),
        ("minillm", {"algorithm.teacher_mix": 0.2, "algorithm.lm_weight": 1.0, "inner_epochs": 4}),
        ("dpo", {"beta_dpo": 0.1, "batch_size": 64, "optimizer.warmup_steps": 150}),
    ],
    ids=str,
)
def test_a_baselines_values_are_those_of_its_report(table, values):
    for path, expected in values.items():
        assert attrgetter(path)(BASELINES[table]) == expected, path


def trl_values(config):
    """TRL's names for what one of our configurations says."""
    schedule, rate = config.optimizer.schedule, config.optimizer.learning_rate
    found = {"learning_rate": rate, "lr_scheduler_type": schedule, "warmup_steps": config.optimizer.warmup_steps}
    found |= {"max_grad_norm": config.optimizer.max_grad_norm, "weight_decay": config.optimizer.weight_decay}
    if not isinstance(config, TrainConfig):
        return found
    found["temperature"] = config.sampling.temperature
    algorithm, advantage = config.algorithm, config.algorithm.advantage
    if algorithm.name in ("gkd", "ppo-critic"):
        found["max_new_tokens" if algorithm.name == "gkd" else "response_length"] = config.sampling.max_tokens
    else:
        found |= {"num_generations": config.group_size, "max_completion_length": config.sampling.max_tokens}
        found |= {"num_iterations": config.inner_epochs}
    if algorithm.name == "gkd":
        return found | {"beta": algorithm.jsd_beta, "lmbda": algorithm.on_policy_share}
    if algorithm.name == "cispo":
        return found | {"epsilon": algorithm.ratio_cap}
    assert algorithm.clip_high == algorithm.clip_low
    if algorithm.name == "ppo-critic":
        assert advantage.policy_lambda == advantage.critic_lambda and advantage.critic == config.optimizer
        found |= {
            "cliprange": algorithm.clip_low,
            "cliprange_value": advantage.value_clip,
            "lam": advantage.critic_lambda,
        }
        found |= {"gamma": advantage.discount, "num_ppo_epochs": config.inner_epochs, "kl_coef": advantage.kl_weight}
        return found | {"num_mini_batches": config.steps_per_epoch}
    found["epsilon"] = algorithm.clip_low
    if algorithm.name in ("grpo", "rloo"):
        found["beta"] = algorithm.kl_weight
    if algorithm.name == "grpo":
        found["use_bias_correction_kl"] = algorithm.is_kl_corrected
    if algorithm.name == "minillm":
        found |= {
            "single_step_decomposition": algorithm.single_step,
            "length_normalization": algorithm.length_normalized,
        }
    return found


CLASSES = {
    "sft": "SFTConfig",
    "dpo": "DPOConfig",
    "rloo": "RLOOConfig",
    "ppo-critic": "PPOConfig",
    "gkd": "GKDConfig",
    "minillm": "MiniLLMConfig",
}


@pytest.mark.parametrize("table", TRL)
def test_trls_values_are_the_defaults_of_its_configurations(table):
    frozen = FROZEN_DEFAULTS[CLASSES.get(table, "GRPOConfig")]
    found = trl_values(TRL[table])
    assert found == {name: frozen[name] for name in found}


def test_trls_dpo_has_its_beta_and_its_grpo_the_loss_type_dapo():
    assert TRL["dpo"].beta_dpo == FROZEN_DEFAULTS["DPOConfig"]["beta"]
    assert TRL["dpo"].label_smoothing == FROZEN_DEFAULTS["DPOConfig"]["label_smoothing"]
    assert (
        FROZEN_DEFAULTS["GRPOConfig"]["loss_type"] == "dapo" and TRL["grpo"].algorithm.token_reduction == "token-mean"
    )
    assert FROZEN_DEFAULTS["GRPOConfig"]["scale_rewards"] == "group"
    assert TRL["grpo"].algorithm.advantage.estimator == "group-normalized"
