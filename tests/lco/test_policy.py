"""Policies: built, saved, loaded; nothing unsafe is ever loaded."""

import json
import shutil

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lco.config import LlamaInit, StageConfig
from lco.initial import initial_policy
from lco.policy import (
    Policy,
    check_same_tokenizer,
    copy_weights,
    device_of,
    have_same_weights,
    load_policy,
    named_weights,
)
from lco.reward_model import REFERENCE, REWARD_MODEL, load_reward_model, save_reward_model
from tests.lco.conftest import TINY

CPU = StageConfig(device="cpu")


@pytest.fixture
def copied(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


def test_a_saved_policy_is_the_same_function_when_loaded(tiny_policy, tmp_path):
    tiny_policy.save(tmp_path)
    loaded = load_policy(tmp_path, CPU)
    assert have_same_weights(tiny_policy, loaded)
    check_same_tokenizer(tiny_policy, loaded, "model")
    ids = torch.tensor([loaded.encode_prompt("1+2=3")])
    first, second = (
        p.token_logits(ids, torch.ones_like(ids), torch.ones_like(ids).bool()) for p in (tiny_policy, loaded)
    )
    assert torch.equal(first, second)
    assert not loaded.model.training


def test_saving_twice_gives_equal_bytes(tiny_policy, tmp_path):
    for name in ("a", "b"):
        tiny_policy.save(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert all(name.endswith((".json", ".safetensors")) for name in files)


def test_initial_weights_depend_on_the_seed_alone():
    first, again, other = (initial_policy(TINY, CPU.model_copy(update={"seed": seed})) for seed in (0, 0, 1))
    assert have_same_weights(first, again)
    assert not have_same_weights(first, other)
    state = torch.random.get_rng_state()
    initial_policy(TINY, CPU)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 3}, "num_heads: 3 does not divide hidden_size 16"),
        ({"characters": "aba"}, "characters: one stands twice"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        initial_policy(TINY.model_copy(update=change), CPU)


def test_the_character_tokenizer_keeps_every_character_and_hides_special_tokens(tiny_policy):
    text = "12+7=19;19+3=22"
    ids = tiny_policy.encode_completion(text)
    assert len(ids) == len(text) + 1 and ids[-1] == tiny_policy.eos_id
    assert tiny_policy.decode(ids) == text
    assert tiny_policy.encode_prompt(text) == ids[:-1]
    assert tiny_policy.vocab_size == len(TINY.characters) + 3
    spaced = initial_policy(LlamaInit(**TINY.model_dump() | {"characters": " ab\n"}), CPU)
    assert spaced.decode(spaced.encode_completion(" a  b \n")) == " a  b \n"


def test_an_empty_prompt_is_refused(tiny_policy):
    with pytest.raises(ValueError, match="prompt"):
        tiny_policy.encode_prompt("")


def test_a_chat_template_is_applied_where_there_is_one(tiny_policy):
    tiny_policy.tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}={% endif %}"
    )
    assert tiny_policy.encode_prompt("1+2") == tiny_policy.tokenizer.encode("1+2=", add_special_tokens=False)


def test_the_system_prompt_is_said_through_the_template_and_refused_without_one(tiny_policy):
    tiny_policy.system_prompt = "9"
    with pytest.raises(ValueError, match="system_prompt: the tokenizer has no chat template"):
        tiny_policy.encode_prompt("1+2")
    tiny_policy.tokenizer.chat_template = (
        "{% for m in messages %}{{ '+' if m['role'] == 'system' else '=' }}{{ m['content'] }}{% endfor %}"
    )
    assert tiny_policy.encode_prompt("1+2") == tiny_policy.tokenizer.encode("+9=1+2", add_special_tokens=False)


@pytest.mark.parametrize("rows", [14, 15])
def test_a_tokenizer_that_names_more_tokens_than_the_embedding_has_rows_is_refused(tiny_policy, tmp_path, rows):
    tiny_policy.model.resize_token_embeddings(rows, mean_resizing=False)
    tiny_policy.save(tmp_path)
    with pytest.raises(ValueError, match=f"its tokenizer names 16 tokens, its embedding {rows} rows"):
        load_policy(tmp_path, CPU)


def test_rows_of_the_embedding_that_the_tokenizer_cannot_name_are_no_tokens(tiny_policy):
    real = tiny_policy.vocab_size
    tiny_policy.model.resize_token_embeddings(real + 5, mean_resizing=False)
    ids = torch.tensor([[3, 4]])
    assert tiny_policy.vocab_size == real
    assert tiny_policy.token_logits(ids, torch.ones_like(ids), torch.ones_like(ids).bool()).shape == (2, real)


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "model.pt",
        "model.PTH",
        "x.pkl",
        "optimizer.ckpt",
        "modeling_evil.py",
        "sub/tf_model.h5",
        "m.gguf",
        "a.npy",
    ],
)
def test_a_directory_with_an_unsafe_file_is_refused(copied, name):
    (copied / name).parent.mkdir(exist_ok=True)
    (copied / name).write_bytes(b"")
    with pytest.raises(ValueError, match="is refused, a model is safetensors and JSON only"):
        load_policy(copied, CPU)


@pytest.mark.parametrize("key", ["auto_map", "trust_remote_code", "custom_pipeline"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json", "extra.json"])
def test_a_json_file_that_names_code_to_run_is_refused(copied, file, key):
    path = copied / file
    document = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(document | {"nested": [{"deep": {key: {"AutoModel": "evil.Model"}}}]}))
    with pytest.raises(ValueError, match=f"{file} names code to run \\({key}\\)"):
        load_policy(copied, CPU)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "\xff"], ids=["cut", "nested", "latin"])
def test_a_json_file_that_cannot_be_read_is_refused_by_name(copied, content):
    (copied / "generation_config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"generation_config\.json is no JSON"):
        load_policy(copied, CPU)


def test_a_directory_without_a_model_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="no model here"):
            load_policy(path, CPU)


def test_a_tokenizer_without_an_end_is_refused(copied):
    for name in ("tokenizer_config.json", "tokenizer.json"):
        document = json.loads((copied / name).read_text())
        document.pop("eos_token", None)
        (copied / name).write_text(json.dumps(document))
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        load_policy(copied, CPU)


def test_a_model_of_another_alphabet_is_refused(tiny_policy):
    other = initial_policy(TINY.model_copy(update={"characters": "0123456789=+;"}), CPU)
    with pytest.raises(ValueError, match="reward_model: its tokenizer is not the policy's"):
        check_same_tokenizer(tiny_policy, other, "reward_model")


def test_a_model_with_fewer_rows_than_the_tokenizer_has_entries_is_refused(tiny_policy):
    other = initial_policy(TINY, CPU)
    other.model.resize_token_embeddings(other.vocab_size - 1)
    with pytest.raises(ValueError, match="reward_model"):
        check_same_tokenizer(tiny_policy, other, "reward_model")


def test_a_reward_model_keeps_its_reference_and_its_beta(tiny_model, tiny_reward_model):
    loaded = load_reward_model(tiny_reward_model, CPU)
    assert loaded.beta_dpo == 0.1
    assert have_same_weights(loaded.reference, load_policy(tiny_model, CPU))
    assert not have_same_weights(loaded.reference, loaded.policy)
    assert {path.name for path in (tiny_reward_model / REFERENCE).iterdir()} == {
        path.name for path in tiny_model.iterdir()
    }


def test_the_reference_of_a_reward_model_trained_from_a_reward_model_is_one_level_deep(
    tiny_policy, tiny_reward_model, tmp_path
):
    save_reward_model(tiny_policy, tiny_reward_model, 0.2, tmp_path)
    assert not (tmp_path / REFERENCE / REFERENCE).exists()
    assert not (tmp_path / REFERENCE / REWARD_MODEL).exists()
    assert load_reward_model(tmp_path, CPU).beta_dpo == 0.2


@pytest.mark.parametrize(
    "content", [None, "{}", "[", '{"beta_dpo": "much"}', '{"beta_dpo": 0}', '{"beta_dpo": NaN}', "[1]"]
)
def test_a_directory_without_a_reward_models_manifest_is_refused(tiny_reward_model, tmp_path, content):
    copied = shutil.copytree(tiny_reward_model, tmp_path / "rm")
    if content is None:
        (copied / REWARD_MODEL).unlink()
    else:
        (copied / REWARD_MODEL).write_text(content)
    with pytest.raises(ValueError, match=f"no DPO reward model here|{REWARD_MODEL} is no JSON"):
        load_reward_model(copied, CPU)


def test_weights_travel_by_name(tiny_policy, tmp_path):
    from safetensors.torch import save_file

    save_file(named_weights(tiny_policy.model), tmp_path / "weights")
    other = initial_policy(TINY, CPU)
    copy_weights(tmp_path / "weights", other.model)
    assert have_same_weights(tiny_policy, other)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is visible")
def test_asking_for_an_absent_gpu_is_the_users_error():
    assert device_of(StageConfig()).type == "cpu"
    with pytest.raises(ValueError, match="device: no GPU is visible"):
        device_of(StageConfig(device="cuda"))


def test_bfloat16_changes_the_products_and_not_the_weights(tiny_model):
    half = load_policy(tiny_model, StageConfig(device="cpu", precision="bfloat16"))
    full = load_policy(tiny_model, CPU)
    ids = torch.tensor([[5, 6, 7, 8]])
    logits = [p.token_logits(ids, torch.ones_like(ids), torch.ones_like(ids).bool()) for p in (half, full)]
    assert have_same_weights(half, full)
    assert logits[0].dtype == torch.float32 and not torch.equal(*logits)
    torch.testing.assert_close(*logits, rtol=0.1, atol=0.2)


def test_the_pieces_of_a_completion_are_its_characters_and_nothing_for_its_end(tiny_policy):
    ids = tiny_policy.encode_completion("1+2=3")
    assert tiny_policy.pieces(ids) == [*"1+2=3", ""]


def test_the_pieces_of_a_text_whose_characters_take_several_tokens_make_up_the_text(tiny_policy):
    """In a byte-level tokenizer a token alone may be no character at all."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: number for number, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")
    policy = Policy(tiny_policy.model, fast)
    ids = policy.encode_completion("2 \u00d7 3 = 6")
    pieces = policy.pieces(ids)
    assert len(pieces) == len(ids) == len("2 \u00d7 3 = 6") + 2
    assert "".join(pieces) == "2 \u00d7 3 = 6"
