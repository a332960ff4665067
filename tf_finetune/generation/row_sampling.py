"""Chooses the next token of rows that each have their own settings."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import tensorflow as tf

# The most probable tokens that are told of each choice.
MOST_TOP = 20


class RowValues(NamedTuple):
    """How each row chooses.

    Attributes:
        bias: float32 [batch, vocabulary], added to the logits; [batch, 0]: nothing is.
        uniform: float32 [batch], from [0, 1), which decides what is drawn.
        temperature: float32 [batch]; 0: the most probable token is taken.
        top_p: float32 [batch]; drawn is from the most probable tokens of this share.
    """

    bias: tf.Tensor
    uniform: tf.Tensor
    temperature: tf.Tensor
    top_p: tf.Tensor


class Choices(NamedTuple):
    """What was chosen.

    Attributes:
        ids: int32 [batch].
        logprobs: float32 [batch], the logarithm of each one's probability by the model itself,
            before temperature, top_p and bias; [0] where not asked for.
        top_ids: int32 [batch, MOST_TOP], the most probable tokens.
        top_logprobs: float32 [batch, MOST_TOP].
    """

    ids: tf.Tensor
    logprobs: tf.Tensor
    top_ids: tf.Tensor
    top_logprobs: tf.Tensor


@cache
def row_sampler(
    size: int, *, draws: bool, cuts: bool, is_biased: bool, tells: bool
) -> Callable[[tf.Tensor, RowValues], Choices]:
    """Returns the program that chooses, for what some row of a batch needs.

    What a row gets is the same in each program that does what it needs.

    Args:
        size: The size of the vocabulary.
        draws: Whether a row has a temperature above 0.
        cuts: Whether a row has a top_p below 1.
        is_biased: Whether a row has a bias.
        tells: Whether a row asks for log-probabilities.
    """

    def choose(logits: tf.Tensor, values: RowValues) -> Choices:
        told = logits
        if is_biased:
            logits += values.bias
        ids = tf.argmax(logits, axis=-1, output_type=tf.int32)
        if draws:
            greedy = values.temperature == 0
            temperature = tf.where(greedy, 1.0, values.temperature)[:, tf.newaxis]
            probabilities = tf.nn.softmax(logits / temperature)
            if cuts:
                probabilities = _cut(probabilities, values.top_p[:, tf.newaxis])
            total = tf.cumsum(probabilities, axis=-1)
            drawn = values.uniform[:, tf.newaxis] * total[:, -1:]
            place = tf.reduce_sum(tf.cast(total <= drawn, tf.int32), axis=-1)
            # Rounded, what is drawn may be all there is.
            from_end = tf.argmax(tf.reverse(probabilities, [-1]) > 0, -1, output_type=tf.int32)
            ids = tf.where(greedy, ids, tf.minimum(place, size - 1 - from_end))
        if not tells:
            none = tf.zeros((0,))
            return Choices(ids, none, tf.zeros((0,), tf.int32), none)
        logprobs = tf.nn.log_softmax(told)
        top, top_ids = tf.math.top_k(logprobs, min(MOST_TOP, size))
        return Choices(ids, tf.gather(logprobs, ids, batch_dims=1), top_ids, top)

    rows, numbers = tf.TensorSpec((None, size)), tf.TensorSpec((None,))
    values = RowValues(rows if is_biased else tf.TensorSpec((None, 0)), numbers, numbers, numbers)
    program = tf.function(choose, input_signature=(rows, values), autograph=False)
    # Traced now: TensorFlow would warn of what it takes for one program, traced many times.
    program.get_concrete_function()
    return program


def _cut(probabilities: tf.Tensor, top_p: tf.Tensor) -> tf.Tensor:
    """Sets to zero what is not among the most probable tokens of the share `top_p`."""
    ordered = tf.sort(probabilities, direction="DESCENDING")
    before = tf.cumsum(ordered, axis=-1, exclusive=True)
    # A token stays if those before it have less than top_p; the first always does.
    stays = (before < top_p) | (tf.range(probabilities.shape[1]) == 0)
    least = tf.reduce_min(tf.where(stays, ordered, 1.0), axis=-1, keepdims=True)
    return tf.where((probabilities >= least) | (top_p >= 1), probabilities, 0.0)
