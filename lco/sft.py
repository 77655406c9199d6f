"""Supervised warm-up (Eq. 1). `python -m lco.sft CONFIG.json RUN_DIR`."""

import random
import sys
from functools import partial
from pathlib import Path

from torch import Tensor

from lco import distributed
from lco.checkpoint import publish_model, restore_checkpoint, save_checkpoint
from lco.config import LlamaInit, SftConfig
from lco.head import chunked_loss
from lco.initial import initial_policy
from lco.losses import sft
from lco.memory import limits_of
from lco.optimization import Fitting
from lco.policy import Policy, load_trained, trained
from lco.prompts import load_prompts
from lco.rollout import sequence_tensors
from lco.seeds import derived_seed
from lco.stage import Stage, Stopped, run_stage
from lco.validation import Validator


def warm_up(config: SftConfig, stage: Stage) -> None:
    """Imitates demonstrations; the run directory's output is the model.

    Raises:
        Stopped: asked to stop; the state is saved.
        ValueError: an input is wrong.
        NonFinite: three steps in a row had no finite gradient.
    """
    distributed.join(config)
    if isinstance(config.policy, LlamaInit):
        policy = trained(initial_policy(config.policy, config), config)
    else:
        policy = load_trained(Path(config.policy), config)
    prompts = [prompt for prompt in load_prompts(config.prompts, config.seed) if prompt.demonstration]
    if not prompts:
        raise ValueError("prompts: none of them has a demonstration")
    if isinstance(config.policy, LlamaInit):
        texts = "".join(f"{prompt.text}{prompt.demonstration}" for prompt in prompts)
        if unknown := sorted(set(texts) - set(config.policy.characters)):
            shown = "".join(unknown)[:40]
            raise ValueError(f"policy.characters: the prompts hold characters that are not among them: {shown!r}")
    examples = [(policy.encode_prompt(p.text), policy.encode_completion(p.demonstration)) for p in prompts]
    for prompt, (prompt_ids, completion_ids) in zip(prompts, examples, strict=True):
        policy.check_fits(prompt_ids, completion_ids, f"prompts: {prompt.id}")
    policy.memory.report = stage.event
    validator = Validator(config.validation, policy) if config.validation else None
    fitting = Fitting(policy.model, config.optimizer, config.steps, config.parallel)
    step, state, _ = restore_checkpoint(stage, policy, fitting.optimizer)
    policy.memory.restore(state.get("memory", {}))
    fitting.num_skipped_in_a_row = state.get("num_skipped_in_a_row", 0)
    while step < config.steps:
        draw = random.Random(derived_seed(config.seed, "sft", step))
        chosen = sorted(
            draw.choices(examples, k=config.batch_size), key=lambda example: len(example[0]) + len(example[1])
        )
        lengths = [len(prompt) + len(completion) for prompt, completion in chosen]
        gradients = partial(_gradients, fitting, policy, chosen, config.loss_chunk_tokens)
        loss = policy.memory.whole("fitting", lengths, limits_of(config), gradients, least=distributed.count())
        metrics = fitting.apply(step, loss)
        metrics["train/num_tokens"] = sum(len(completion) for _, completion in chosen)
        step += 1
        if validator and (step % validator.config.every_steps == 0 or step == config.steps):
            with fitting.replica.unsharded():
                metrics |= validator.measure()
        stage.progress(step, config.steps, "fitting demonstrations")
        stage.metrics(step, metrics)
        is_last = step == config.steps
        is_stopping = distributed.any_of(stage.is_stopping)
        is_due = step % config.checkpoint_every_steps == 0 and fitting.is_sound
        if (is_stopping or is_due) and not is_last:
            counters = {"num_skipped_in_a_row": fitting.num_skipped_in_a_row, "memory": policy.memory.state()}
            save_checkpoint(stage, step, policy, fitting.optimizer, counters, None, config.keep_checkpoints)
            if is_stopping:
                raise Stopped
    policy.save(stage.run_dir / "model")
    publish_model(stage, config.steps, stage.run_dir / "model", seed=config.seed)


def _gradients(
    fitting: Fitting,
    policy: Policy,
    examples: list[tuple[list[int], list[int]]],
    chunk_tokens: int,
    pieces: list[range],
) -> Tensor:
    """Accumulates the gradient of the step's loss in micro-batches; gives this process's share of it."""
    num_tokens = sum(len(completion) for _, completion in examples)

    def loss_of(piece: range, is_mine: bool) -> Tensor:
        part = [examples[position] for position in piece]
        ids_BT, attention_mask_BT, mask_BT, actions_N = sequence_tensors(
            [prompt for prompt, _ in part], [completion for _, completion in part], policy.device
        )
        if chunk_tokens:
            hidden_NH = policy.hidden_states(ids_BT, attention_mask_BT, mask_BT)
            total = chunked_loss(
                policy.head(), hidden_NH, chunk_tokens, lambda logits_CV, rows: sft(logits_CV, actions_N[rows]).sum()
            )
        else:
            total = sft(policy.token_logits(ids_BT, attention_mask_BT, mask_BT), actions_N).sum()
        return total / num_tokens * is_mine

    return fitting.accumulate([partial(loss_of, *dealt) for dealt in distributed.rounds(pieces)])


if __name__ == "__main__":
    sys.exit(run_stage(SftConfig, warm_up, is_shared=True))
