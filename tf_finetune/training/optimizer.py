"""AdamW and its learning rate, as BERT is fine-tuned."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tf_finetune.runs.config import OptimizerConfig
from tf_finetune.training.table_rows import Gradient, TableRows

# Kept out of weight decay, as in google-research/bert's optimization.py.
NO_DECAY = ("bias", "beta", "gamma", "scale")


@keras.saving.register_keras_serializable(package="tf_finetune")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from zero, then linear, cosine or no decay to zero at the last step.

    Args:
        peak: The highest learning rate.
        total_steps: Optimizer steps of the whole training.
        warmup_steps: Steps until the peak.
        decay: `linear`, `cosine` or `constant`.
    """

    def __init__(self, peak: float, total_steps: int, warmup_steps: int, decay: str) -> None:
        self.peak = peak
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.decay = decay

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate of a step, float32 []; the first step is 0."""
        step = ops.cast(step, "float32")
        # The first step of a warm-up has a rate above zero: a step at rate 0 would be lost.
        warmup = (step + 1) / max(1, self.warmup_steps)
        remaining = (self.total_steps - step) / max(1, self.total_steps - self.warmup_steps)
        remaining = ops.clip(remaining, 0.0, 1.0)
        if self.decay == "cosine":
            remaining = 0.5 * (1 + ops.cos(math.pi * (1 - remaining)))
        elif self.decay == "constant":
            remaining = ops.ones_like(remaining)
        return self.peak * ops.where(step < self.warmup_steps, warmup, remaining)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the schedule."""
        return {
            "peak": self.peak,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "decay": self.decay,
        }


@keras.saving.register_keras_serializable(package="tf_finetune")
class AdamW(keras.optimizers.AdamW):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019), for fine-tuning.

    Unlike `keras.optimizers.AdamW` it clips by the global norm of the gradients *after* they are
    summed over replicas, leaves biases and normalisation parameters out of the decay, can give
    lower layers lower rates, and updates each variable in one fused kernel.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Decay per step in units of the learning rate.
        max_grad_norm: Global norm that gradients are clipped to; 0: never.
        layer_rates: Variable path to the factor of its learning rate, 1 for other variables; see
            `layer_rates`.
        table_rows: Variable path of an embedding table to the rows that the training can reach; see
            `TableRows`. Its gradient must go through `cut`. Of other tables all rows are trained.
        epsilon: Added to the root of the corrected second moment (Kingma & Ba, 2015, algorithm 1,
            and PyTorch); Keras and TensorFlow add it before the correction, which in the first
            steps makes it up to 30 times larger and slows small gradients down: embeddings of rare
            tokens, query and key. google-research/bert has 1e-6, with the same effect.
        **kwargs: Passed to `keras.optimizers.AdamW`.
    """

    def __init__(
        self,
        learning_rate: Any = OptimizerConfig.learning_rate,
        weight_decay: float = OptimizerConfig.weight_decay,
        max_grad_norm: float = OptimizerConfig.max_grad_norm,
        layer_rates: Mapping[str, float] | None = None,
        table_rows: Mapping[str, Iterable[int]] | None = None,
        epsilon: float = 1e-8,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            epsilon=epsilon,
            **{"name": "adamw", **kwargs},
        )
        self.max_grad_norm = max_grad_norm
        self.layer_rates = dict(layer_rates or {})
        self.table_rows = {path: [*map(int, rows)] for path, rows in (table_rows or {}).items()}
        self.tables: dict[int, TableRows] = {}

    def build(self, variables: list[Any]) -> None:
        """Makes the optimizer's variables for the given model variables."""
        if self.built:
            return
        super().build(variables)
        self._decays = [decays(variable.path) for variable in variables]
        self._factors = [self.layer_rates.get(variable.path, 1.0) for variable in variables]
        # Read by the training loop; the replicas hold the same value.
        self.gradient_norm = keras.Variable(
            0.0,
            trainable=False,
            dtype="float32",
            aggregation="only_first_replica",
            name="gradient_norm",
        )
        for index, variable in enumerate(variables):
            if rows := self.table_rows.get(variable.path):
                moments = self._momentums[index], self._velocities[index]
                stored = self.add_variable((len(rows),), "zeros", "int32", name=f"rows_{index}")
                self.tables[index] = TableRows(rows, *moments, stored)

    def add_variable_from_reference(
        self, reference_variable: Any, name: str | None = None, initializer: Any = "zeros"
    ) -> Any:
        """Makes a moment of a variable: of the rows of a table that are trained; see Keras."""
        rows = self.table_rows.get(reference_variable.path)
        if rows is None:
            return super().add_variable_from_reference(reference_variable, name, initializer)
        shape = len(rows), *reference_variable.shape[1:]
        name = f"{reference_variable.path.replace('/', '_')}_{name}"
        return self.add_variable(shape, initializer, reference_variable.dtype, name=name)

    def cut(self, gradients: Sequence[Gradient | None]) -> list[Gradient]:
        """Cuts the gradients of tables down to the rows that are trained.

        Args:
            gradients: Those of all variables that the optimizer was built on; None: zeros.

        Returns:
            The gradients that `apply` takes.
        """
        cut: list[Gradient] = []
        for index, gradient in enumerate(gradients):
            if gradient is None:
                gradient = tf.zeros(self._momentums[index].shape)
            elif index in self.tables:
                gradient = self.tables[index].cut(gradient)
            cut.append(gradient)
        return cut

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        return grads  # `_all_reduce_sum_gradients` clips: these are one replica's.

    def _apply_weight_decay(self, variables: list[Any]) -> None:
        pass  # Part of `update_step`.

    def _all_reduce_sum_gradients(self, grads_and_vars: list[Any]) -> list[Any]:
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            grads_and_vars = super()._all_reduce_sum_gradients(
                [(tf.convert_to_tensor(grad), variable) for grad, variable in grads_and_vars]
            )
        gradients = [_sum_duplicates(grad) for grad, _ in grads_and_vars]
        norm = tf.linalg.global_norm(gradients)
        self.gradient_norm.assign(norm)
        if self.max_grad_norm:
            scale = self.max_grad_norm / tf.maximum(norm, self.max_grad_norm)
            gradients = [_scaled(grad, scale) for grad in gradients]
        return [(grad, var) for grad, (_, var) in zip(gradients, grads_and_vars, strict=True)]

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        """Updates all variables with the kernel's common arguments, computed once."""
        step = tf.cast(self.iterations + 1, tf.float32)
        beta2_power = tf.pow(self.beta_2, step)
        common = {
            "lr": tf.cast(learning_rate, tf.float32),
            "beta1_power": tf.pow(self.beta_1, step),
            "beta2_power": beta2_power,
            "beta1": tf.constant(self.beta_1),
            "beta2": tf.constant(self.beta_2),
            # The kernel adds it to the root of the uncorrected moment: scale it by the correction.
            "epsilon": self.epsilon * tf.sqrt(1.0 - beta2_power),
        }
        super()._backend_update_step(grads, trainable_variables, common)

    def update_step(self, gradient: Any, variable: Any, arguments: Mapping[str, tf.Tensor]) -> None:
        """Updates one variable and its two moments in place.

        Args:
            gradient: Its gradient.
            variable: The variable.
            arguments: The kernel's arguments that all variables share, float32 [].
                `_backend_update_step` gives them to Keras in place of the learning rate.
        """
        index = self._get_variable_index(variable)
        rate = arguments["lr"]
        if self._factors[index] != 1.0:
            rate *= self._factors[index]
        decay = rate * self.weight_decay if self.weight_decay and self._decays[index] else 0.0
        if index in self.tables:
            self.tables[index].update(variable, gradient, decay, {**arguments, "lr": rate})
            return
        if self.weight_decay and self._decays[index]:
            variable.assign(variable * (1.0 - decay))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            grad=tf.convert_to_tensor(gradient),
            **{**arguments, "lr": rate},
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the optimizer."""
        config = super().get_config()
        own = ("max_grad_norm", "layer_rates", "table_rows")
        return {**config, **{name: getattr(self, name) for name in own}}


def tables_of(optimizer: keras.optimizers.Optimizer) -> list[TableRows]:
    """Returns the tables of which an optimizer trains some rows."""
    return [*getattr(getattr(optimizer, "inner_optimizer", optimizer), "tables", {}).values()]


def _sum_duplicates(gradient: Gradient) -> Gradient:
    """Sums the entries of equal rows in an embedding table's gradient, as its norm needs."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, numbers = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, numbers, tf.size(rows))
    return tf.IndexedSlices(values, rows, gradient.dense_shape)


def _scaled(gradient: Gradient, scale: tf.Tensor) -> Gradient:
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient * scale
    return tf.IndexedSlices(gradient.values * scale, gradient.indices, gradient.dense_shape)


def decays(path: str) -> bool:
    """Whether weight decay applies to a variable, given its path such as `dense/kernel`."""
    # A wrapped SavedModel's variable is named such as layer_0_output_bias.
    return re.split(r"[/_]", path.split(":")[0])[-1] not in NO_DECAY


def layer_rates(blocks: Sequence[Sequence[keras.layers.Layer]], decay: float) -> dict[str, float]:
    """Gives each layer of an encoder a lower learning rate than the layer above it.

    Args:
        blocks: The encoder's layers from the embeddings up.
        decay: The factor from each layer to the one below (Howard & Ruder, 2018); the topmost gets
            `decay` itself, the head 1.

    Returns:
        Variable path to factor.
    """
    return {
        variable.path: decay ** (len(blocks) - depth)
        for depth, block in enumerate(blocks)
        for layer in block
        for variable in layer.trainable_variables
    }


def build_optimizer(
    total_steps: int | None,
    config: OptimizerConfig = OptimizerConfig(),
    layer_rates: Mapping[str, float] | None = None,
    table_rows: Mapping[str, Iterable[int]] | None = None,
) -> keras.optimizers.Optimizer:
    """Makes the optimizer that BERT is fine-tuned with.

    Args:
        total_steps: Steps of the whole training, which the schedule spans; None: a constant rate.
        config: Its settings.
        layer_rates: See `AdamW`.
        table_rows: See `AdamW`.

    Returns:
        The optimizer, with dynamic loss scaling under `mixed_float16`.
    """
    rate: Any = config.learning_rate
    if total_steps:
        warmup_steps = int(total_steps * config.warmup_proportion)
        rate = WarmupDecay(rate, total_steps, warmup_steps, config.lr_scheduler_type)
    optimizer = AdamW(rate, config.weight_decay, config.max_grad_norm, layer_rates, table_rows)
    if keras.config.dtype_policy().name == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
