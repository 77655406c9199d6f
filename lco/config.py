"""Configuration of the training stages: frozen data, no torch. The same types parse a request body and a `config.json`.

Algorithms and advantage estimators are in `algorithms.py`; evaluation has its own `evaluation/config.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic.fields import FieldInfo


class Config(BaseModel):
    """Base of every configuration: immutable, strict about types, no unknown field, no NaN or infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


@dataclass(frozen=True, slots=True)
class Source:
    """Marks a string field that names an input: what the platform resolves to a path before a run starts."""

    kind: Literal["model", "reward-model", "data", "completions"]
    is_hub_allowed: bool = False
    """A value that begins with `hub:` names a file at a pinned revision of a public data set: nothing to resolve."""


HUB = "hub:"

_SOURCE = Field(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f]+$")

ModelSource = Annotated[str, Source("model"), _SOURCE]
"""A causal language model: a directory; over HTTP `job:NAME`, `ckpt_...`, `alias:NAME` or `model:NAME`."""

RewardModelSource = Annotated[str, Source("reward-model"), _SOURCE]
"""A DPO reward model with its reference: a directory that `lco.dpo` wrote; over HTTP `job:NAME`, `ckpt_...` or
`alias:NAME`."""

DataSource = Annotated[str, Source("data"), _SOURCE]
"""A JSON Lines file: a path; over HTTP `job:NAME` (pairs), `dataset:NAME[@VERSION]` (uploaded rows) or
`data:RELATIVE/PATH` below the operator's data root."""

CompletionsSource = Annotated[str, Source("completions"), _SOURCE]
"""An evaluation's `completions.jsonl`: a path; over HTTP `job:NAME` or `data:RELATIVE/PATH`."""


def sources(config: Config, pointer: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Source, str]]:
    """Every input of a configuration: where it stands, what is needed, and what it says."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        here = (*pointer, name)
        if isinstance(value, str) and (source := _source_of(field)) is not None:
            if not (source.is_hub_allowed and value.startswith(HUB)):
                yield here, source, value
        elif isinstance(value, Config):
            yield from sources(value, here)
        elif isinstance(value, list | tuple):
            for position, item in enumerate(value):
                if isinstance(item, Config):
                    yield from sources(item, (*here, str(position)))


def _source_of(field: FieldInfo) -> Source | None:
    """The mark of a field, also where the annotated type is one member of a union."""
    marks = [*field.metadata]
    for member in getattr(field.annotation, "__args__", ()):
        marks += getattr(member, "__metadata__", ())
    return next((mark for mark in marks if isinstance(mark, Source)), None)


Fraction = Annotated[float, Field(ge=0, le=1)]
Extraction = Literal["last-equals", "boxed", "final-number", "any"]
"""Where the final answer stands: after the last `=`; in the last box or the line that declares it; the last number;
or in the last answer pattern of any kind."""
Comparison = Literal["exact", "math"]
"""`exact`: equal numbers or equal text, without any process. `math`: formulas too, by computer algebra in processes."""


class Sums(Config):
    """Multi-step sums made from a seed, such as `7+5+9=` -> `7+5=12;12+9=21`. Splits never share a problem."""

    name: Literal["sums"] = "sums"
    split: Literal["train", "validation", "test"] = "train"
    """Which of the three disjoint thirds of the problem space: a problem's split is a hash of its text."""
    num_problems: PositiveInt = 1024
    """Problems drawn, without repetition."""
    num_terms: Annotated[int, Field(ge=2, le=8)] = 6
    """Numbers to add; one step fewer in the completion."""
    max_term: Annotated[int, Field(ge=9, le=999)] = 9
    """Largest number to add."""
    wrong_step_rate: Fraction = 0.0
    """Share of demonstration steps with a wrong intermediate result (later steps continue from it)."""
    seed: NonNegativeInt = 0
    """Seed of the draw. The run's train seed is added to it, so that train seeds see different problems."""


class Gsm8k(Config):
    """GSM8K, https://github.com/openai/grade-school-math: rows of `question` and `answer`, which ends in `#### N`."""

    name: Literal["gsm8k"] = "gsm8k"
    path: DataSource
    """The JSON Lines file (plain or .gz)."""
    num_problems: PositiveInt = 1024
    """The first rows of the file that are used; fewer when the file is shorter."""
    instruction: str = "{question}\nReason step by step and write the final answer as \\boxed{answer}."
    """What the user says; `{question}` is replaced."""


class Jsonl(Config):
    """Prompts from a JSON Lines file of one's own."""

    name: Literal["jsonl"] = "jsonl"
    path: DataSource
    """The JSON Lines file (plain or .gz)."""
    prompt_field: str = "prompt"
    """Field with the prompt's text."""
    reference_field: str = "reference"
    """Field with the reference answer; empty where a row has none."""
    completion_field: str = "completion"
    """Field with the demonstration that `sft` imitates."""
    num_problems: PositiveInt = 1_000_000
    """The first rows of the file that are used; fewer when the file is shorter."""


Prompts = Annotated[Sums | Gsm8k | Jsonl, Field(discriminator="name")]


class ExactAnswer(Config):
    """Rule reward: the completion's extracted final answer equals the reference."""

    name: Literal["exact-answer"] = "exact-answer"
    extraction: Extraction = "boxed"
    """How the final answer is found in the completion."""
    comparison: Comparison = "exact"
    """How it is compared with the reference: `exact` by number or text; `math` by formulas too, in processes apart."""
    correct: float = 1.0
    """Reward of an equal answer."""
    incorrect: float = -1.0
    """Reward of any other completion, also of one without an answer."""


class QaFeedback(Config):
    """Fine-Grained RLHF's rewards on QA-Feedback (arXiv 2306.01693): relevance, factuality, completeness, summed."""

    name: Literal["qa-feedback"] = "qa-feedback"
    relevance: ModelSource
    """R1: the directory of the token classifier with the labels Ignore, NF-ERR, O."""
    factuality: ModelSource
    """R2: the directory of the token classifier with the labels F-ERR, Ignore, O."""
    completeness: ModelSource
    """R3: the directory of the sequence classifier with one logit."""
    batch_size: PositiveInt = 8
    """Responses scored at a time. Changes speed and memory; a number only in its last bits."""


class Sampling(Config):
    """How the behaviour policy samples completions."""

    temperature: NonNegativeFloat = 1.0
    """Divides the logits; 0 takes the most probable token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus: the smallest set of tokens with at least this probability is kept."""
    max_tokens: PositiveInt = 256
    """Longest completion; one that reaches it without an end-of-sequence token is truncated."""
    batch_size: PositiveInt = 256
    """Completions sampled at a time. Changes speed and memory; a result only where two tokens tie in the last bit."""


class Optimizer(Config):
    """AdamW with a linear warm-up, then a constant, linear or cosine schedule."""

    learning_rate: PositiveFloat = 1e-5
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What follows the warm-up; `linear` and `cosine` end at 0."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises from 0."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the gradient's first and second moments."""
    epsilon: PositiveFloat = 1e-8
    """Added to the root of the second moment."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay."""
    max_grad_norm: NonNegativeFloat = 1.0
    """Global gradient norm above which gradients are scaled down; 0 never clips."""


class OptimalPolicySource(Config):
    """The optimal policy pi* (Eq. 6) of a policy and a DPO reward model, decoded from without training: at each token
    softmax(z + A / beta), three forward passes.
    """

    policy: ModelSource
    """The policy whose logits z the advantage is added to."""
    reward_model: RewardModelSource
    """The reward model with its reference: A = beta_dpo log(pi_dpo / pi_ref)."""
    beta: PositiveFloat | Literal["beta-dpo"] = "beta-dpo"
    """Strength of the KL term, advantage per nat; `beta-dpo` takes the reward model's."""
    reference_kl: NonNegativeFloat = 0.0
    """lambda of the pull A - lambda beta_dpo log(pi / pi_ref): with 1 and beta = beta_dpo, pi* is pi_dpo itself."""


class LlamaInit(Config):
    """A Llama policy with random weights and a character tokenizer: small enough to train from scratch on a CPU."""

    name: Literal["llama"] = "llama"
    characters: Annotated[str, Field(min_length=1, max_length=512)] = "0123456789+=;"
    """The alphabet of the character tokenizer, in the order of its ids (after the special tokens)."""
    hidden_size: PositiveInt = 96
    """Width of the residual stream."""
    intermediate_size: PositiveInt = 256
    """Width of the feed-forward layers."""
    num_layers: PositiveInt = 3
    """Transformer blocks."""
    num_heads: PositiveInt = 4
    """Attention heads; divides `hidden_size`."""
    max_positions: PositiveInt = 128
    """Longest prompt plus completion, in tokens."""
    rope_theta: PositiveFloat = 100.0
    """Base of the rotary positions. Small, because sequences are short: every frequency then tells near from far."""
    initializer_range: PositiveFloat = 0.06
    """Standard deviation of the initial weights; a narrow model learns faster from a wider one than the usual 0.02."""


class Validation(Config):
    """Greedy Pass@1 on problems that are never trained on, measured while training."""

    prompts: Prompts
    """The problems: a split or file of their own."""
    extraction: Extraction = "boxed"
    """How the final answer is found in the completion."""
    comparison: Comparison = "exact"
    """How it is compared with the reference: `exact` by number or text; `math` by formulas too, in processes apart."""
    max_tokens: PositiveInt = 256
    """Longest completion."""
    every_steps: PositiveInt = 10
    """Optimizer steps between two measurements; the last step is always measured."""


class StageConfig(Config):
    """What every stage that runs as a process of its own has."""

    seed: NonNegativeInt = 0
    """Train seed of the run. A job sets it from its list of seeds."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU when the process sees one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the matrix products. Weights, optimizer state, softmax, KL and losses are float32 always."""
    system_prompt: Annotated[str, Field(max_length=16_384)] = ""
    """What the chat template says before every prompt; empty for nothing. Refused where the tokenizer has none."""
    threads: PositiveInt = 1
    """CPU threads of torch; part of the configuration because it can change the last bit of a sum."""


class Lora(Config):
    """Low-rank adapters in place of the weights: W + (alpha / rank) B A is trained through A and B, W stays as it is.

    There is no dropout: the policy that samples and the one that is trained must be the same function. The policy that
    training started from, where one is needed, is the adapter switched off.
    """

    rank: PositiveInt = 16
    """Rows of A and columns of B."""
    alpha: PositiveFloat = 32.0
    """Scale of the product: alpha / rank multiplies it."""
    target_modules: Literal["all-linear"] | tuple[Annotated[str, Field(min_length=1)], ...] = "all-linear"
    """The layers that get an adapter: all linear ones but the head, or those with a name that ends so (`q_proj`)."""
    quantization: Literal["none", "nf4"] = "none"
    """How the frozen base is held: as it is, or its linear layers in 4-bit NormalFloat (QLoRA; needs bitsandbytes). The
    published model is then what was trained, expanded, and so is a reward model's reference."""


class TrainingStageConfig(StageConfig):
    """A stage with an optimizer and checkpoints."""

    optimizer: Optimizer = Optimizer()
    """The optimizer and its schedule."""
    micro_batch_size: PositiveInt = 64
    """Sequences per forward and backward pass. Changes speed and memory, and the gradient only in its last bits
    (unless an algorithm's `token_reduction` is `micro-mean`)."""
    micro_batch_tokens: NonNegativeInt = 0
    """Most tokens per forward and backward pass, padding counted (a longer sequence goes alone); 0 for no such limit.
    `micro_batch_size` holds as well."""
    loss_chunk_tokens: NonNegativeInt = 0
    """Tokens that head and loss are applied to at a time, so that no tensor of all tokens by the vocabulary exists; 0
    takes a micro-batch's tokens at once. Targets over the whole vocabulary are kept as hidden states. Changes memory
    and speed, and the gradient only in its last bits."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """Where several processes train: the whole model on each (`ddp`), or its parameters, gradients and optimizer state
    sharded over them (`fsdp2`). The numbers are the same."""
    adapter: Lora | None = None
    """Train a low-rank adapter instead of the weights; null trains the weights. Published are the merged model and, in
    its `adapter/`, the adapter alone."""
    frozen_weights: Literal["float32", "bfloat16"] = "float32"
    """Type that weights which are never trained are held in: those of reward and reference models and of an adapter's
    base. bfloat16 halves their memory and rounds their log-probabilities. Trained weights are float32 always."""
    gradient_checkpointing: bool = False
    """Recompute each block's activations in the backward pass: about a third more time, far less memory, no other
    result."""
    checkpoint_every_steps: PositiveInt = 50
    """Optimizer steps between two resumable checkpoints."""
    keep_checkpoints: PositiveInt = 2
    """Resumable checkpoints kept on disk, newest first."""

    @model_validator(mode="after")
    def _shards_are_of_one_type(self) -> Self:
        if self.parallel == "fsdp2" and self.adapter:
            if self.adapter.quantization != "none":
                raise ValueError("adapter.quantization: 4-bit weights cannot be sharded; use `parallel` ddp")
            if self.frozen_weights != "float32":
                raise ValueError("frozen_weights: base and adapter are sharded together, in one type; use float32")
        return self


def _check_has_frozen_weights(config: TrainingStageConfig) -> None:
    if config.frozen_weights != "float32" and config.adapter is None:
        raise ValueError("frozen_weights: without an adapter this stage trains every weight")


class SftConfig(TrainingStageConfig):
    """Supervised warm-up (Eq. 1): -log pi(a_t|s_t) averaged over the tokens of the demonstrations."""

    policy: ModelSource | LlamaInit
    """The model to start from, or the configuration of a new one."""
    prompts: Prompts
    """Prompts with demonstrations."""
    steps: PositiveInt = 300
    """Optimizer steps."""
    batch_size: PositiveInt = 64
    """Demonstrations per optimizer step."""
    validation: Validation | None = None
    """Accuracy measured while training; null for none."""

    @model_validator(mode="after")
    def _options_do_something(self) -> Self:
        if self.adapter and isinstance(self.policy, LlamaInit):
            raise ValueError("adapter: the weights of a new model are random; an adapter would leave them so")
        _check_has_frozen_weights(self)
        return self


class PairsConfig(StageConfig):
    """Preference pairs: sample from a policy, label by correctness, pair a correct with an incorrect completion."""

    policy: ModelSource
    """The policy that is sampled."""
    prompts: Prompts
    """Prompts with reference answers."""
    sampling: Sampling = Sampling()
    """How completions are drawn."""
    samples_per_prompt: Annotated[int, Field(ge=2)] = 8
    """Completions per prompt."""
    pairs_per_prompt: PositiveInt = 1
    """Most pairs kept of one prompt. Prompts whose completions are all correct or all wrong give none."""
    extraction: Extraction = "boxed"
    """How the final answer is found in the completion."""
    comparison: Comparison = "exact"
    """How it is compared with the reference: `exact` by number or text; `math` by formulas too, in processes apart."""
    shuffle_preferences: bool = False
    """Swap chosen and rejected at random: the control in which a reward model can learn nothing."""


class DpoConfig(TrainingStageConfig):
    """DPO reward model (arXiv 2305.18290): -log sigmoid(beta_dpo (ratio_chosen - ratio_rejected))."""

    policy: ModelSource
    """The model to start from, kept frozen as the reference."""
    pairs: DataSource
    """JSON Lines with `prompt`, `chosen`, `rejected`."""
    beta_dpo: PositiveFloat = 0.1
    """Strength of the KL term towards the reference; written to the reward model's manifest."""
    nll_weight: NonNegativeFloat = 0.0
    """Weight of the token-mean negative log-likelihood of the chosen completion."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Assumed share of flipped preferences (conservative DPO)."""
    epochs: PositiveInt = 1
    """Passes over the pairs."""
    batch_size: PositiveInt = 32
    """Pairs per optimizer step."""

    @model_validator(mode="after")
    def _options_do_something(self) -> Self:
        _check_has_frozen_weights(self)
        return self
