"""QA-Feedback's reward models as the reward of a training run."""

import json
from pathlib import Path

import pytest

from lco.algorithms import TrainConfig
from lco.collection import collect
from lco.config import LlamaInit, StageConfig
from lco.initial import initial_policy
from lco.oracles.qa_feedback import QaFeedbackScorer, Response
from lco.policy import load_policy
from lco.prompts import load_prompts
from lco.rewarder import Rewarder
from lco.train import train
from tests.lco.launcher import records
from tests.lco.longformers import save_qa_feedback

CPU = StageConfig(device="cpu")
QUESTIONS = ["Who built it?", "When was it built?"]


@pytest.fixture(scope="module")
def reward(tmp_path_factory):
    return save_qa_feedback(tmp_path_factory.mktemp("qa-feedback"))


@pytest.fixture
def document(reward, tmp_path):
    characters = "".join(map(chr, range(32, 127)))
    init = LlamaInit(characters=characters, hidden_size=16, intermediate_size=32, num_layers=1, max_positions=128)
    initial_policy(init, CPU).save(tmp_path / "model")
    rows = [
        {"text": f"question: {q} context: wikipage: Tower text: Two men built it.", "answer": [q]} for q in QUESTIONS
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "algorithm": {"name": "grpo"},
        "policy": str(tmp_path / "model"),
        "prompts": {
            "name": "jsonl",
            "path": str(tmp_path / "train.jsonl"),
            "prompt_field": "text",
            "reference_field": "answer",
        },
        "reward": reward.model_dump(),
        "sampling": {"max_tokens": 24},
        "prompts_per_iteration": 2,
        "group_size": 3,
        "iterations": 1,
        "device": "cpu",
    }


def test_a_completion_is_rewarded_as_the_scorer_scores_it(document, reward):
    config = TrainConfig.model_validate(document)
    rollouts = collect(config, load_policy(Path(config.policy), CPU), load_prompts(config.prompts), 0)
    responses = [
        Response(question, rollout.prompt.text, rollout.completion.strip())
        for rollout in rollouts
        for question in QUESTIONS
        if f": {question} context" in rollout.prompt.text
    ]
    scores = QaFeedbackScorer(reward, CPU).scores(responses)
    assert [rollout.reward for rollout in rollouts] == pytest.approx([score.reward_sum for score in scores], abs=1e-5)
    faultless = [
        0 < score.n_sentences == score.n_factual and score.n_relevant == score.n_sub_sentences for score in scores
    ]
    assert [rollout.is_correct for rollout in rollouts] == faultless
    assert len({rollout.reward for rollout in rollouts}) > 1


def test_a_policy_is_trained_on_it(document, stage):
    train(TrainConfig.model_validate(document), stage)
    values = [record["values"] for record in records(stage.run_dir) if record["type"] == "metrics"]
    parts = sum(values[-1][f"train/reward_{part}"] for part in ("relevance", "factuality", "completeness"))
    assert parts == pytest.approx(values[-1]["train/reward"])


def test_another_form_of_prompt_is_refused_before_anything_is_sampled(document, stage, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "2+2=", "answer": ["4"]}\n')
    with pytest.raises(ValueError, match="qa-feedback reads prompts `question: "):
        train(TrainConfig.model_validate(document), stage)


def test_a_missing_reward_model_is_refused(document, tmp_path):
    document["reward"]["factuality"] = str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="nowhere: no model here"):
        Rewarder(TrainConfig.model_validate(document))
