"""A policy with random weights and a character tokenizer: small enough to train from scratch."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lco.config import LlamaInit, StageConfig
from lco.policy import Policy, ready_policy
from lco.seeds import derived_seed


def initial_policy(init: LlamaInit, config: StageConfig) -> Policy:
    """A Llama policy with random weights drawn from the stage's seed, and a character tokenizer.

    Raises:
        ValueError: `num_heads` does not divide `hidden_size`, or a character stands twice.
    """
    if init.hidden_size % init.num_heads:
        raise ValueError(f"num_heads: {init.num_heads} does not divide hidden_size {init.hidden_size}")
    tokenizer = character_tokenizer(init.characters, init.max_positions)
    llama = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=init.hidden_size,
        intermediate_size=init.intermediate_size,
        num_hidden_layers=init.num_layers,
        num_attention_heads=init.num_heads,
        num_key_value_heads=init.num_heads,
        max_position_embeddings=init.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": init.rope_theta},
        initializer_range=init.initializer_range,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(config.seed, "initial-weights"))
        model = LlamaForCausalLM(llama)
    return ready_policy(model, tokenizer, config)


def character_tokenizer(characters: str, max_positions: int) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a character after `<pad>` and `<eos>`, in the standard `tokenizers` format."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    if len(set(characters)) != len(characters):
        raise ValueError("characters: one stands twice")
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<eos>", "<unk>", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=max_positions,
        clean_up_tokenization_spaces=False,
    )
