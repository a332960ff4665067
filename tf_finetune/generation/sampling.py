"""Chooses the next token of each row from its logits."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import tensorflow as tf

from tf_finetune.generation.sampling_config import SamplingConfig


@dataclass(frozen=True)
class Sampler:
    """What is fixed when tokens are chosen: one program serves all values of one kind.

    Attributes:
        draws: Whether tokens are drawn; else the most probable one is taken.
        top_k: From how many of the most probable tokens; 0: from all.
        penalizes: Whether tokens that were there before become less probable.
    """

    draws: bool = False
    top_k: int = 0
    penalizes: bool = False

    @property
    def allows_guesses(self) -> bool:
        """Whether several tokens of a row can be chosen at once, and that takes little time."""
        return not self.penalizes and (not self.draws or self.top_k > 0)

    def next_ids(
        self, logits: tf.Tensor, before: tf.Tensor, uniform: tf.Tensor, values: tf.Tensor
    ) -> tf.Tensor:
        """Chooses a token for each row.

        The penalty, temperature, top_k and top_p come in the order and by the definitions of
        transformers' logits processors.

        Args:
            logits: float32 [batch, vocabulary].
            before: bool [batch, vocabulary], the tokens of prompt and answer; [batch, 0] where none
                is penalized.
            uniform: float32 [batch], from [0, 1), which decides what is drawn.
            values: float32 [3]: temperature, top_p, repetition_penalty.

        Returns:
            int32 [batch].
        """
        temperature, top_p, penalty = tf.unstack(values)
        if self.penalizes:
            less = tf.where(logits < 0, logits * penalty, logits / penalty)
            logits = tf.where(before, less, logits)
        if not self.draws:
            return tf.argmax(logits, axis=-1, output_type=tf.int32)
        size = logits.shape[-1]
        kept = min(self.top_k, size) if self.top_k else size
        sorted_logits, ids = tf.math.top_k(logits / temperature, kept)
        probabilities = tf.nn.softmax(sorted_logits)
        total = tf.cumsum(probabilities, axis=-1)
        # A token stays if those before it have less than top_p; the first always does.
        probabilities = tf.where(total - probabilities < top_p, probabilities, 0.0)
        total = tf.cumsum(probabilities, axis=-1)
        drawn = uniform[:, tf.newaxis] * total[:, -1:]
        place = tf.reduce_sum(tf.cast(total <= drawn, tf.int32), axis=-1)
        last = tf.reduce_sum(tf.cast(probabilities > 0, tf.int32), axis=-1) - 1
        return tf.gather(ids, tf.minimum(place, last), batch_dims=1)


def make_sampler(config: SamplingConfig) -> Sampler:
    """Returns the sampler for some settings."""
    draws = config.temperature > 0
    return _sampler(draws, config.top_k if draws else 0, config.repetition_penalty != 1)


# TensorFlow traces a program anew once the object that it was traced with is gone: these stay.
_sampler = cache(Sampler)


def sampler_values(config: SamplingConfig) -> tf.Tensor:
    """Returns the `values` of `Sampler.next_ids`."""
    return tf.constant(
        [config.temperature or 1.0, config.top_p, config.repetition_penalty], tf.float32
    )


def uniforms(seed: int, rows: np.ndarray, count: int) -> np.ndarray:
    """Returns the random numbers of rows, float32 [rows, count].

    Those of a row depend on the seed and its number alone, not on the rows beside it.
    """
    drawn = [np.random.default_rng((seed, int(row))).random(count) for row in rows]
    # Rounded to float32 a number may become 1.
    return np.minimum(np.array(drawn, np.float32).reshape(len(rows), count), 1 - 2**-24)
