"""Accuracy while training: greedy Pass@1 on problems that are never trained on."""

from lco.answers import grade
from lco.config import Sampling, Validation
from lco.policy import Policy
from lco.prompts import load_prompts
from lco.rollout import sample


class Validator:
    """Measures one policy on one fixed set of problems."""

    def __init__(self, config: Validation, policy: Policy) -> None:
        self.config = config
        self.policy = policy
        self._prompts = load_prompts(config.prompts)
        self._prompt_ids = [policy.encode_prompt(prompt.text) for prompt in self._prompts]

    def measure(self) -> dict[str, float]:
        """`eval/accuracy`: the share of problems answered correctly by greedy decoding."""
        sampling = Sampling(temperature=0.0, max_tokens=self.config.max_tokens)
        completions = sample(self.policy, self._prompt_ids, [0] * len(self._prompts), sampling)
        num_correct = sum(
            grade(self.policy.decode(ids), prompt.reference, self.config.extraction, self.config.comparison).is_correct
            for prompt, ids in zip(self._prompts, completions, strict=True)
        )
        return {"eval/accuracy": num_correct / len(self._prompts)}
