"""The RL loop: sample -> reward -> advantages -> targets -> loss -> step. `python -m lco.train CONFIG.json RUN_DIR`.

One iteration samples `prompts_per_iteration x group_size` completions from the policy as it stands (the behaviour
policy), scores the sampled ids, and takes `inner_epochs x steps_per_epoch` optimizer steps on them. Every random draw
is named by (train seed, iteration, ...), so a run resumed at any step is bit for bit the uninterrupted run on a CPU.

Departure from the paper: the defaults keep the advantage's own scale and pull to the starting policy (`reference_kl`),
where the paper z-scores per time step.
"""

import random
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lco import distributed
from lco.algorithms import Algorithm, LcoConfig, TrainConfig
from lco.baselines import MiniLlm
from lco.checkpoint import publish_model, restore_checkpoint, save_checkpoint
from lco.collection import collect
from lco.diagnostics import rollout_metrics, token_sums
from lco.estimation import AdvantageFunction, Estimator
from lco.fused import chunked_step_loss
from lco.losses import LOSSES, token_weights
from lco.memory import Limits, limits_of
from lco.metrics import DiagnosticsConfig
from lco.optimization import Fitting
from lco.policy import Policy, load_trained
from lco.probes import probe
from lco.prompts import Prompt, load_prompts
from lco.rewarder import Rewarder
from lco.rollout import Batch
from lco.rollout_log import RolloutLog
from lco.seeds import derived_seed
from lco.stage import Stage, Stopped, run_stage
from lco.validation import Validator
from lco.watch import Watch, respond


def train(config: TrainConfig, stage: Stage, advantages: AdvantageFunction | None = None) -> None:
    """Trains a policy; the run directory's output is the trained model.

    Args:
        advantages: a function of one's own in place of the configured `sparse` advantage (`docs/library.md`).

    Raises:
        Stopped: asked to stop; the state is saved.
        ValueError: an input is wrong.
        NonFinite: three steps in a row had no finite gradient.
        RewardFailure: too many completions got no reward.
        Collapsed, Paused: the collapse watch raised an alarm and was told to do so.
    """
    distributed.join(config)
    with closing(Rewarder(config, stage.run_dir, stage.earlier[1:])) as rewarder:
        prompts = load_prompts(config.prompts, config.seed)
        rewarder.check(prompts)
        _loop(config, stage, advantages, prompts, rewarder)


def _loop(
    config: TrainConfig,
    stage: Stage,
    advantages: AdvantageFunction | None,
    prompts: list[Prompt],
    rewarder: Rewarder,
) -> None:
    """Iteration by iteration, from the newest checkpoint or the start."""
    policy = load_trained(Path(config.policy), config)
    policy.memory.report = stage.event
    estimator = Estimator(config, policy, advantages)
    algorithm = estimator.algorithm
    validator = Validator(config.validation, policy) if config.validation else None
    steps_per_iteration = config.inner_epochs * config.steps_per_epoch
    total_steps = config.iterations * steps_per_iteration
    fitting = Fitting(policy.model, config.optimizer, total_steps, config.parallel)
    if isinstance(algorithm, LcoConfig) and algorithm.anchor == "current" and steps_per_iteration > 1:
        stage.event("warning", "anchor: `current` moves the target with the policy; several steps on one sample add up")
    critic = estimator.critic
    second = critic.fitting if critic else None
    step, state, buffer = restore_checkpoint(stage, policy, fitting.optimizer, second)
    fitting.num_skipped_in_a_row = state.get("num_skipped_in_a_row", 0)
    policy.memory.restore(state.get("memory", {}))
    estimator.restore(state)
    watch = Watch(config.watch, state.get("watch"))
    batch = Batch.from_tensors(buffer) if buffer is not None else None
    next_iteration = -(-step // steps_per_iteration)
    samples = config.rollout_samples
    log = RolloutLog(stage.run_dir, samples, config.iterations, next_iteration) if stage.is_writer else None

    def checkpoint(num_extra: int = 0) -> None:
        is_between_iterations = step % steps_per_iteration == 0
        tensors = None if is_between_iterations or batch is None else batch.tensors()
        counters = {"num_skipped_in_a_row": fitting.num_skipped_in_a_row, "watch": watch.state()}
        counters |= {"memory": policy.memory.state()} | estimator.state()
        keep = config.keep_checkpoints + num_extra
        save_checkpoint(stage, step, policy, fitting.optimizer, counters, tensors, keep, second)

    is_due = False
    while step < total_steps:
        iteration, inner_step = divmod(step, steps_per_iteration)
        stage.progress(step, total_steps, f"iteration {iteration + 1} of {config.iterations}")
        started = time.monotonic()
        metrics: dict[str, float] = {}
        if inner_step == 0:
            with fitting.replica.unsharded():
                rollouts = collect(config, policy, prompts, iteration, rewarder)
                stage.spending(rewarder.spent)
                batch = estimator.batch(rollouts, iteration)
            metrics |= rollout_metrics(rollouts, batch, config.group_size) | estimator.statistics
            if log:
                log.keep(iteration, rollouts, batch, policy, config.group_size)
            if estimator.has_reference:
                gaps_N = batch.behaviour_logprobs_N - batch.reference_logprobs_N
                metrics["train/kl_reference"] = gaps_N.mean().item()
        assert batch is not None, "a checkpoint inside an iteration holds its batch"
        part = _minibatch(config, batch, iteration, inner_step)
        if critic:
            metrics |= critic.fit(part, step)
        if not (critic and critic.is_pretraining(iteration)):
            if config.diagnostics != DiagnosticsConfig():
                whole = estimator.prepared(part)
                metrics |= probe(policy, algorithm, whole, config.micro_batch_size, config.diagnostics)
            chunked = config.loss_chunk_tokens, estimator.prepared
            metrics |= fit(policy, fitting, algorithm, part, limits_of(config), step, *chunked)
        step += 1
        if validator and (step % validator.config.every_steps == 0 or step == total_steps):
            with fitting.replica.unsharded():
                metrics |= validator.measure()
        metrics["time/step_seconds"] = time.monotonic() - started
        stage.metrics(step, metrics)
        respond(config.watch, watch.observe(step, metrics), stage, lambda: checkpoint(num_extra=1))
        if distributed.any_of(stage.is_stopping) and step < total_steps:
            checkpoint()
            raise Stopped
        is_due = (is_due or step % config.checkpoint_every_steps == 0) and step < total_steps
        is_sound = fitting.is_sound and (second is None or second.is_sound)
        if is_due and is_sound and not watch.holds_checkpoints:
            checkpoint()
            is_due = False
    stage.progress(total_steps, total_steps, "saving the model")
    policy.save(stage.run_dir / "model")
    publish_model(stage, total_steps, stage.run_dir / "model", algorithm=algorithm.name, seed=config.seed)


def _minibatch(config: TrainConfig, batch: Batch, iteration: int, inner_step: int) -> Batch:
    """An optimizer step's share of an iteration's completions, with its loss weights, short ones first."""
    epoch, share = divmod(inner_step, config.steps_per_epoch)
    num_sequences = len(batch.num_tokens_B)
    order = list(range(num_sequences))
    random.Random(derived_seed(config.seed, "order", iteration, epoch)).shuffle(order)
    size = num_sequences // config.steps_per_epoch
    indices_B = torch.tensor(order[share * size : (share + 1) * size], device=batch.num_tokens_B.device)
    lengths_B = batch.attention_mask_BT[indices_B].sum(1)
    part = batch.select(indices_B[lengths_B.argsort(stable=True)])
    part.weights_N = _weights(config, part)
    return part


def _weights(config: TrainConfig, part: Batch) -> Tensor:
    """What each token's loss is multiplied by; demonstrations beside completions have a mean of their own."""
    algorithm, counts_B, shown_B = config.algorithm, part.num_tokens_B, part.is_demonstration_B
    weights_N = token_weights(
        counts_B,
        algorithm.token_reduction,
        config.micro_batch_size,
        max_tokens=config.sampling.max_tokens,
        is_kept_B=part.is_kept_B if shown_B is None else ~shown_B,
    )
    if shown_B is None or not isinstance(algorithm, MiniLlm):
        return weights_N
    return weights_N + algorithm.lm_weight * token_weights(counts_B, "token-mean", is_kept_B=shown_B)


def fit(
    policy: Policy,
    fitting: Fitting,
    algorithm: Algorithm,
    batch: Batch,
    limits: Limits,
    step: int,
    chunk_tokens: int = 0,
    prepared: Callable[[Batch], Batch] = lambda chunk: chunk,
) -> dict[str, float]:
    """One optimizer step on a batch, in micro-batches that the processes share.

    Args:
        chunk_tokens: tokens that head and loss are applied to at a time; 0 for all of a micro-batch.
        prepared: gives a chunk its support, where hidden states are kept in its place.

    Returns:
        Loss, gradient norm, learning rate and the token means of `diagnostics.token_sums`.
    """
    sums: dict[str, Tensor] = {}

    def loss_of(piece: range, is_mine: bool) -> Tensor:
        micro = batch.select(torch.arange(piece.start, piece.stop, device=batch.num_tokens_B.device))
        inputs = micro.input_ids_BT, micro.attention_mask_BT, micro.mask_BT
        if chunk_tokens:
            loss, found = chunked_step_loss(
                policy.head(), policy.hidden_states(*inputs), micro, algorithm, chunk_tokens, prepared
            )
        else:
            logits_NV = policy.token_logits(*inputs)
            found = token_sums(logits_NV.detach(), micro, algorithm)
            loss = (LOSSES[type(algorithm)](logits_NV, micro, algorithm) * micro.weights_N).sum()
        for name, value in found.items():
            counted = value if is_mine else torch.zeros_like(value)
            sums[name] = sums.get(name, torch.zeros_like(value)) + counted
        return loss * is_mine

    def gradients(pieces: list[range]) -> Tensor:
        sums.clear()
        return fitting.accumulate([partial(loss_of, *dealt) for dealt in distributed.rounds(pieces)])

    # The authors' mean over micro-batches is over those that are configured, however many processes there are.
    least = 1 if algorithm.token_reduction == "micro-mean" else distributed.count()
    lengths = batch.attention_mask_BT.sum(1).tolist()
    metrics = fitting.apply(step, policy.memory.whole("fitting", lengths, limits, gradients, least))
    num_tokens = len(batch.actions_N)
    totals = distributed.summed(sums)
    means = (torch.stack(list(totals.values())) / num_tokens).tolist()
    metrics |= {f"train/{name}": value for name, value in zip(totals, means, strict=True)}
    return metrics | {"train/num_tokens": num_tokens}


if __name__ == "__main__":
    sys.exit(run_stage(TrainConfig, train, is_shared=True))
