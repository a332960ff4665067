"""`GPT2Decoder` against the formulas of the paper and of transformers, written out in numpy."""

import numpy as np
import tensorflow as tf

from tf_finetune.models.gpt2 import GPT2Decoder
from tf_finetune.models.gpt2_config import GPT2Config
from tf_finetune.models.lora import Lora
from tf_finetune.models.stored_weights import assign_weights

CONFIG = GPT2Config(
    vocab_size=29,
    hidden_size=24,
    num_layers=2,
    num_heads=3,
    intermediate_size=40,
    max_positions=10,
    epsilon=1e-3,
)


def random_weights() -> dict[str, np.ndarray]:
    """By the names and in the shapes of transformers' checkpoints."""
    hidden, inner = CONFIG.hidden_size, CONFIG.intermediate_size
    shapes = {
        "wte.weight": (CONFIG.vocab_size, hidden),
        "wpe.weight": (CONFIG.max_positions, hidden),
        "ln_f.weight": (hidden,),
        "ln_f.bias": (hidden,),
    }
    for number in range(CONFIG.num_layers):
        for name, columns in (("ln_1", None), ("ln_2", None), ("attn.c_attn", 3 * hidden)):
            shapes[f"h.{number}.{name}.weight"] = (hidden, columns) if columns else (hidden,)
            shapes[f"h.{number}.{name}.bias"] = (columns or hidden,)
        for name, shape in (
            ("attn.c_proj", (hidden, hidden)),
            ("mlp.c_fc", (hidden, inner)),
            ("mlp.c_proj", (inner, hidden)),
        ):
            shapes[f"h.{number}.{name}.weight"] = shape
            shapes[f"h.{number}.{name}.bias"] = shape[1:]
    random = np.random.default_rng(0)
    return {
        f"transformer.{name}": random.normal("ln" in name and "weight" in name, 0.3, shape).astype(
            np.float32
        )
        for name, shape in shapes.items()
    }


def reference(weights: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """The hidden rows of one text, float64 [length, hidden]."""

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        return tuple(
            weights[f"transformer.{name}.{part}"].astype(np.float64) for part in ("weight", "bias")
        )

    def product(x: np.ndarray, name: str) -> np.ndarray:
        kernel, bias = read(name)
        return x @ kernel + bias

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        gamma, beta = read(name)
        deviation = np.sqrt(x.var(axis=-1, keepdims=True) + CONFIG.epsilon)
        return (x - x.mean(axis=-1, keepdims=True)) / deviation * gamma + beta

    length, size = len(ids), CONFIG.hidden_size // CONFIG.num_heads
    x = weights["transformer.wte.weight"][ids] + weights["transformer.wpe.weight"][:length]
    x = x.astype(np.float64)
    for number in range(CONFIG.num_layers):
        layer = f"h.{number}"
        parts = np.split(product(norm(x, f"{layer}.ln_1"), f"{layer}.attn.c_attn"), 3, axis=-1)
        contexts = []
        for head in range(CONFIG.num_heads):
            query, key, value = (part[:, head * size : (head + 1) * size] for part in parts)
            scores = query @ key.T / np.sqrt(size)
            scores[np.triu_indices(length, 1)] = -np.inf
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            contexts.append(scores / scores.sum(axis=-1, keepdims=True) @ value)
        x = x + product(np.concatenate(contexts, axis=-1), f"{layer}.attn.c_proj")
        inner = product(norm(x, f"{layer}.ln_2"), f"{layer}.mlp.c_fc")
        inner = inner / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
        x = x + product(inner, f"{layer}.mlp.c_proj")
    return norm(x, "ln_f")


def test_equals_the_formulas() -> None:
    weights = random_weights()
    decoder = GPT2Decoder(CONFIG)
    decoder.build()
    assign_weights(decoder.stored(), weights.__getitem__)
    ids = np.random.default_rng(1).integers(0, CONFIG.vocab_size, (2, 7))
    features = {
        "token_ids": tf.constant(ids, tf.int32),
        "segments": tf.ones((2, 7), tf.int32),
        "positions": tf.tile(tf.range(7)[None], (2, 1)),
    }
    expected = [reference(weights, row) for row in ids]
    for training in (False, True):
        hidden = decoder(features, training=training)
        np.testing.assert_allclose(hidden, expected, rtol=1e-4, atol=1e-4)
    assert {name for part in decoder.stored() for name in part.names} == set(weights)
    np.testing.assert_array_equal(decoder.head_kernel, weights["transformer.wte.weight"])


def lora_decoder(*targets: str) -> GPT2Decoder:
    decoder = GPT2Decoder(CONFIG, lora=Lora(rank=2, alpha=4, targets=targets))
    decoder.build()
    return decoder


def test_adapters_have_the_names_that_peft_gives_them() -> None:
    assert list(lora_decoder().adapters) == [
        f"transformer.h.{number}.{module}"
        for number in range(2)
        for module in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    ]
    # As in PEFT, c_proj names two modules, unless more of the name is given.
    assert len(lora_decoder("c_proj").adapters) == 4
    assert list(lora_decoder("attn.c_proj", "c_fc").adapters) == [
        f"transformer.h.{number}.{module}"
        for number in range(2)
        for module in ("attn.c_proj", "mlp.c_fc")
    ]
