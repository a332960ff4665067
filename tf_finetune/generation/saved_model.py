"""A language model as a SavedModel from token ids, which needs `tensorflow` alone.

    import tensorflow as tf
    signatures = tf.saved_model.load("out/saved_model").signatures
    ids = tf.constant([[3, 11, 2]])
    signatures["forward"](token_ids=ids, attention_mask=tf.ones_like(ids))["logits"]
    signatures["generate"](
        token_ids=ids, attention_mask=tf.ones_like(ids), max_new_tokens=tf.constant(64)
    )["token_ids"]

The texts' side, `tokenizer.json` and the chat template, is beside the model in Hugging Face's
format.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_finetune.errors import UserError
from tf_finetune.formats.decoder import Decoder
from tf_finetune.models.causal_attention import NewMemory, Seen

# The greatest difference of a logit that is loaded again, of its value above 1.
TOLERANCE = 1e-4
# How many tokens are generated to compare.
_NEW_TOKENS = 4
# Reads a SavedModel as a program without this package does.
_ASK = """\
import sys
import numpy as np
import tensorflow as tf

folder, given, found = sys.argv[1:]
inputs = {name: tf.constant(value) for name, value in np.load(given).items()}
signatures = tf.saved_model.load(folder).signatures
answers = signatures["generate"](**inputs)
del inputs["max_new_tokens"]
np.savez(found, **answers, **signatures["forward"](**inputs))
"""


def serving_module(decoder: Decoder) -> tf.Module:
    """Makes the module that `tf.saved_model.save` writes.

    Its functions take `token_ids` and `attention_mask`, int32 [batch, length], where the mask is 0
    at padding, which may stand on either side, and 1 elsewhere:

    `forward` returns `logits`, float32 [batch, length, vocabulary], those of the token that follows
    each one; at padding they mean nothing.

    `generate` takes `max_new_tokens` too, int32 [], and returns the most probable answers:
    `token_ids`, int32 [batch, new], until each has a stop id, and `lengths`, int32 [batch], how
    many of them belong to the answer, the stop id included. The rest is padding.

    Args:
        decoder: The decoder; the functions compute in its precision.
    """
    network = decoder.network
    rows = tf.TensorSpec([None, None], tf.int32, "token_ids")
    mask = tf.TensorSpec([None, None], tf.int32, "attention_mask")
    most = tf.TensorSpec([], tf.int32, "max_new_tokens")

    @tf.function(input_signature=[rows, mask], autograph=False)
    def forward(token_ids: tf.Tensor, attention_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": all_logits(network, token_ids, attention_mask)}

    @tf.function(input_signature=[rows, mask, most], autograph=False)
    def generate(
        token_ids: tf.Tensor, attention_mask: tf.Tensor, max_new_tokens: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        return _greedy(decoder, token_ids, attention_mask, max_new_tokens)

    module = tf.Module()
    module.forward, module.generate = forward, generate
    # Not the network itself: Keras saves each variable as two.
    module.weights = [variable.value for variable in network.variables]
    return module


def write_saved_model(directory: Path, decoder: Decoder, rows: Sequence[Sequence[int]]) -> None:
    """Writes a SavedModel, and compares it, loaded by a new process, with the decoder.

    Args:
        directory: Where to write.
        decoder: The decoder, without adapters, in float32.
        rows: Token ids, some rows to compare.

    Raises:
        UserError: The disk is full, or the outputs differ.
    """
    module = serving_module(decoder)
    signatures = {"forward": module.forward, "generate": module.generate}
    try:
        tf.saved_model.save(module, str(directory), signatures=signatures)
    except (tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError) as error:
        raise UserError(f"{directory} cannot be written: {error.message}.") from None
    ragged = tf.ragged.constant([list(row) for row in rows], tf.int32)
    ids = ragged.to_tensor()
    mask = tf.cast(tf.sequence_mask(ragged.row_lengths()), tf.int32)
    with tf.device("CPU"):  # As the new process computes.
        logits = all_logits(decoder.network, ids, mask)
        expected = {"logits": logits, **_greedy(decoder, ids, mask, tf.constant(_NEW_TOKENS))}
    inputs = {"token_ids": ids, "attention_mask": mask, "max_new_tokens": _NEW_TOKENS}
    _compare(_asked(directory, inputs), expected, mask)


def all_logits(network: Any, token_ids: tf.Tensor, attention_mask: tf.Tensor) -> tf.Tensor:
    """Returns the logits after each token, float32 [batch, length, vocabulary].

    Args:
        network: A decoder's.
        token_ids: int32 [batch, length].
        attention_mask: int32 [batch, length], 0 at padding.
    """
    segments = tf.cast(attention_mask != 0, tf.int32)
    positions = tf.maximum(tf.cumsum(segments, axis=1) - 1, 0)
    inputs = {"token_ids": token_ids, "segments": segments, "positions": positions}
    hidden = network(inputs, training=False)
    logits = _head(network, tf.reshape(hidden, [-1, hidden.shape[-1]]))
    return tf.reshape(logits, [*tf.unstack(tf.shape(token_ids)), logits.shape[-1]])


def _head(network: Any, hidden: tf.Tensor) -> tf.Tensor:
    kernel = tf.cast(tf.convert_to_tensor(network.head_kernel), hidden.dtype)
    return tf.cast(tf.matmul(hidden, kernel, transpose_b=True), tf.float32)


def _greedy(
    decoder: Decoder, token_ids: tf.Tensor, attention_mask: tf.Tensor, max_new_tokens: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Returns the most probable answers; see `generate` of `serving_module`."""
    network, stop_ids = decoder.network, decoder.chat.stop_ids
    padding = decoder.files.config.get("pad_token_id")
    if not isinstance(padding, int):
        padding = stop_ids[0] if stop_ids else 0
    stops = tf.constant(stop_ids, tf.int32, [len(stop_ids)])
    # All padding goes to the left: all rows end, and go on, at the same place.
    is_real = tf.cast(attention_mask != 0, tf.int32)
    order = tf.argsort(is_real, axis=1, stable=True)
    ids = tf.gather(token_ids, order, batch_dims=1)
    length = tf.shape(ids)[1]
    blanks = length - tf.reduce_sum(is_real, axis=1)
    room = length + max_new_tokens
    keys = tf.cast(tf.range(room) >= blanks[:, tf.newaxis], tf.int32)

    def goes_on(
        answers: tf.Tensor, tokens: tf.Tensor, place: tf.Tensor, done: tf.Tensor, *_: Any
    ) -> tf.Tensor:
        return (tf.shape(answers)[1] < max_new_tokens) & ~tf.reduce_all(done)

    def step(
        answers: tf.Tensor,
        tokens: tf.Tensor,
        place: tf.Tensor,
        done: tf.Tensor,
        lengths: tf.Tensor,
        memories: Any,
    ) -> tuple[Any, ...]:
        """Reads tokens, first the prompts and then the last one of each, and makes the next."""
        end = place + tf.shape(tokens)[1]
        positions = tf.range(place, end) - blanks[:, tf.newaxis]
        # While the prompts are read, nothing is remembered yet.
        is_first = isinstance(memories[0], NewMemory)
        seen = Seen(tf.cast(positions >= 0, tf.int32), keys[:, :end] if is_first else keys, place)
        inputs = {"token_ids": tokens, "positions": tf.maximum(positions, 0)}
        hidden, memories = network.remember(inputs, seen, memories)
        best = tf.argmax(_head(network, hidden[:, -1]), axis=-1, output_type=tf.int32)
        best = tf.where(done, padding, best)[:, tf.newaxis]
        lengths += tf.cast(~done, tf.int32)
        done |= tf.reduce_any(best == stops, axis=1)
        return tf.concat([answers, best], axis=1), best, end, done, lengths, memories

    # An empty prompt has no answer.
    done = blanks == length
    new = [NewMemory(room) for _ in network.layers]
    first = step(ids[:, :0], ids, tf.constant(0), done, tf.zeros_like(blanks), new)
    row, column = tf.TensorShape([None, None]), tf.TensorShape([None])
    shapes = tf.nest.map_structure(lambda value: value.shape, first)
    shapes = (row, row, shapes[2], column, column, shapes[5])
    found = tf.while_loop(goes_on, step, first, shape_invariants=shapes, parallel_iterations=1)
    answers, lengths = found[0][:, :max_new_tokens], tf.minimum(found[4], max_new_tokens)
    return {"token_ids": answers, "lengths": lengths}


def _asked(directory: Path, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns the outputs of both signatures as a new process computes them."""
    with tempfile.TemporaryDirectory(prefix="tf_finetune.") as folder:
        given, found = Path(folder, "given.npz"), Path(folder, "found.npz")
        arrays: dict[str, Any] = {k: np.asarray(v, np.int32) for k, v in inputs.items()}
        np.savez(given, **arrays)
        environment = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(
            [sys.executable, "-c", _ASK, str(directory.resolve()), str(given), str(found)],
            env=os.environ | environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = (done.stderr.strip() or f"it ended with {done.returncode}").split("\n")[-1]
            raise UserError(
                f"The SavedModel cannot be loaded by a new process: {reason}. Nothing was exported."
            )
        with np.load(found) as outputs:
            return dict(outputs)


def _compare(found: dict[str, np.ndarray], expected: dict[str, tf.Tensor], mask: tf.Tensor) -> None:
    """Raises a UserError if outputs differ from those of the model."""
    is_real = mask.numpy() != 0
    ours, theirs = (logits[is_real] for logits in (expected["logits"].numpy(), found["logits"]))
    difference = float(np.max(np.abs(ours - theirs) / np.maximum(1.0, np.abs(ours))))
    # Written so that NaN fails too.
    if not difference <= TOLERANCE:
        raise UserError(
            f"The SavedModel differs from the model: logits by up to {difference:.3g}, allowed is "
            f"{TOLERANCE:g}. Nothing was exported."
        )
    for name in ("token_ids", "lengths"):
        if not np.array_equal(found[name], expected[name].numpy()):
            raise UserError(
                f"The SavedModel generates other {name} than the model. Nothing was exported."
            )
