"""Preference pairs: sampled, labelled by correctness, and swapped only where the control asks for it."""

import json

import pytest

from lco.answers import grade
from lco.config import PairsConfig
from lco.manifest import read_manifest
from lco.pairs import make_pairs
from tests.lco.launcher import metrics


@pytest.fixture
def config_of(tiny_model, tmp_path):
    def make(reference="8", **changes):
        path = tmp_path / "problems.jsonl"
        rows = [{"prompt": f"{a}+{b}=", "reference": reference} for a in range(1, 6) for b in range(1, 6)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        document = {
            "policy": str(tiny_model),
            "prompts": {"name": "jsonl", "path": str(path)},
            "sampling": {"max_tokens": 8, "batch_size": 64},
            "samples_per_prompt": 16,
            "extraction": "final-number",
            "device": "cpu",
        }
        return PairsConfig.model_validate(document | changes)

    return make


def rows_of(config, stage):
    make_pairs(config, stage)
    return [json.loads(line) for line in (stage.run_dir / "pairs.jsonl").read_text().splitlines()]


def test_a_pair_is_a_correct_and_an_incorrect_completion_of_one_prompt(config_of, stage, tiny_policy):
    rows = rows_of(config_of(pairs_per_prompt=2), stage)
    assert rows
    for row in rows:
        assert grade(row["chosen"], "8", "final-number").is_correct
        assert not grade(row["rejected"], "8", "final-number").is_correct
        for name in ("chosen", "rejected"):
            assert tiny_policy.decode(row[f"{name}_ids"]) == row[name]
    names = [row["prompt_id"] for row in rows]
    assert max(names.count(name) for name in names) <= 2
    assert len({(row["prompt_id"], *row["chosen_ids"], -1, *row["rejected_ids"]) for row in rows}) == len(rows)
    manifest = read_manifest(stage.run_dir)
    assert (manifest.outputs, manifest.details) == ({"pairs": "pairs.jsonl"}, {"num_pairs": len(rows)})


def test_the_reported_accuracy_counts_every_sample(config_of, stage):
    rows_of(config_of(), stage)
    found = metrics(stage.run_dir)[1]
    assert 0 < found["train/accuracy"] < 0.5
    assert (found["train/accuracy"] * 25 * 16) == pytest.approx(round(found["train/accuracy"] * 400))


def test_shuffling_swaps_about_half_and_changes_nothing_else(config_of, stage, resumed_stage):
    plain = rows_of(config_of(pairs_per_prompt=8, samples_per_prompt=48), stage)
    shuffled = rows_of(config_of(pairs_per_prompt=8, samples_per_prompt=48, shuffle_preferences=True), resumed_stage)
    assert len(plain) == len(shuffled)
    num_swapped = sum(not grade(row["chosen"], "8", "final-number").is_correct for row in shuffled)
    assert 0.3 < num_swapped / len(shuffled) < 0.7
    firsts = {row["prompt_id"]: row for row in reversed(plain)}
    for row in shuffled:  # the first pair of each prompt is drawn before any swap
        if row["prompt_id"] in firsts:
            couple = firsts.pop(row["prompt_id"])
            assert {row["chosen"], row["rejected"]} == {couple["chosen"], couple["rejected"]}


def test_the_sampling_batch_changes_no_pair(config_of, stage, resumed_stage):
    first = rows_of(config_of(), stage)
    sampling = {"max_tokens": 8, "batch_size": 1000}
    assert rows_of(config_of(sampling=sampling), resumed_stage) == first


def test_prompts_that_are_all_wrong_give_no_pair_and_none_at_all_is_refused(config_of, stage):
    with pytest.raises(ValueError, match="prompts: none of them has both a correct and an incorrect completion"):
        make_pairs(config_of(reference="1234567"), stage)
