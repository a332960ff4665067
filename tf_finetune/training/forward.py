"""The forward pass over batches: one trace, every replica, each row once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_finetune.data.tokenized import Batch
from tf_finetune.runtime.hardware import Runtime


@dataclass(frozen=True)
class Forward:
    """A model's traced forward pass; make it once with `make_forward` and use it at every epoch.

    Attributes:
        function: Takes a batch; returns `(results, weights)` of all replicas in its order.
        trace: Traces the function for the element spec of a dataset.
        strategy: The strategy it runs under; None: one device.
    """

    function: Callable[[Any], Any]
    trace: Callable[[Any], Any]
    strategy: tf.distribute.Strategy | None = None

    def __call__(self, dataset: tf.data.Dataset) -> Any:
        """Runs the model over a dataset.

        Args:
            dataset: Batches `(features, labels, weights)`; rows without a weight fill a batch up
                and are left out. Under a strategy, the global batches.

        Returns:
            The results of all rows in the dataset's order, as arrays [n, ...] in the structure of
            `result` of `make_forward`: by default `(outputs, labels)`. Every worker gets all of
            them.

        Raises:
            ValueError: The dataset has no batches.
        """
        batches = dataset
        if self.strategy is not None:
            # Shard by rows: the default may shard by files, or give every worker every row.
            options = tf.data.Options()
            options.experimental_distribute.auto_shard_policy = (
                tf.data.experimental.AutoShardPolicy.DATA
            )
            batches = self.strategy.experimental_distribute_dataset(dataset.with_options(options))
        # Trace for the shapes that all batches share: without this each new length traces again.
        self.trace(batches.element_spec)
        collected = []
        for batch in batches:
            results, weights = self.function(batch)
            real = (weights.numpy() > 0).reshape(len(weights), -1).any(axis=1)
            collected.append(tf.nest.map_structure(lambda x, r=real: x.numpy()[r], results))
        if not collected:
            raise ValueError("The dataset has no batches.")
        return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *collected)


def outputs_and_labels(outputs: Any, labels: Any, weights: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """Keeps the model's outputs, as float32, and the labels."""
    return tf.cast(outputs, tf.float32), labels


def make_forward(
    model: keras.Model,
    runtime: Runtime | None = None,
    result: Callable[[Any, Any, tf.Tensor], Any] = outputs_and_labels,
) -> Forward:
    """Traces a model's forward pass for batches of any size and length.

    Args:
        model: The model; dropout is off.
        runtime: The one the model was made under; None: the current strategy, without XLA.
        result: Takes outputs, labels and weights of a batch; returns the results to keep of each
            row: tensors [batch, ...] whose other dimensions do not depend on the batch.

    Returns:
        The forward pass. Each call uses the weights that the model has then.
    """
    runtime = runtime or Runtime()
    strategy = runtime.strategy
    names = set(model.input) if isinstance(getattr(model, "input", None), dict) else None

    def inputs(features: Any) -> Any:
        """Returns the features that the model takes; a batch may contain more."""
        return {name: features[name] for name in sorted(names)} if names else features

    # As in training: AutoGraph would only cost time.
    @tf.autograph.experimental.do_not_convert
    def run(features: Any, labels: Any, weights: Any) -> Any:
        return result(model(features, training=False), labels, weights)

    run = tf.function(run, jit_compile=True) if runtime.jit_compile else run
    if strategy.num_replicas_in_sync == 1:
        run = tf.function(run)

        def one_device(batch: Batch) -> Any:
            features, labels, weights = batch
            return run(inputs(features), labels, weights), weights

        def trace_open(spec: Any) -> None:
            features, labels, weights = tf.nest.map_structure(_open, spec)
            run.get_concrete_function(inputs(features), labels, weights)

        return Forward(one_device, trace_open)

    @tf.function
    def all_replicas(batch: Batch) -> Any:
        features, labels, weights = batch
        results = strategy.run(run, args=(inputs(features), labels, weights))
        return tf.nest.map_structure(
            lambda value: strategy.gather(value, axis=0), (results, weights)
        )

    return Forward(all_replicas, all_replicas.get_concrete_function, strategy)


def _open(spec: tf.TensorSpec) -> tf.TensorSpec:
    """Leaves the size of every dimension open."""
    return tf.TensorSpec([None] * spec.shape.rank, spec.dtype)
