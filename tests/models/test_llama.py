"""`LlamaDecoder` against the formulas of its families, written out in numpy."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.models.llama import LlamaDecoder
from tf_finetune.models.llama_config import LlamaConfig
from tf_finetune.models.lora import Lora
from tf_finetune.models.rope import Rope
from tf_finetune.models.stored_weights import assign_weights

LENGTH = 9
CONFIG = LlamaConfig(
    vocab_size=29,
    hidden_size=24,
    intermediate_size=40,
    num_layers=3,
    num_heads=6,
    num_kv_heads=2,
    head_dim=6,  # Not hidden_size / num_heads.
    epsilon=1e-3,
    rope=Rope(theta=100.0),
)
FORMS: dict[str, dict[str, Any]] = {
    "llama": {},
    "own head": {"tie_embeddings": False},
    "mistral": {"windows": (4, 4, 4)},
    "qwen2": {"qkv_bias": True, "windows": (None, 3, 2)},
    "all biases": {"qkv_bias": True, "output_bias": True, "mlp_bias": True},
    "qwen3": {"qk_norm": True},
    "smollm3": {"rope_layers": (True, False, True)},
    "linear": {"rope": Rope(theta=100.0, scaling="linear", factor=3.0)},
    "llama3": {
        "rope": Rope(
            theta=100.0,
            scaling="llama3",
            factor=8.0,
            low_freq_factor=0.5,
            high_freq_factor=2.0,
            original_max_positions=16,
        )
    },
}


def random_weights(config: LlamaConfig) -> dict[str, np.ndarray]:
    """By the names and in the shapes of transformers' checkpoints: kernels are [out, in]."""
    hidden, inner, size = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_heads * size, config.num_kv_heads * size
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.tie_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    for number in range(config.num_layers):
        layer = f"model.layers.{number}"
        for name, shape, biased in (
            ("self_attn.q_proj", (queries, hidden), config.qkv_bias),
            ("self_attn.k_proj", (keys, hidden), config.qkv_bias),
            ("self_attn.v_proj", (keys, hidden), config.qkv_bias),
            ("self_attn.o_proj", (hidden, queries), config.output_bias),
            ("mlp.gate_proj", (inner, hidden), config.mlp_bias),
            ("mlp.up_proj", (inner, hidden), config.mlp_bias),
            ("mlp.down_proj", (hidden, inner), config.mlp_bias),
        ):
            shapes[f"{layer}.{name}.weight"] = shape
            if biased:
                shapes[f"{layer}.{name}.bias"] = shape[:1]
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{name}.weight"] = (hidden,)
        if config.qk_norm:
            for name in ("q_norm", "k_norm"):
                shapes[f"{layer}.self_attn.{name}.weight"] = (size,)
    random = np.random.default_rng(0)
    return {
        name: random.normal("norm" in name, 0.3, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def frequencies(rope: Rope, size: int) -> np.ndarray:
    """As transformers' `modeling_rope_utils.py` has them, pair by pair."""
    found = []
    for pair in range(size // 2):
        frequency = 1.0 / rope.theta ** (2 * pair / size)
        wave = 2 * np.pi / frequency
        if rope.scaling == "linear":
            frequency /= rope.factor
        elif rope.scaling == "llama3":
            low = rope.original_max_positions / rope.low_freq_factor
            high = rope.original_max_positions / rope.high_freq_factor
            if wave > low:
                frequency /= rope.factor
            elif wave > high:
                smooth = (rope.original_max_positions / wave - rope.low_freq_factor) / (
                    rope.high_freq_factor - rope.low_freq_factor
                )
                frequency = (1 - smooth) * frequency / rope.factor + smooth * frequency
        found.append(frequency)
    return np.array(found)


def reference(config: LlamaConfig, weights: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """The hidden rows of one text, float64 [length, hidden]."""
    size, positions = config.head_dim, np.arange(len(ids))
    angles = np.outer(positions, frequencies(config.rope, size))
    # A rotation of a pair is a product with a complex number.
    turns = np.cos(angles) + 1j * np.sin(angles)

    def product(x: np.ndarray, name: str) -> np.ndarray:
        kernel = weights[f"{name}.weight"].astype(np.float64)
        return x @ kernel.T + weights.get(f"{name}.bias", 0.0)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        mean_square = (x**2).mean(axis=-1, keepdims=True)
        return x / np.sqrt(mean_square + config.epsilon) * weights[f"{name}.weight"]

    def turn(x: np.ndarray) -> np.ndarray:
        pairs = (x[:, : size // 2] + 1j * x[:, size // 2 :]) * turns
        return np.concatenate([pairs.real, pairs.imag], axis=-1)

    x = weights["model.embed_tokens.weight"][ids].astype(np.float64)
    for number in range(config.num_layers):
        layer = f"model.layers.{number}"
        attention = f"{layer}.self_attn"
        normed = norm(x, f"{layer}.input_layernorm")
        query, key, value = (product(normed, f"{attention}.{part}_proj") for part in "qkv")
        window = config.windows[number] if config.windows else None
        contexts = []
        for head in range(config.num_heads):
            shared = head * config.num_kv_heads // config.num_heads
            q = query[:, head * size :][:, :size]
            k, v = (part[:, shared * size :][:, :size] for part in (key, value))
            if config.qk_norm:
                q, k = norm(q, f"{attention}.q_norm"), norm(k, f"{attention}.k_norm")
            if config.rope_layers is None or config.rope_layers[number]:
                q, k = turn(q), turn(k)
            scores = q @ k.T / np.sqrt(size)
            for place in positions:
                scores[place, place + 1 :] = -np.inf
                if window is not None:
                    scores[place, : max(0, place - window + 1)] = -np.inf
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            contexts.append(scores / scores.sum(axis=-1, keepdims=True) @ v)
        x = x + product(np.concatenate(contexts, axis=-1), f"{attention}.o_proj")
        normed = norm(x, f"{layer}.post_attention_layernorm")
        gate, up = (product(normed, f"{layer}.mlp.{part}_proj") for part in ("gate", "up"))
        x = x + product(gate / (1 + np.exp(-gate)) * up, f"{layer}.mlp.down_proj")
    return norm(x, "model.norm")


@pytest.mark.parametrize("form", FORMS)
def test_equals_the_formulas(form: str) -> None:
    config = dataclasses.replace(CONFIG, **FORMS[form])
    weights = random_weights(config)
    decoder = LlamaDecoder(config)
    decoder.build()
    assign_weights(decoder.stored(), weights.__getitem__)
    assert {name for part in decoder.stored() for name in part.names} == set(weights)
    ids = np.random.default_rng(1).integers(0, config.vocab_size, (2, LENGTH))
    features = {
        "token_ids": tf.constant(ids, tf.int32),
        "segments": tf.ones((2, LENGTH), tf.int32),
        "positions": tf.tile(tf.range(LENGTH)[None], (2, 1)),
    }
    expected = [reference(config, weights, row) for row in ids]
    for training in (False, True):
        hidden = decoder(features, training=training)
        np.testing.assert_allclose(hidden, expected, rtol=1e-4, atol=1e-4)
    head = "model.embed_tokens.weight" if config.tie_embeddings else "lm_head.weight"
    np.testing.assert_array_equal(decoder.head_kernel, weights[head])


def test_adapters_have_the_names_that_peft_gives_them() -> None:
    def names(*targets: str) -> list[str]:
        decoder = LlamaDecoder(CONFIG, lora=Lora(rank=2, alpha=4, targets=targets))
        decoder.build()
        return [name.removeprefix("model.layers.") for name in decoder.adapters]

    modules = [f"self_attn.{part}_proj" for part in "qkvo"]
    modules += [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
    assert names() == [f"{number}.{module}" for number in range(3) for module in modules]
    assert names("v_proj", "mlp.down_proj") == [
        f"{number}.{module}"
        for number in range(3)
        for module in ("self_attn.v_proj", "mlp.down_proj")
    ]
