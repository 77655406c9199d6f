"""DPO: the loss against its direct form, the reward model that it leaves, and pairs used as they were sampled."""

import json
import math
from pathlib import Path

import pytest
import torch

from lco.config import DpoConfig, Optimizer, StageConfig
from lco.dpo import Pair, _gradients, _load_pairs, _score_reference, _sequence_log_probs, dpo_loss, tune
from lco.memory import Limits, Memory
from lco.optimization import Fitting
from lco.policy import have_same_weights, load_policy
from lco.reward_model import load_reward_model
from tests.lco.launcher import metrics

ROWS = [{"prompt": f"{n}+1=", "chosen": f"{n}+1={n + 1}", "rejected": f"{n}+1={n}"} for n in range(1, 9)]


def write(path: Path, rows) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.fixture
def config_of(tiny_model, tmp_path):
    def make(**changes):
        path = write(tmp_path / "pairs.jsonl", ROWS)
        document = {
            "policy": str(tiny_model),
            "pairs": str(path),
            "batch_size": 4,
            "device": "cpu",
            "micro_batch_size": 3,
        }
        return DpoConfig.model_validate(document | changes)

    return make


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_negative_log_sigmoid_of_the_scaled_difference_of_ratios(generator, smoothing):
    values = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    config = DpoConfig(policy="p", pairs="x", beta_dpo=0.3, label_smoothing=smoothing)
    loss, margin = dpo_loss(*values, config)
    chosen, rejected, reference_chosen, reference_rejected = values
    expected = 0.3 * ((chosen - reference_chosen) - (rejected - reference_rejected))
    torch.testing.assert_close(margin, expected)
    direct = -(1 - smoothing) * expected.sigmoid().log() - smoothing * (1 - expected.sigmoid()).log()
    torch.testing.assert_close(loss, direct)


def test_the_first_loss_is_log_2_because_the_policy_is_its_reference(config_of, stage):
    tune(config_of(epochs=2), stage)
    found = metrics(stage.run_dir)
    assert sorted(found) == [1, 2, 3, 4]
    assert found[1]["train/loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert found[1]["train/margin"] == pytest.approx(0.0, abs=1e-5)


def test_tuning_prefers_the_chosen_completion(config_of, stage, tiny_model):
    tune(config_of(batch_size=8, epochs=30, optimizer={"learning_rate": 0.01}), stage)
    found = metrics(stage.run_dir)
    assert found[30]["train/accuracy"] == 1.0 and found[30]["train/margin"] > 0.1
    reward_model = load_reward_model(stage.run_dir / "model", StageConfig(device="cpu"))
    assert reward_model.beta_dpo == 0.1
    assert have_same_weights(reward_model.reference, load_policy(tiny_model, StageConfig(device="cpu")))
    assert not have_same_weights(reward_model.policy, reward_model.reference)


def test_a_sequences_log_probability_is_the_sum_over_its_tokens(tiny_policy):
    pairs = [Pair([5, 6], [7, 8, 1], [9, 1]), Pair([4], [1], [0, 0, 0, 1])]
    found = _sequence_log_probs(tiny_policy, pairs)
    sequences = [([5, 6], [7, 8, 1]), ([4], [1]), ([5, 6], [9, 1]), ([4], [0, 0, 0, 1])]
    for value, (prompt, completion) in zip(found, sequences, strict=True):
        logits = tiny_policy.model(input_ids=torch.tensor([prompt + completion])).logits[0, :, : tiny_policy.vocab_size]
        steps = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        torch.testing.assert_close(value, steps.gather(1, torch.tensor(completion)[:, None]).sum())


def test_splitting_a_step_into_micro_batches_changes_nothing(tiny_policy, config_of, stage):
    config = config_of(nll_weight=0.5)
    pairs = _load_pairs(Path(config.pairs), tiny_policy)
    _score_reference(tiny_policy, pairs, Limits(3), stage)
    with torch.no_grad():
        tiny_policy.model.lm_head.weight += 0.1
        tiny_policy.model.lm_head.weight[5:9] *= 1.3
    values = []
    fitting = Fitting(tiny_policy.model, Optimizer(), 1)
    lengths = [pair.num_padded() for pair in pairs]
    for limits in (Limits(1), Limits(3), Limits(8), Limits(8, 2 * max(lengths))):
        sums: dict[str, torch.Tensor] = {}
        pieces = Memory().cut("fitting", lengths, limits)
        total = _gradients(fitting, tiny_policy, pairs, config, sums, pieces).item()
        norm = torch.cat([p.grad.flatten() for p in tiny_policy.model.parameters()]).norm().item()
        values.append([total, norm, sums["margin"].item(), sums["accuracy"].item()])
    for other in values[1:]:
        assert other == pytest.approx(values[0], rel=1e-4)


def test_the_nll_term_is_the_token_mean_of_the_chosen_completions(tiny_policy, config_of, stage):
    pairs = _load_pairs(Path(config_of().pairs), tiny_policy)
    _score_reference(tiny_policy, pairs, Limits(8, 64), stage)
    fitting = Fitting(tiny_policy.model, Optimizer(), 1)
    plain, with_term = (
        _gradients(fitting, tiny_policy, pairs, config_of(nll_weight=weight), {}, [range(len(pairs))]).item()
        for weight in (0.0, 2.0)
    )
    mean = -sum(pair.reference_chosen for pair in pairs) / sum(len(pair.chosen_ids) for pair in pairs)
    assert with_term - plain == pytest.approx(2 * mean, rel=1e-5)


def test_sampled_ids_are_used_where_they_read_as_the_text_and_else_the_text_is_tokenized(tiny_policy, tmp_path):
    truncated = tiny_policy.encode_completion("1+1=")[:-1]
    foreign = [3, 3]
    rows = [
        ROWS[0] | {"chosen": "1+1=", "chosen_ids": truncated, "rejected_ids": foreign},
        ROWS[1] | {"chosen_ids": [], "rejected_ids": [10**6]},
        ROWS[2] | {"chosen_ids": "no", "rejected_ids": [True, None]},
    ]
    first, second, third = _load_pairs(write(tmp_path / "pairs.jsonl", rows), tiny_policy)
    assert first.chosen_ids == truncated
    assert first.rejected_ids == tiny_policy.encode_completion(ROWS[0]["rejected"])
    for pair, row in ((second, ROWS[1]), (third, ROWS[2])):
        assert pair.chosen_ids == tiny_policy.encode_completion(row["chosen"])
        assert pair.rejected_ids == tiny_policy.encode_completion(row["rejected"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no pairs"),
        ([{"prompt": "1", "chosen": "2"}], "row 1 has no text field 'rejected'"),
        ([ROWS[0], ROWS[1] | {"chosen": 3}], "row 2 has no text field 'chosen'"),
        (["{"], "row 1 is no JSON"),
    ],
)
def test_wrong_pairs_are_the_users_error_and_named(config_of, stage, tmp_path, rows, message):
    config = config_of()
    write(tmp_path / "pairs.jsonl", rows)
    with pytest.raises(ValueError, match=message):
        tune(config, stage)


def test_fewer_pairs_than_a_batch_are_one_step(config_of, stage):
    tune(config_of(batch_size=100), stage)
    assert sorted(metrics(stage.run_dir)) == [1]
