"""Decoders compute what transformers computes; tests/tools/make_language_models.py has its side."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.formats.families import FAMILIES, decoder_config
from tf_finetune.formats.language_models import read_language_model
from tf_finetune.models.gpt2_config import GPT2Config
from tf_finetune.models.llama import LlamaDecoder
from tf_finetune.models.stored_weights import assign_weights

MODELS = Path(__file__).parent / "language_models"
NAMES = sorted(folder.name for folder in MODELS.iterdir())


def load(handle: str) -> keras.layers.Layer:
    files = read_language_model(handle)
    config = decoder_config(files.config, handle)
    if isinstance(config, GPT2Config):
        gpt2 = pytest.importorskip("tf_finetune.models.gpt2")
        if not hasattr(gpt2, "GPT2Decoder"):
            pytest.skip("there is no GPT2Decoder yet")
        network = gpt2.GPT2Decoder(config)
    else:
        network = LlamaDecoder(config)
    network.build()
    assign_weights(network.stored(), files.read)
    return network


def logits(network: keras.layers.Layer, rows: list[list[tuple[int, ...]]]) -> np.ndarray:
    """The logits of all tokens of rows of (id, segment, position), padding left out."""
    values = tf.constant(rows, tf.int32)
    inputs = dict(
        zip(("token_ids", "segments", "positions"), tf.unstack(values, axis=2), strict=True)
    )
    hidden = network(inputs)
    result = tf.matmul(hidden, tf.convert_to_tensor(network.head_kernel), transpose_b=True)
    return result.numpy()[values[:, :, 1].numpy() > 0]


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    expected = np.load(MODELS / request.param / "expected.npz")
    ids = [expected[f"ids_{number}"].tolist() for number in range(3)]
    reference = np.concatenate([expected[f"logits_{number}"] for number in range(3)])
    return load(str(MODELS / request.param)), ids, reference


def test_every_family_is_there():
    kinds = {read_language_model(str(MODELS / name)).config["model_type"] for name in NAMES}
    assert kinds == set(FAMILIES)


def test_rows_alone(case):
    network, ids, reference = case
    rows = [[(token, 1, at) for at, token in enumerate(row)] for row in ids]
    found = np.concatenate([logits(network, [row]) for row in rows])
    np.testing.assert_allclose(found, reference, atol=1e-4)


@pytest.mark.parametrize("left", [False, True])
def test_a_padded_batch(case, left):
    network, ids, reference = case
    longest = max(map(len, ids)) + 2
    rows = []
    for row in ids:
        tokens = [(token, 1, at) for at, token in enumerate(row)]
        padding = [(3, 0, 0)] * (longest - len(row))
        rows.append(padding + tokens if left else tokens + padding)
    np.testing.assert_allclose(logits(network, rows), reference, atol=1e-4)


def test_a_packed_row(case):
    network, ids, reference = case
    row = [(t, n, at) for n, part in enumerate(ids, start=1) for at, t in enumerate(part)]
    found = logits(network, [row + [(3, 0, 0)] * 3])
    np.testing.assert_allclose(found, reference, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_greedy_answers_are_transformers(name):
    """Without a cache: each token is the most probable one after all before it."""
    network, expected = load(str(MODELS / name)), np.load(MODELS / name / "expected.npz")
    end = read_language_model(str(MODELS / name)).stop_ids
    for number in range(2):
        prompt, answer = expected[f"prompt_{number}"], expected[f"answer_{number}"]
        tokens = [(token, 1, at) for at, token in enumerate([*prompt, *answer[:-1]])]
        scores = logits(network, [tokens])[len(prompt) - 1 :]
        scores[:, list(end)] = -np.inf  # generate() was told to go on.
        np.testing.assert_array_equal(scores.argmax(axis=-1), answer)
