"""What a training stage costs: floating-point operations by kind of work, and memory of one process. No torch.

    forward, per token      2 N_body + 4 L W T + 2 H V where logits are made     N_body weights of the blocks, L layers,
    forward and backward    3 times that; 4 times with recomputed blocks;        W width of the query heads, T length
                            2 times with an adapter (frozen weights need no gradient of their own)

Attention is counted over the whole square of a sequence; kernels that skip the masked half do a little less.
Sampling is counted apart, because decoding is bound by reading the weights once a token. What is left
out (norms, softmax, the optimizer's update, sorting a nucleus) is what a utilisation below 100 % stands for.
"""

from dataclasses import dataclass, field
from math import ceil

from lco.advantage_config import DpoAdvantage, DpoRatioAdvantage, GaeAdvantage, LogprobAdvantage
from lco.algorithms import FullSupport, TrainConfig
from lco.architectures import Architecture
from lco.baselines import DistillationConfig, MiniLlm
from lco.config import DpoConfig, Gsm8k, PairsConfig, Prompts, SftConfig, Sums, TrainingStageConfig, Validation

GIB = 1 << 30
_RUNTIME_BYTES = 3 * GIB // 2
"""CUDA context, libraries and the allocator's slack."""
_ROWS_AT_ONCE = 4
"""Tensors of tokens by vocabulary that a loss holds at a time: logits, log-probabilities, target, gradient."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean tokens of one sequence, for operations. Memory is priced at the longest."""

    prompt: float
    completion: float

    @property
    def total(self) -> float:
        """Of both."""
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class Batches:
    """How completions are dealt out."""

    size: int
    """Completions at a time, in one process."""
    processes: int = 1
    """That share them."""

    def count(self, completions: float) -> int:
        """Batches of all processes together."""
        return self.processes * ceil(completions / self.processes / self.size)


@dataclass(slots=True)
class Work:
    """Operations of one run, by kind of work."""

    fitting: float = 0.0
    """Floating-point operations of forward and backward passes."""
    scoring: float = 0.0
    """Of forward passes over whole sequences."""
    sampling: float = 0.0
    """Of drawing completions."""
    decoded_bytes: float = 0.0
    """Bytes of weights and caches that sampling moves, at least."""
    decoded_layers: float = 0.0
    """Layers that sampling starts one token of a batch in: what a decoder without graphs waits for."""
    tokens: float = 0.0
    """Tokens that are generated, plus those that are trained on: what a token budget counts."""

    @property
    def operations(self) -> float:
        """All floating-point operations."""
        return self.fitting + self.scoring + self.sampling

    def add(self, other: "Work") -> None:
        """Adds another's."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def times(self, count: float) -> "Work":
        """Several times the same."""
        return Work(*(count * getattr(self, name) for name in self.__slots__))


@dataclass(slots=True)
class Memory:
    """Bytes of one process at its fullest, by what they are for."""

    parts: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self.parts.values())


def forward(model: Architecture, lengths: Lengths, *, has_logits: bool = True, length: float | None = None) -> float:
    """Operations of one sequence's forward pass; logits are made for the completion alone.

    Args:
        has_logits: False where hidden states are kept in place of logits.
        length: tokens that attention sees, where they are more than the sequence's.
    """
    attended = lengths.total if length is None else length
    body = 2 * model.body_parameters + 4 * model.num_layers * model.attention_width * attended
    return body * lengths.total + (head(model) * lengths.completion if has_logits else 0.0)


def head(model: Architecture) -> float:
    """Operations of one token's logits."""
    return 2.0 * model.head_parameters


def fitting(model: Architecture, lengths: Lengths, config: TrainingStageConfig) -> float:
    """Operations of one sequence's forward and backward pass, with the loss's logits."""
    body = forward(model, lengths, has_logits=False)
    passes = (2.0 if config.adapter else 3.0) + config.gradient_checkpointing
    # A frozen head (an adapter's) needs the gradient of its inputs, not its own.
    return passes * body + (2.0 if config.adapter else 3.0) * head(model) * lengths.completion


def sampled(model: Architecture, lengths: Lengths, count: float, batches: Batches, longest: int, width: int) -> Work:
    """The work of drawing completions.

    Args:
        count: completions.
        longest: tokens of the longest completion: a batch takes as many steps.
        width: bytes of a number of the products. Weights are float32: with narrower products each step casts them.
    """
    prefill = forward(model, Lengths(lengths.prompt, 0.0)) + head(model)
    each = 2 * model.body_parameters + head(model)
    each += 4 * model.num_layers * model.attention_width * (lengths.prompt + lengths.completion / 2)
    steps = batches.count(count) * longest
    moved = 4 if width == 4 else 4 + 2 * width
    cache = count * lengths.completion * (lengths.prompt + lengths.completion / 2) * _cache_bytes(model, width)
    return Work(
        sampling=count * (prefill + each * max(0.0, lengths.completion - 1)),
        decoded_bytes=steps * (model.body_parameters + model.head_parameters) * float(moved) + cache,
        decoded_layers=float(steps * model.num_layers),
        tokens=count * lengths.completion,
    )


def _cache_bytes(model: Architecture, width: int) -> float:
    """Keys and values of one token in all layers."""
    return float(model.num_layers * model.kv_width * width)


def prompt_count(prompts: Prompts, rows: float | None) -> float:
    """Prompts that a configuration gives.

    Args:
        rows: of its file, where they are known.
    """
    limit = float(prompts.num_problems)
    return limit if rows is None or isinstance(prompts, Sums) else min(limit, rows)


def lengths_of(prompts: Prompts, max_tokens: int, stated: Lengths | None) -> Lengths:
    """Mean lengths of prompts and completions: as made for `sums`, else as stated, else 128 and half of the limit."""
    if isinstance(prompts, Sums):
        digits = len(str(prompts.max_term))
        steps = (prompts.num_terms - 1) * (3 * digits + 4)
        return Lengths(prompts.num_terms * (digits + 1), float(min(max_tokens, steps)))
    if stated is not None:
        return Lengths(stated.prompt, min(stated.completion, float(max_tokens)))
    return Lengths(256.0 if isinstance(prompts, Gsm8k) else 128.0, max_tokens / 2)


def _width(config: TrainingStageConfig | PairsConfig) -> int:
    return 2 if config.precision == "bfloat16" else 4


def _validation(
    config: Validation | None, model: Architecture, steps: int, stated: Lengths | None, width: int, processes: int
) -> Work:
    if config is None:
        return Work()
    times = ceil(steps / config.every_steps)
    count = prompt_count(config.prompts, None if isinstance(config.prompts, Sums) else 500.0)
    lengths = lengths_of(config.prompts, config.max_tokens, stated)
    work = sampled(model, lengths, count, Batches(256, processes), config.max_tokens, width).times(times)
    work.tokens = 0.0  # a measurement is not what a token budget counts
    return work


def sft_work(config: SftConfig, model: Architecture, stated: Lengths | None, processes: int = 1) -> Work:
    """The work of a supervised warm-up."""
    lengths = lengths_of(config.prompts, 1024, stated)
    count = config.steps * config.batch_size
    work = Work(fitting=count * fitting(model, lengths, config), tokens=count * lengths.completion)
    work.add(_validation(config.validation, model, config.steps, stated, _width(config), processes))
    return work


def dpo_work(config: DpoConfig, model: Architecture, stated: Lengths | None, pairs: float) -> Work:
    """The work of a DPO reward model: two sequences a pair, and the reference's scores once."""
    lengths = stated or Lengths(128.0, 512.0)
    each = 2 * forward(model, lengths)
    return Work(
        fitting=config.epochs * pairs * 2 * fitting(model, lengths, config),
        scoring=pairs * each,
        tokens=config.epochs * pairs * 2 * lengths.completion,
    )


def pairs_work(
    config: PairsConfig, model: Architecture, stated: Lengths | None, rows: float | None, processes: int = 1
) -> Work:
    """The work of sampling for preference pairs."""
    sampling = config.sampling
    lengths = lengths_of(config.prompts, sampling.max_tokens, stated)
    count = prompt_count(config.prompts, rows) * config.samples_per_prompt
    batches = Batches(sampling.batch_size, processes)
    return sampled(model, lengths, count, batches, sampling.max_tokens, _width(config))


@dataclass(frozen=True, slots=True)
class Frozen:
    """The models that a run of the RL loop holds beside its policy."""

    reward_model: Architecture | None = None
    reference: Architecture | None = None
    initial: Architecture | None = None
    """The starting policy, where it is kept apart."""

    @property
    def models(self) -> list[Architecture]:
        """Those there are."""
        return [model for model in (self.reward_model, self.reference, self.initial) if model is not None]


def frozen_of(config: TrainConfig, model: Architecture, reward_model: Architecture | None) -> Frozen:
    """The frozen models of a run; `reward_model` is the architecture of what the advantage names."""
    advantage = config.algorithm.advantage
    has_reference = isinstance(advantage, DpoAdvantage | DpoRatioAdvantage)
    has_pull = isinstance(advantage, DpoAdvantage) and advantage.reference_kl > 0
    has_penalty = isinstance(advantage, GaeAdvantage) and advantage.kl_weight > 0
    needs_initial = has_pull or has_penalty or getattr(config.algorithm, "kl_weight", 0.0) > 0
    return Frozen(
        reward_model=reward_model if has_reference or isinstance(advantage, LogprobAdvantage) else None,
        reference=reward_model if has_reference else None,
        initial=model if needs_initial and config.adapter is None else None,
    )


def train_work(
    config: TrainConfig, model: Architecture, frozen: Frozen, stated: Lengths | None, processes: int = 1
) -> Work:
    """The work of the RL loop: sampling, scoring by every model, fitting, validation."""
    sampling, width = config.sampling, _width(config)
    lengths = lengths_of(config.prompts, sampling.max_tokens, stated)
    count = config.prompts_per_iteration * config.group_size
    batches = Batches(sampling.batch_size, processes)
    work = sampled(model, lengths, count, batches, sampling.max_tokens, width)
    if isinstance(config.algorithm, MiniLlm) and config.algorithm.teacher_mix and frozen.reward_model:
        work.add(sampled(frozen.reward_model, lengths, count, batches, sampling.max_tokens, width))
        work.tokens -= count * lengths.completion
    work.scoring += count * sum(forward(scorer, lengths) for scorer in [model, *frozen.models])
    passes = count * config.inner_epochs
    work.fitting += passes * fitting(model, lengths, config)
    if _keeps_states(config):
        # The frozen heads make every chunk's targets again when its turn comes.
        work.fitting += passes * lengths.completion * sum(head(scorer) for scorer in [model, *frozen.models])
    if isinstance(config.algorithm.advantage, GaeAdvantage):
        work.scoring += count * forward(model, lengths, has_logits=False)
        work.fitting += passes * 3 * forward(model, lengths, has_logits=False)
    work.tokens += passes * lengths.completion
    steps = config.inner_epochs * config.steps_per_epoch * config.iterations
    total = work.times(config.iterations)
    total.add(_validation(config.validation, model, steps, stated, width, processes))
    return total


def _keeps_states(config: TrainConfig) -> bool:
    """Whether hidden states are kept and targets of the whole vocabulary made anew (`lco.scoring`)."""
    is_full = isinstance(getattr(config.algorithm, "support", None), FullSupport)
    return config.loss_chunk_tokens > 0 and (is_full or isinstance(config.algorithm, DistillationConfig))


def training_memory(
    config: TrainingStageConfig,
    model: Architecture,
    frozen: Frozen,
    *,
    processes: int,
    sequence: int,
    completion: int,
) -> Memory:
    """Memory of one process of a stage with an optimizer.

    Args:
        processes: that share the work.
        sequence: tokens of the longest sequence.
        completion: tokens of the longest completion.
    """
    shards = processes if config.parallel == "fsdp2" else 1
    memory = Memory({"runtime": float(_RUNTIME_BYTES)})
    parts = memory.parts
    if (adapter := config.adapter) is None:
        parts["weights, gradients and optimizer state"] = 16.0 * model.parameters / shards
    else:
        base = 0.5 if adapter.quantization == "nf4" else _frozen_bytes(config)
        rows = model.num_layers * (4 * model.hidden_size + 2 * model.attention_width + model.kv_width)
        rows += model.num_layers * 3 * (model.hidden_size + model.intermediate_size)
        parts["frozen base"] = (base * model.body_parameters + 4.0 * model.head_parameters) / shards
        parts["adapter with its optimizer state"] = 16.0 * adapter.rank * rows / shards
    if frozen.models:
        parts["frozen models"] = sum(_frozen_bytes(config) * one.parameters for one in frozen.models)
    width = _width(config)
    size = max(sequence, min(config.micro_batch_tokens or 1 << 62, config.micro_batch_size * sequence))
    parts["activations"] = size * _activation_bytes(model, width, config.gradient_checkpointing)
    logits = config.loss_chunk_tokens or size * completion / sequence
    parts["logits"] = 4.0 * _ROWS_AT_ONCE * logits * model.vocab_size
    if config.loss_chunk_tokens and adapter is None:
        parts["logits"] += 4.0 * model.head_parameters  # the head's gradient is added up in float32 of its own
    return memory


def add_rollouts(memory: Memory, config: TrainConfig, model: Architecture, frozen: Frozen, processes: int) -> None:
    """Adds what the RL loop keeps of an iteration, and what sampling needs beyond fitting."""
    sampling, parts = config.sampling, memory.parts
    count = config.prompts_per_iteration * config.group_size
    tokens = float(count * sampling.max_tokens)
    support = getattr(config.algorithm, "support", None)
    if _keeps_states(config):
        parts["kept hidden states"] = 4.0 * tokens * sum(one.hidden_size for one in [model, *frozen.models])
    elif isinstance(support, FullSupport) or isinstance(config.algorithm, DistillationConfig):
        parts["kept targets over the vocabulary"] = 4.0 * 2 * tokens * model.vocab_size
    live = min(sampling.batch_size, ceil(count / processes))
    cache = live * (sampling.max_tokens + 256) * _cache_bytes(model, _width(config))
    whole = 4.0 * model.parameters if config.parallel == "fsdp2" and processes > 1 else 0.0
    fitted = parts["activations"] + parts["logits"]
    rows = 8.0 * 4 * live * model.vocab_size  # a nucleus is sorted in float64
    if cache + whole + rows > fitted:
        del parts["activations"], parts["logits"]
        parts["sampling: caches and gathered weights"] = cache + whole + rows


def inference_memory(models: list[Architecture], *, batch_size: int, tokens: int, width: int) -> Memory:
    """Memory of a process that samples from models held in float32.

    Args:
        tokens: of the longest sequence.
        width: bytes of a cached number.
    """
    return Memory(
        {
            "runtime": float(_RUNTIME_BYTES),
            "weights": 4.0 * sum(model.parameters for model in models),
            "caches": sum(batch_size * tokens * _cache_bytes(model, width) for model in models),
            "logits": 8.0 * 4 * batch_size * max(model.vocab_size for model in models),
        }
    )


def _frozen_bytes(config: TrainingStageConfig) -> float:
    return 2.0 if config.frozen_weights == "bfloat16" else 4.0


def _activation_bytes(model: Architecture, width: int, is_recomputed: bool) -> float:
    """Bytes that one token keeps for the backward pass: the residual stream is float32, products are `width` wide."""
    block = 4.0 * 4 * model.hidden_size + width * (2 * model.attention_width + 2 * model.kv_width)
    block += width * (2 * model.hidden_size + 4 * model.intermediate_size)
    return 4.0 * model.hidden_size * model.num_layers + block if is_recomputed else block * model.num_layers
