"""The network of a language model in training: a decoder and the log-probability of its targets."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import keras
import tensorflow as tf
from keras import ops

from tf_finetune.formats.decoder import Decoder
from tf_finetune.models.language_head import AnswerHead

# The features of a batch, int32 [batch, length] each.
FEATURES = ("token_ids", "segments", "positions", "targets")


@keras.saving.register_keras_serializable(package="tf_finetune")
class TargetLoss(keras.losses.Loss):
    """The negative log-probability of each target.

    The model has computed it already; `weights` says where a target is.
    """

    measures: ClassVar[Mapping[str, Callable[[Any, Any], tf.Tensor]]] = {
        "token_accuracy": lambda labels, outputs: outputs[..., 1]
    }

    def __init__(self, name: str = "loss", **kwargs: Any) -> None:
        super().__init__(name=name, **{"reduction": "mean_with_sample_weight", **kwargs})

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns the losses, float32 [batch, length].

        Args:
            y_true: The targets, which the model has seen already.
            y_pred: float32 [batch, length, 2], from `AnswerHead`.
        """
        return -y_pred[..., 0]


def connect(decoder: Decoder) -> keras.Model:
    """Puts the head on a decoder.

    Args:
        decoder: The decoder.

    Returns:
        The model from features to float32 [batch, length, 2]: the log-probability of each target,
        and whether it is the greatest; not compiled. Its checkpoints hold what is trained.
    """
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in FEATURES}
    return _model(inputs, _of_targets(decoder, inputs))


def connect_pairs(decoder: Decoder) -> keras.Model:
    """Puts a head on a decoder that sums up two answers.

    Args:
        decoder: The decoder.

    Returns:
        The model from features, int32 [batch, 2, length], to the log-probability of the chosen and
        of the rejected answer, float32 [batch, 2]; like that of `connect` in all else.
    """
    inputs = {name: keras.Input((2, None), dtype="int32", name=name) for name in FEATURES}
    unpaired = Unpaired(name="unpaired")
    of_targets = _of_targets(decoder, {name: unpaired(pairs) for name, pairs in inputs.items()})
    return _model(inputs, ops.reshape(ops.sum(of_targets[..., 0], axis=-1), (-1, 2)))


@keras.saving.register_keras_serializable(package="tf_finetune")
class Unpaired(keras.layers.Layer):
    """Makes rows of pairs, so that both answers of all pairs are computed at once."""

    def call(self, pairs: tf.Tensor) -> tf.Tensor:
        """Returns [2 * batch, length] of [batch, 2, length]."""
        return ops.reshape(pairs, (-1, ops.shape(pairs)[-1]))

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the output's shape."""
        return (None, input_shape[-1])


def _of_targets(decoder: Decoder, features: Mapping[str, Any]) -> Any:
    """Returns what `AnswerHead` says of the targets."""
    return AnswerHead(decoder.network)(decoder.network(features), features["targets"])


def _model(inputs: Mapping[str, Any], outputs: Any) -> keras.Model:
    model = keras.Model(inputs, outputs, name="language_model")
    seeds = [variable for variable in model.variables if variable.path.startswith("seed")]
    model.checkpoint_variables = lambda: [*model.trainable_variables, *seeds]
    return model


def row_sums(outputs: tf.Tensor, labels: Any, weights: tf.Tensor) -> dict[str, tf.Tensor]:
    """Sums a batch's outputs over the targets of each row; see `make_forward`.

    Returns:
        float32 [batch] each: `log_probability`, `hits` and `tokens`.
    """
    sums = tf.reduce_sum(outputs * weights[..., tf.newaxis], axis=1)
    return {
        "log_probability": sums[:, 0],
        "hits": sums[:, 1],
        "tokens": tf.reduce_sum(weights, axis=1),
    }
