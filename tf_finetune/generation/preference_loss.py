"""The loss of DPO (Rafailov et al., 2023), and what of it is logged."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tf_finetune")
class PreferenceLoss(keras.losses.Loss):
    """How surprising it is that the chosen answers are the better ones.

    That of a pair is -log sigmoid(margin). The margin is the chosen answer's reward less the
    rejected one's, and a reward is beta times the change of an answer's log-probability since the
    training began.

    Args:
        beta: How strongly the model is held to where it began.
        name: The loss's.
        **kwargs: Passed to `keras.losses.Loss`.
    """

    def __init__(self, beta: float = 0.1, name: str = "loss", **kwargs: Any) -> None:
        super().__init__(name=name, **{"reduction": "mean_with_sample_weight", **kwargs})
        self.beta = beta

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns the losses, float32 [batch].

        Args:
            y_true: float32 [batch, 2], the log-probabilities before the training.
            y_pred: float32 [batch, 2], those of the chosen and the rejected answers.
        """
        return tf.nn.softplus(-self._margins(y_true, y_pred))

    @property
    def measures(self) -> Mapping[str, Callable[[Any, Any], tf.Tensor]]:
        """What is logged beside the loss, named and defined as in `preference_metrics`."""

        def accuracy(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
            return tf.cast(self._margins(labels, outputs) > 0, tf.float32)

        return {
            "reward_accuracy": accuracy,
            "reward_margin": self._margins,
            "reward_chosen": lambda labels, outputs: self._rewards(labels, outputs)[:, 0],
            "reward_rejected": lambda labels, outputs: self._rewards(labels, outputs)[:, 1],
            "logps_chosen": lambda labels, outputs: outputs[:, 0],
            "logps_rejected": lambda labels, outputs: outputs[:, 1],
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the loss."""
        return {**super().get_config(), "beta": self.beta}

    def _rewards(self, before: tf.Tensor, now: tf.Tensor) -> tf.Tensor:
        return self.beta * (now - before)

    def _margins(self, before: tf.Tensor, now: tf.Tensor) -> tf.Tensor:
        rewards = self._rewards(before, now)
        return rewards[:, 0] - rewards[:, 1]
