"""DPO reward model (arXiv 2305.18290) that keeps its reference. `python -m lco.dpo CONFIG.json RUN_DIR`."""

import random
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lco import distributed
from lco.checkpoint import publish_model, restore_checkpoint, save_checkpoint
from lco.config import DpoConfig
from lco.head import chunked_log_probs
from lco.log_probs import action_log_probs
from lco.memory import Limits, limits_of
from lco.optimization import Fitting
from lco.policy import Policy, load_trained
from lco.prompts import read_jsonl, text_field
from lco.reward_model import save_reward_model
from lco.rollout import sequence_tensors
from lco.seeds import derived_seed
from lco.stage import Stage, Stopped, run_stage


@dataclass(slots=True)
class Pair:
    """A preference with the reference's log-probabilities of both completions, summed over tokens."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    reference_chosen: float = 0.0
    reference_rejected: float = 0.0

    def num_padded(self) -> int:
        """Tokens of the two sequences, the shorter one padded."""
        return 2 * (len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids)))


def tune(config: DpoConfig, stage: Stage) -> None:
    """Tunes a policy on preferences; the output is the reward model with its reference and its beta.

    Raises:
        Stopped: asked to stop; the state is saved.
        ValueError: an input is wrong.
        NonFinite: three steps in a row had no finite gradient.
    """
    distributed.join(config)
    policy = load_trained(Path(config.policy), config)
    policy.memory.report = stage.event
    pairs = _load_pairs(Path(config.pairs), policy)
    steps_per_epoch = max(1, len(pairs) // config.batch_size)
    total_steps = config.epochs * steps_per_epoch
    _score_reference(policy, pairs, limits_of(config), stage, config.loss_chunk_tokens)
    fitting = Fitting(policy.model, config.optimizer, total_steps, config.parallel)
    step, state, _ = restore_checkpoint(stage, policy, fitting.optimizer)
    policy.memory.restore(state.get("memory", {}))
    fitting.num_skipped_in_a_row = state.get("num_skipped_in_a_row", 0)
    while step < total_steps:
        epoch, share = divmod(step, steps_per_epoch)
        order = list(range(len(pairs)))
        random.Random(derived_seed(config.seed, "dpo", epoch)).shuffle(order)
        chosen = [pairs[index] for index in order[share * config.batch_size : (share + 1) * config.batch_size]]
        sums: dict[str, Tensor] = {}
        chosen.sort(key=Pair.num_padded)
        gradients = partial(_gradients, fitting, policy, chosen, config, sums)
        lengths = [pair.num_padded() for pair in chosen]
        loss = policy.memory.whole("fitting", lengths, limits_of(config), gradients, least=distributed.count())
        metrics = fitting.apply(step, loss)
        for name, total in distributed.summed(sums).items():
            metrics[f"train/{name}"] = total.item() / len(chosen)
        metrics["train/num_tokens"] = sum(len(pair.chosen_ids) + len(pair.rejected_ids) for pair in chosen)
        step += 1
        stage.progress(step, total_steps, "fitting preferences")
        stage.metrics(step, metrics)
        is_stopping = distributed.any_of(stage.is_stopping)
        is_due = step % config.checkpoint_every_steps == 0 and fitting.is_sound
        if (is_stopping or is_due) and step < total_steps:
            counters = {"num_skipped_in_a_row": fitting.num_skipped_in_a_row, "memory": policy.memory.state()}
            save_checkpoint(stage, step, policy, fitting.optimizer, counters, None, config.keep_checkpoints)
            if is_stopping:
                raise Stopped
    save_reward_model(policy, Path(config.policy), config.beta_dpo, stage.run_dir / "model")
    publish_model(stage, total_steps, stage.run_dir / "model", beta_dpo=config.beta_dpo, seed=config.seed)


def dpo_loss(
    chosen_B: Tensor, rejected_B: Tensor, reference_chosen_B: Tensor, reference_rejected_B: Tensor, config: DpoConfig
) -> tuple[Tensor, Tensor]:
    """-log sigmoid(beta_dpo (ratio_chosen - ratio_rejected)) per pair, and the margin beta_dpo (...), `[B]` each.

    Args:
        chosen_B: log-probability of the whole chosen completion under the policy; the others accordingly.
    """
    margin_B = config.beta_dpo * ((chosen_B - reference_chosen_B) - (rejected_B - reference_rejected_B))
    smoothing = config.label_smoothing
    return -(1 - smoothing) * logsigmoid(margin_B) - smoothing * logsigmoid(-margin_B), margin_B


def _load_pairs(path: Path, policy: Policy) -> list[Pair]:
    """The pairs of a file. Ids are used as sampled where they are this tokenizer's reading of the text."""
    pairs = []
    for row_number, row in read_jsonl(path):
        completions: list[list[int]] = []
        for field in ("chosen", "rejected"):
            text = text_field(path, row_number, row, field)
            ids = _token_ids(row.get(f"{field}_ids"), policy)
            completions.append(ids if ids and policy.decode(ids) == text else policy.encode_completion(text))
        prompt_ids = policy.encode_prompt(text_field(path, row_number, row, "prompt"))
        chosen_ids, rejected_ids = completions
        for ids in completions:
            policy.check_fits(prompt_ids, ids, f"{path}: row {row_number}")
        pairs.append(Pair(prompt_ids, chosen_ids, rejected_ids))
    if not pairs:
        raise ValueError(f"{path}: no pairs")
    return pairs


def _token_ids(value: object, policy: Policy) -> list[int]:
    """A row's token ids; empty where they are none of this vocabulary."""
    if isinstance(value, list) and all(isinstance(token, int) and 0 <= token < policy.vocab_size for token in value):
        return value
    return []


def _sequence_log_probs(policy: Policy, pairs: list[Pair], chunk_tokens: int = 0) -> Tensor:
    """Log-probabilities of whole completions, the chosen ones first, then the rejected, `[2B]`."""
    completions = [pair.chosen_ids for pair in pairs] + [pair.rejected_ids for pair in pairs]
    ids_BT, attention_mask_BT, mask_BT, actions_N = sequence_tensors(
        [pair.prompt_ids for pair in pairs] * 2, completions, policy.device
    )
    if chunk_tokens:
        hidden_NH = policy.hidden_states(ids_BT, attention_mask_BT, mask_BT)
        logprobs_N = chunked_log_probs(policy.head(), hidden_NH, actions_N, chunk_tokens)
    else:
        logprobs_N = action_log_probs(policy.token_logits(ids_BT, attention_mask_BT, mask_BT), actions_N)
    num_tokens_B = torch.tensor([len(ids) for ids in completions], device=policy.device)
    sequence_N = torch.arange(len(completions), device=policy.device).repeat_interleave(num_tokens_B)
    return torch.zeros(len(completions), device=policy.device).index_add(0, sequence_N, logprobs_N)


@torch.no_grad()
def _score_reference(policy: Policy, pairs: list[Pair], limits: Limits, stage: Stage, chunk_tokens: int = 0) -> None:
    """Notes the reference's log-probabilities, before the first step changes the policy."""
    scores: list[list[tuple[float, float]]] = []

    def scored(part: list[Pair]) -> list[tuple[float, float]]:
        return list(zip(*_sequence_log_probs(policy, part, chunk_tokens).view(2, -1).tolist(), strict=True))

    for part, is_mine in distributed.rounds(distributed.cut(pairs, limits.max_sequences)):
        if distributed.any_of(stage.is_stopping):
            raise Stopped
        if is_mine:
            lengths = [pair.num_padded() for pair in part]
            pieces = policy.memory.each("scoring", lengths, limits, lambda piece: scored([part[i] for i in piece]))  # noqa: B023
            scores.append([score for piece in pieces for score in piece])
    flat = [score for of_part in distributed.gather(scores) for score in of_part]
    for pair, (chosen, rejected) in zip(pairs, flat, strict=True):
        pair.reference_chosen, pair.reference_rejected = chosen, rejected


def _gradients(
    fitting: Fitting,
    policy: Policy,
    pairs: list[Pair],
    config: DpoConfig,
    sums: dict[str, Tensor],
    pieces: list[range],
) -> Tensor:
    """Accumulates the gradient of the step's loss in micro-batches, and the sums; gives this process's share of it."""
    sums.clear()
    num_chosen_tokens = sum(len(pair.chosen_ids) for pair in pairs)

    def loss_of(piece: range, is_mine: bool) -> Tensor:
        part = [pairs[position] for position in piece]
        sums_B = _sequence_log_probs(policy, part, config.loss_chunk_tokens)
        chosen_B, rejected_B = sums_B.chunk(2)
        reference = torch.tensor([(p.reference_chosen, p.reference_rejected) for p in part], device=policy.device)
        loss_B, margin_B = dpo_loss(chosen_B, rejected_B, reference[:, 0], reference[:, 1], config)
        for name, value in (("margin", margin_B), ("accuracy", (margin_B > 0).float())):
            total = value.detach().sum() * is_mine
            sums[name] = sums.get(name, torch.zeros_like(total)) + total
        loss = loss_B.sum() / len(pairs) - config.nll_weight * chosen_B.sum() / num_chosen_tokens
        return loss * is_mine

    return fitting.accumulate([partial(loss_of, *dealt) for dealt in distributed.rounds(pieces)])


if __name__ == "__main__":
    sys.exit(run_stage(DpoConfig, tune, is_shared=True))
