"""The collapse watch: each signal's rule, what an alarm does, and real runs, healthy and not."""

import json
from contextlib import closing

import pytest

from lco.algorithms import TrainConfig
from lco.config import DpoConfig, SftConfig
from lco.dpo import tune
from lco.manifest import newest_checkpoint
from lco.sft import warm_up
from lco.stage import Collapsed, Paused, Stage
from lco.train import train
from lco.watch import Alarm, Watch, WatchConfig, respond
from tests.lco.launcher import metrics, records

SMALL = {"window": 4, "patience": 3}


def watched(rows, **changes):
    """The alarms of a series of metrics, one row a step."""
    watch = Watch(WatchConfig(**SMALL | changes))
    return [alarm for step, row in enumerate(rows, 1) for alarm in watch.observe(step, row)]


def series(**signals):
    length = max(map(len, signals.values()))
    return [{f"train/{name}": values[i] for name, values in signals.items() if i < len(values)} for i in range(length)]


def test_a_steady_run_raises_nothing():
    rows = series(
        reward=[0.1, -0.1] * 20,
        reward_std=[1.0] * 40,
        entropy=[1.0, 1.2] * 20,
        grad_norm=[1.0, 3.0] * 20,
        kl_old=[0, 0.2] * 20,
    )
    assert watched(rows) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("entropy", 0.01),
        ("entropy", 9.0),
        ("grad_norm", 900.0),
        ("grad_norm", float("nan")),
        ("kl_old", 3.0),
        ("kl_old_k3", 3.0),
    ],
)
def test_a_signal_beyond_its_limit_for_long_enough_raises_one_alarm(name, value):
    values = [1.0] * 6 if not name.startswith("kl") else [0.1] * 6
    alarms = watched(series(**{name: [*values, value, value]}))
    assert alarms == []
    alarms = watched(series(**{name: [*values, value, values[0], value, value]}))
    assert alarms == [], "not in a row"
    (alarm,) = watched(series(**{name: [*values, *[value] * 8]}))
    assert (alarm.signal, alarm.since_step, alarm.step) == (name.removesuffix("_k3").removesuffix("_old"), 7, 9)


def test_a_signal_can_raise_its_alarm_again_after_it_has_recovered():
    flickering = [1.0] * 4 + [9.0] * 3 + [1.0] * 3 + [9.0] * 3
    recovered = [1.0] * 4 + [9.0] * 3 + [1.0] * 4 + [9.0] * 3
    assert len(watched(series(entropy=flickering))) == 1
    assert len(watched(series(entropy=recovered))) == 2


@pytest.mark.parametrize("entropy", [0.01, 5.0])
def test_entropy_may_change_where_the_reward_rises(entropy):
    entropies, std = [1.0] * 4 + [entropy] * 8, [1.0] * 12
    rising = series(reward=[0.0] * 4 + [0.8] * 8, reward_std=std, entropy=entropies)
    flat = series(reward=[0.0] * 12, reward_std=std, entropy=entropies)
    assert watched(rising) == []
    assert [alarm.signal for alarm in watched(flat)] == ["entropy"]


def test_reward_is_compared_with_its_best_in_units_of_its_spread():
    fall = [0.0] * 4 + [1.0] * 4 + [0.2] * 9
    assert watched(series(reward=fall, reward_std=[2.0] * 17)) == []
    (alarm,) = watched(series(reward=fall, reward_std=[1.0] * 17))
    assert alarm.signal == "reward" and alarm.since_step == 11
    assert alarm.message == "the mean reward fell from 1 to 0.2"
    scaled = watched(series(reward=[100 * value for value in fall], reward_std=[100.0] * 17))
    assert [one.since_step for one in scaled] == [11]


def test_a_limit_of_0_switches_its_signal_off():
    rows = series(
        reward=[1.0] * 4 + [-1.0] * 9,
        reward_std=[0.5] * 13,
        entropy=[1.0] * 4 + [9.0] * 9,
        grad_norm=[1.0] * 4 + [99.0] * 9,
        kl_old=[9.0] * 13,
    )
    assert {alarm.signal for alarm in watched(rows)} == {"reward", "entropy", "grad_norm", "kl"}
    off = {"reward_drop": 0.0, "entropy_low": 0.0, "entropy_high": 0.0, "grad_norm_factor": 0.0, "kl_limit": 0.0}
    assert watched(rows, **off) == []
    assert watched(rows, action="off") == []


def test_state_is_json_and_a_resumed_watch_raises_the_same_alarms():
    rows = series(
        reward=[0.5, 0.4, 0.6, 0.5, *[-0.7] * 9],
        reward_std=[0.9] * 13,
        entropy=[0.31, 0.3, 0.33, 0.29, *[0.9] * 9],
        grad_norm=[1.0] * 4 + [1e9, float("inf")] * 4,
    )
    whole = Watch(WatchConfig(**SMALL))
    expected = [whole.observe(step, row) for step, row in enumerate(rows)]
    assert sum(map(len, expected)) == 3
    for cut in range(len(rows)):
        first = Watch(WatchConfig(**SMALL))
        found = [first.observe(step, row) for step, row in enumerate(rows[:cut])]
        second = Watch(WatchConfig(**SMALL), json.loads(json.dumps(first.state(), allow_nan=False)))
        found += [second.observe(step, row) for step, row in enumerate(rows[cut:], cut)]
        assert found == expected
        assert second.state() == whole.state()


ALARM = Alarm("entropy", step=9, since_step=7, message="the entropy went from 1 to 9")


def test_a_warning_is_an_event_and_nothing_else(stage):
    respond(WatchConfig(), [ALARM], stage, save=lambda: pytest.fail("saved"))
    (event,) = [record for record in records(stage.run_dir) if record["type"] == "event"]
    assert event["level"] == "warning"
    assert event["message"] == "collapse watch: the entropy went from 1 to 9 (since step 7)"


def test_a_pause_saves_before_it_ends_the_stage_and_a_stop_does_not(stage):
    saved = []
    with pytest.raises(Paused, match=r"collapse watch at step 9: .* last good checkpoint: the start"):
        respond(WatchConfig(action="pause"), [ALARM], stage, save=lambda: saved.append(True))
    assert saved == [True]
    with pytest.raises(Collapsed, match="collapse watch at step 9"):
        respond(WatchConfig(action="stop"), [ALARM], stage, save=lambda: saved.append(True))
    assert saved == [True]


# Real runs: a warmed-up policy on one-digit sums, about a second each.

LLAMA = {
    "name": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_layers": 1,
    "num_heads": 2,
    "max_positions": 64,
}
PAIRS = [(a, b) for a in range(1, 9) for b in range(1, 9)]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """A policy that adds two digits correctly four times in five, and a reward model that 64 pairs overfit."""
    root = tmp_path_factory.mktemp("collapse")
    rows = [{"prompt": f"{a}+{b}=", "reference": f"{a + b}", "completion": f"{a + b}"} for a, b in PAIRS]
    pairs = [
        {"prompt": f"{a}+{b}=", "chosen": f"{a + b}", "rejected": f"{(a + b + k) % 17}"}
        for a, b in PAIRS
        for k in (3, 5)
    ]
    for name, lines in (("prompts", rows), ("pairs", pairs)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prompts = {"name": "jsonl", "path": str(root / "prompts.jsonl")}
    sft = {
        "policy": LLAMA,
        "prompts": prompts,
        "steps": 60,
        "batch_size": 64,
        "device": "cpu",
        "optimizer": {"learning_rate": 0.01},
    }
    with closing(Stage(root / "sft", [])) as stage:
        warm_up(SftConfig.model_validate(sft), stage)
    policy = str(root / "sft" / "model")
    dpo = {
        "policy": policy,
        "pairs": str(root / "pairs.jsonl"),
        "epochs": 4,
        "device": "cpu",
        "optimizer": {"learning_rate": 0.003},
    }
    with closing(Stage(root / "dpo", [])) as stage:
        tune(DpoConfig.model_validate(dpo), stage)
    return {
        "policy": policy,
        "prompts": prompts,
        "reward": {"extraction": "final-number"},
        "sampling": {"max_tokens": 6},
        "optimizer": {"learning_rate": 0.001},
        "prompts_per_iteration": 16,
        "group_size": 4,
        "iterations": 20,
        "device": "cpu",
        "watch": {"window": 5, "patience": 3},
    }, str(root / "dpo" / "model")


def compounding(reward_model):
    """A dense advantage z-scored at every step and added again to every new policy: pi_0 exp(k A / beta)."""
    advantage = {"name": "dpo", "reward_model": reward_model, "reference_kl": 0.0}
    return {"name": "lco-kld", "advantage": advantage, "beta": 0.1, "scale": "per-step", "center": True}


def alarms_of(stage):
    return [r["message"] for r in records(stage.run_dir) if r["type"] == "event" and "collapse watch" in r["message"]]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_watch_sees_a_real_collapse(task, stage, seed):
    config, reward_model = task
    train(TrainConfig.model_validate(config | {"algorithm": compounding(reward_model), "seed": seed}), stage)
    found = metrics(stage.run_dir)
    start, end = (sum(found[step]["train/reward"] for step in steps) / 3 for steps in ((1, 2, 3), (18, 19, 20)))
    assert start > 0.2 and end < -0.6, "it must have collapsed"
    assert any("the mean reward fell" in message for message in alarms_of(stage))


HEALTHY = {"name": "lco-kld", "beta": 3.0, "advantage": {"name": "sparse"}}


@pytest.mark.parametrize(("algorithm", "seed"), [(HEALTHY, 0), (HEALTHY, 1), (HEALTHY, 2), ({"name": "grpo"}, 0)])
def test_the_watch_is_silent_on_a_healthy_run(task, stage, algorithm, seed):
    config, _ = task
    train(TrainConfig.model_validate(config | {"algorithm": algorithm, "seed": seed}), stage)
    found = metrics(stage.run_dir)
    assert sum(found[step]["train/reward"] for step in range(16, 21)) / 5 > 0.4, "it must be healthy"
    assert alarms_of(stage) == []


def test_a_stopped_run_keeps_the_checkpoint_from_before_the_collapse(task, stage):
    config, reward_model = task
    config = config | {
        "algorithm": compounding(reward_model),
        "watch": config["watch"] | {"action": "stop"},
        "checkpoint_every_steps": 1,
        "keep_checkpoints": 1,
    }
    with pytest.raises(Collapsed, match="the mean reward fell") as caught:
        train(TrainConfig.model_validate(config), stage)
    newest = newest_checkpoint([stage.run_dir])
    assert newest is not None and f"last good checkpoint: step {newest.step}" in str(caught.value)
    assert metrics(stage.run_dir)[newest.step]["train/reward"] > -0.3
    assert not (stage.run_dir / "model").exists()


def test_a_paused_run_goes_on_as_if_it_had_only_been_warned(task, tmp_path):
    config, reward_model = task
    base = config | {
        "algorithm": compounding(reward_model),
        "iterations": 14,
        "checkpoint_every_steps": 4,
        "keep_checkpoints": 1,
    }
    config = TrainConfig.model_validate(base | {"watch": base["watch"] | {"action": "pause"}})
    with closing(Stage(tmp_path / "warned", [])) as warned:
        train(TrainConfig.model_validate(base), warned)
    with closing(Stage(tmp_path / "paused", [])) as paused:
        with pytest.raises(Paused):
            train(config, paused)
        kept = sorted(path.name for path in (paused.run_dir / "checkpoints").iterdir())
        assert len(kept) == 2, "the one from before the suspicion, and that of the pause"
    with closing(Stage(tmp_path / "paused", [])) as resumed:
        train(config, resumed)
    assert alarms_of(resumed) == alarms_of(warned), "told once"
    models = [stage.run_dir / "model" / "model.safetensors" for stage in (warned, resumed)]
    assert models[0].read_bytes() == models[1].read_bytes()
