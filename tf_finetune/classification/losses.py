"""The loss of each problem type, on logits."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="tf_finetune")
class LogitsLoss(keras.losses.Loss):
    """Cross-entropy for one label, binary cross-entropy for several, squared error for a number.

    Labels and logits are int32 [batch] and [batch, labels]; float32 [batch, labels] and the same;
    float32 [batch] and [batch, 1]. The computation is float32 whatever the model's precision.

    Args:
        problem_type: `single_label`, `multi_label` or `regression`.
        label_smoothing: Share of the target that is spread evenly over all labels (Szegedy et al.,
            2016); for several labels each target moves towards one half. No effect in regression.
        class_weights: Factor of each label's loss; empty: all 1.
    """

    def __init__(
        self,
        problem_type: str,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] = (),
        name: str = "loss",
        reduction: str = "sum_over_batch_size",
        dtype: str = "float32",
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.problem_type = problem_type
        self.label_smoothing = label_smoothing
        self.class_weights = tuple(class_weights)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each example, float32 [batch]."""
        logits = ops.cast(y_pred, "float32")
        smoothing = self.label_smoothing
        if self.problem_type == "regression":
            return ops.square(ops.reshape(logits, (-1,)) - ops.reshape(y_true, (-1,)))
        if self.problem_type == "multi_label":
            y_true = ops.cast(y_true, "float32")
            target = y_true * (1 - smoothing) + 0.5 * smoothing
            loss = ops.maximum(logits, 0) - logits * target + ops.log1p(ops.exp(-ops.abs(logits)))
            if self.class_weights:
                # Positives of a label count by its weight, as PyTorch's pos_weight.
                loss = loss * (1 + y_true * (ops.array(self.class_weights, "float32") - 1))
            return ops.mean(loss, axis=-1)
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        log_probabilities = ops.log_softmax(logits)
        picked = ops.take_along_axis(log_probabilities, labels[:, None], axis=-1)[:, 0]
        loss = -(1 - smoothing) * picked
        if smoothing:
            loss -= smoothing * ops.mean(log_probabilities, axis=-1)
        if self.class_weights:
            loss *= ops.take(ops.array(self.class_weights, "float32"), labels)
        return loss

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the loss."""
        return {
            "problem_type": self.problem_type,
            "label_smoothing": self.label_smoothing,
            "class_weights": list(self.class_weights),
            "name": self.name,
            "reduction": self.reduction,
        }


@keras.saving.register_keras_serializable(package="tf_finetune")
class DistillationLoss(keras.losses.Loss):
    """The loss on labels, and the distance to a teacher's answers: Hinton et al. 2015.

    With alpha a and temperature T it is, for each example,

    - for one label: a hard + (1 - a) T^2 KL(softmax(teacher / T) || softmax(logits / T));
    - for several: the same with the mean of the labels' binary divergences;
    - for a number: a hard + (1 - a) (teacher - output)^2.

    The factor T^2 keeps the gradients' size whatever T is (section 2 there). Of an example whose
    label is not known only the second part counts.

    Args:
        hard: The loss on labels.
        alpha: Its share.
        temperature: Divides both models' logits.
    """

    def __init__(
        self,
        hard: LogitsLoss,
        alpha: float = 0.5,
        temperature: float = 2.0,
        name: str = "loss",
        reduction: str = "sum_over_batch_size",
        dtype: str = "float32",
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.hard, self.alpha, self.temperature = hard, alpha, temperature

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each example.

        Args:
            y_true: The labels as `LogitsLoss` takes them, negative or NaN where they are not known,
                and the teacher's logits, float32 [batch, num_outputs].
            y_pred: The logits, [batch, num_outputs].

        Returns:
            float32 [batch].
        """
        labels, teacher = y_true
        numbers = ops.cast(labels, "float32")
        is_one = self.hard.problem_type == "single_label"
        known = numbers >= 0 if is_one else ops.logical_not(ops.isnan(numbers))
        # Before the loss: where only its result is replaced, the gradient would be NaN.
        labels = ops.where(known, labels, ops.zeros_like(labels))
        rows = known if len(known.shape) == 1 else known[:, 0]
        hard = self.hard.call(labels, y_pred) * ops.cast(rows, "float32")
        return self.alpha * hard + (1 - self.alpha) * self._distance(teacher, y_pred)

    def _distance(self, teacher: Any, logits: Any) -> Any:
        teacher, logits = ops.cast(teacher, "float32"), ops.cast(logits, "float32")
        if self.hard.problem_type == "regression":
            return ops.square(logits - teacher)[:, 0]
        square = self.temperature**2
        teacher, logits = teacher / self.temperature, logits / self.temperature
        if self.hard.problem_type == "multi_label":
            shares = ops.sigmoid(teacher)
            gains = shares * (ops.log_sigmoid(teacher) - ops.log_sigmoid(logits))
            gains += (1 - shares) * (ops.log_sigmoid(-teacher) - ops.log_sigmoid(-logits))
            return square * ops.mean(gains, axis=-1)
        gains = ops.log_softmax(teacher) - ops.log_softmax(logits)
        return square * ops.sum(ops.softmax(teacher) * gains, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the loss."""
        hard = keras.saving.serialize_keras_object(self.hard)
        values = {"alpha": self.alpha, "temperature": self.temperature}
        return {"hard": hard, **values, "name": self.name, "reduction": self.reduction}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DistillationLoss":
        """Makes the loss that `get_config` describes."""
        hard = keras.saving.deserialize_keras_object(config["hard"])
        return cls(**{**config, "hard": hard})


def balanced_class_weights(labels: np.ndarray, num_labels: int) -> tuple[float, ...]:
    """Weighs each label by the inverse of its share.

    Args:
        labels: int [n] (one label each) or float [n, num_labels] (several).
        num_labels: Number of labels.

    Returns:
        For one label each n / (num_labels * count), scikit-learn's "balanced" (King & Zeng, 2001);
        for several, negatives / positives, PyTorch's advice for `pos_weight`. A label that never
        occurs gets 1.
    """
    if labels.ndim == 1:
        counts = np.bincount(labels, minlength=num_labels)
        weights = len(labels) / (num_labels * np.maximum(counts, 1))
    else:
        counts = labels.sum(axis=0)
        weights = (len(labels) - counts) / np.maximum(counts, 1)
    return tuple(float(w) for w in np.where(counts > 0, weights, 1.0))


def constant_logits(
    labels: np.ndarray, problem_type: str, class_weights: Sequence[float] = ()
) -> tuple[float, ...]:
    """Returns the initial biases of a new head.

    For several labels or a number this is the constant prediction of least loss: the log-odds of
    each label, or the mean. The network then need not learn it first, by gradients that are the
    same for every text (Lin et al., 2017, section 3.3; TensorFlow's tutorial on imbalanced data).
    For one label each it returns none: the gain is small, and a test set may have other shares.

    Args:
        labels: int [n] (one label each), float [n, labels] (several), or float [n] (a number).
        problem_type: `single_label`, `multi_label` or `regression`.
        class_weights: See `LogitsLoss`.

    Returns:
        For each label the log of its weighted odds, with one added to both counts, so that a label
        that never occurs has a finite logit; or the mean; or an empty tuple.
    """
    if problem_type == "single_label":
        return ()
    if problem_type == "regression":
        return (float(labels.mean()),)
    positives = labels.sum(axis=0)
    odds = (positives + 1) / (len(labels) - positives + 1)
    weights = np.array(class_weights or (1.0,) * len(odds))
    # A label on every row has balanced weight 0; log(0) is avoided here.
    return tuple(float(logit) for logit in np.log(np.where(weights > 0, weights, 1.0) * odds))
