"""Accuracy while training: greedy Pass@1 on a fixed set of problems."""

from lco.answers import grade
from lco.config import Sampling, Sums, Validation
from lco.rollout import sample
from lco.validation import Validator

CONFIG = Validation(
    prompts=Sums(split="validation", num_problems=20, num_terms=3), extraction="final-number", max_tokens=6
)


def test_accuracy_is_the_share_of_problems_that_greedy_decoding_answers(tiny_policy):
    from lco.prompts import load_prompts

    prompts = load_prompts(CONFIG.prompts)
    ids = [tiny_policy.encode_prompt(prompt.text) for prompt in prompts]
    completions = sample(tiny_policy, ids, [0] * 20, Sampling(temperature=0.0, max_tokens=6))
    correct = [
        grade(tiny_policy.decode(c), p.reference, "final-number").is_correct
        for p, c in zip(prompts, completions, strict=True)
    ]
    validator = Validator(CONFIG, tiny_policy)
    assert validator.measure() == {"eval/accuracy": sum(correct) / 20} == validator.measure()


def test_the_problems_are_the_same_for_every_train_seed_and_never_trained_on(tiny_policy):
    from lco.prompts import load_prompts

    texts = {prompt.text for prompt in Validator(CONFIG, tiny_policy)._prompts}
    for seed in range(3):
        trained = {prompt.text for prompt in load_prompts(Sums(num_problems=200, num_terms=3), seed)}
        assert not texts & trained
