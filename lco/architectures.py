"""Sizes of transformers, as numbers alone: what a price is made of. No torch, and no weights are read.

The table holds the models of the paper and those that `lco models import` knows, from their `config.json`; the numbers
of parameters that these give are tested against the ones that the models' authors state.
"""

from dataclasses import dataclass

from lco.config import LlamaInit


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A decoder of equal blocks: grouped-query attention, a gated feed-forward network, a linear head."""

    hidden_size: int
    """H, width of the residual stream."""
    intermediate_size: int
    """Width of the feed-forward layers."""
    num_layers: int
    num_heads: int
    """Query heads."""
    num_kv_heads: int
    """Heads of keys and values."""
    head_size: int
    """Width of one head."""
    vocab_size: int
    """V, rows of the embedding, padding rows included."""
    has_tied_head: bool
    """Whether head and embedding are one matrix."""

    @property
    def attention_width(self) -> int:
        """Width of all query heads together."""
        return self.num_heads * self.head_size

    @property
    def kv_width(self) -> int:
        """Width of keys and values of one token in one layer."""
        return 2 * self.num_kv_heads * self.head_size

    @property
    def body_parameters(self) -> int:
        """Weights of the blocks' linear layers; norms and biases are left out (below 0.1 %)."""
        attention = self.hidden_size * (2 * self.attention_width + self.kv_width)
        return self.num_layers * (attention + 3 * self.hidden_size * self.intermediate_size)

    @property
    def head_parameters(self) -> int:
        """Weights of the head."""
        return self.hidden_size * self.vocab_size

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.body_parameters + self.head_parameters * (1 if self.has_tied_head else 2)


def of_new_llama(config: LlamaInit) -> Architecture:
    """The architecture of a Llama that a job makes anew."""
    return Architecture(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        num_kv_heads=config.num_heads,
        head_size=config.hidden_size // config.num_heads,
        vocab_size=len(config.characters) + 3,
        has_tied_head=True,
    )


def _wide(
    hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocab: int, tied: bool
) -> Architecture:
    return Architecture(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_size=128,
        vocab_size=vocab,
        has_tied_head=tied,
    )


_QWEN, _LARGE_QWEN, _LLAMA, _MISTRAL = 151_936, 152_064, 128_256, 131_072

ARCHITECTURES = {
    # huggingface.co/Qwen/Qwen2.5-*/config.json
    "qwen2.5-1.5b": _wide(1536, 8960, 28, 12, 2, _QWEN, True),
    "qwen2.5-3b": _wide(2048, 11_008, 36, 16, 2, _QWEN, True),
    "qwen2.5-7b": _wide(3584, 18_944, 28, 28, 4, _LARGE_QWEN, False),
    "qwen2.5-32b": _wide(5120, 27_648, 64, 40, 8, _LARGE_QWEN, False),
    "qwen2.5-72b": _wide(8192, 29_568, 80, 64, 8, _LARGE_QWEN, False),
    # huggingface.co/Qwen/Qwen3-*/config.json
    "qwen3-1.7b": _wide(2048, 6144, 28, 16, 8, _QWEN, True),
    "qwen3-4b": _wide(2560, 9728, 36, 32, 8, _QWEN, True),
    "qwen3-8b": _wide(4096, 12_288, 36, 32, 8, _QWEN, False),
    # huggingface.co/meta-llama/Llama-3.*/config.json; the 70B of Llama 3 and 3.1 are alike in size
    "llama-3.2-3b": _wide(3072, 8192, 28, 24, 8, _LLAMA, True),
    "llama-3.1-8b": _wide(4096, 14_336, 32, 32, 8, _LLAMA, False),
    "llama-3-8b": _wide(4096, 14_336, 32, 32, 8, _LLAMA, False),
    "llama-3-70b": _wide(8192, 28_672, 80, 64, 8, _LLAMA, False),
    # huggingface.co/mistralai/Ministral-3-*-Base-2512/config.json, the language model without its vision encoder
    "ministral-3-3b": _wide(3072, 9216, 26, 32, 8, _MISTRAL, True),
    "ministral-3-8b": _wide(4096, 14_336, 34, 32, 8, _MISTRAL, False),
    # huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct/config.json
    "smollm2-135m": Architecture(
        hidden_size=576,
        intermediate_size=1536,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        head_size=64,
        vocab_size=49_152,
        has_tied_head=True,
    ),
}
"""Name that `model:NAME` gives an imported model -> its sizes. Heads of Qwen, Llama and Ministral are 128 wide."""
