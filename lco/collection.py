"""One iteration's completions: which prompts, how often, and what is sampled again (DAPO's dynamic sampling).

Every draw is named by (train seed, iteration, round, position): nothing has to be remembered to resume.
"""

import random

from lco.algorithms import TrainConfig
from lco.baselines import Dapo, Gkd
from lco.policy import Policy
from lco.prompts import Prompt
from lco.rewarder import Rewarder
from lco.rollout import Rollout, sample
from lco.seeds import derived_seed, uniforms


def collect(
    config: TrainConfig, policy: Policy, prompts: list[Prompt], iteration: int, rewarder: Rewarder | None = None
) -> list[Rollout]:
    """Samples and rewards one iteration's completions, the group of a prompt side by side.

    Args:
        rewarder: the run's own; made now where there is none.
    """
    rewarder = rewarder or Rewarder(config)
    indices = prompt_indices(len(prompts), config.prompts_per_iteration, iteration, config.seed)
    rollouts = _sampled(config, policy, rewarder, [prompts[index] for index in indices], ("rollout", iteration))
    if isinstance(config.algorithm, Dapo):
        return _refilled(config, config.algorithm, policy, rewarder, prompts, indices, rollouts, iteration)
    return rollouts


def _refilled(
    config: TrainConfig,
    algorithm: Dapo,
    policy: Policy,
    rewarder: Rewarder,
    prompts: list[Prompt],
    indices: list[int],
    rollouts: list[Rollout],
    iteration: int,
) -> list[Rollout]:
    """Groups whose raw rewards differ, from further prompts where some of the first do not (arXiv 2503.14476, Eq. 11).

    A further prompt is one that this iteration has not tried, in an order drawn for the iteration. What is missing when
    the rounds or the prompts end is filled with the first groups of equal rewards, so that an iteration keeps its size.
    """
    tried = set(indices)
    order = list(range(len(prompts)))
    random.Random(derived_seed(config.seed, "refill", iteration)).shuffle(order)
    untried = [index for index in order if index not in tried]
    mixed: list[list[Rollout]] = []
    equal: list[list[Rollout]] = []
    for sampling_round in range(1, algorithm.max_sampling_rounds + 1):
        for start in range(0, len(rollouts), config.group_size):
            group = rollouts[start : start + config.group_size]
            rewards = {rollout.reward for rollout in group if rollout.reward is not None}
            (mixed if len(rewards) > 1 else equal).append(group)
        num_missing = config.prompts_per_iteration - len(mixed)
        chosen, untried = untried[:num_missing], untried[num_missing:]
        if not chosen or sampling_round == algorithm.max_sampling_rounds:
            break
        wanted = [prompts[index] for index in chosen]
        rollouts = _sampled(config, policy, rewarder, wanted, ("refill", iteration, sampling_round))
    groups = (mixed + equal)[: config.prompts_per_iteration]
    return [rollout for group in groups for rollout in group]


def _sampled(
    config: TrainConfig, policy: Policy, rewarder: Rewarder, prompts: list[Prompt], name: tuple[int | str, ...]
) -> list[Rollout]:
    """A group of rewarded completions of each prompt.

    Args:
        name: parts of the seeds' names, beside the train seed and the completion's position.
    """
    chosen = [prompt for prompt in prompts for _ in range(config.group_size)]
    seeds = [derived_seed(config.seed, *name, position) for position in range(len(chosen))]
    encoded = {prompt.id: policy.encode_prompt(prompt.text) for prompt in chosen}
    prompt_ids = [encoded[prompt.id] for prompt in chosen]
    completions = _completions(config, policy, chosen, prompt_ids, seeds)
    texts = [policy.decode(completion_ids) for completion_ids in completions]
    pieces = [policy.pieces(ids) if rewarder.has_steps else () for ids in completions]
    # Graded once and told to all: processes that disagree on a reward would train different models.
    verdicts = rewarder.graded(chosen, texts, pieces)
    return [
        Rollout(
            prompt=prompt,
            prompt_ids=ids,
            completion_ids=completion_ids,
            completion=text,
            is_truncated=completion_ids[-1] != policy.eos_id,
            reward=verdict.reward,
            is_correct=verdict.is_correct,
            step_rewards=verdict.step_rewards,
            step_tokens=verdict.step_tokens,
            is_timed_out=verdict.is_timed_out,
            reward_parts=verdict.parts,
        )
        for prompt, ids, completion_ids, text, verdict in zip(
            chosen, prompt_ids, completions, texts, verdicts, strict=True
        )
    ]


def _completions(
    config: TrainConfig, policy: Policy, prompts: list[Prompt], prompt_ids: list[list[int]], seeds: list[int]
) -> list[list[int]]:
    """The policy's completions; for GKD, demonstrations in place of a drawn share of them.

    Raises:
        ValueError: a demonstration is needed of a prompt that has none.
    """
    if not isinstance(config.algorithm, Gkd) or config.algorithm.on_policy_share == 1:
        return sample(policy, prompt_ids, seeds, config.sampling)
    draws = uniforms([derived_seed(seed, "on-policy") for seed in seeds], 1)[:, 0]
    own = [position for position, draw in enumerate(draws) if draw < config.algorithm.on_policy_share]
    sampled = sample(policy, [prompt_ids[i] for i in own], [seeds[i] for i in own], config.sampling) if own else []
    found = dict(zip(own, sampled, strict=True))
    for position, prompt in enumerate(prompts):
        if position not in found:
            if not prompt.demonstration:
                raise ValueError(f"algorithm.on_policy_share: the prompt {prompt.id} has no demonstration")
            found[position] = policy.encode_completion(prompt.demonstration)
    return [found[position] for position in range(len(prompts))]


def prompt_indices(num_prompts: int, count: int, iteration: int, seed: int) -> list[int]:
    """Positions of an iteration's prompts: consecutive pieces of one endless sequence of shuffled passes."""
    indices = []
    for position in range(iteration * count, (iteration + 1) * count):
        lap, offset = divmod(position, num_prompts)
        indices.append(_shuffled(num_prompts, derived_seed(seed, "prompts", lap))[offset])
    return indices


def _shuffled(count: int, seed: int, _cache: dict[tuple[int, int], list[int]] = {}) -> list[int]:  # noqa: B006
    """0..count-1 in an order drawn from the seed; the last two orders are kept."""
    key = (count, seed)
    if key not in _cache:
        order = list(range(count))
        random.Random(seed).shuffle(order)
        if len(_cache) > 1:
            _cache.clear()
        _cache[key] = order
    return _cache[key]
