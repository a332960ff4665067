"""The forward pass over a dataset: one trace, every replica, each example once."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

Batch = tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]


@dataclass(frozen=True)
class LogitsFn:
    """A model's traced forward pass; make it once with `make_logits_fn` and use it every epoch.

    Attributes:
        function: From a batch (features, labels, weights) to the tensors (logits, labels, weights),
            those of all replicas in the order of the batch; under a strategy a `tf.function`.
        strategy: What it runs under; None: one device.
    """

    function: Any
    strategy: tf.distribute.Strategy | None = None


def make_logits_fn(
    model: keras.Model,
    strategy: tf.distribute.Strategy | None = None,
    *,
    jit_compile: bool = False,
) -> LogitsFn:
    """Traces a model's forward pass for batches of any size and length.

    Args:
        model: From a dict of features to logits [batch, num_outputs]; dropout is off.
        strategy: What the model was made under; None: one device.
        jit_compile: Compile with XLA, which makes one program for each shape.

    Returns:
        The function for `predict_logits`. It sees the model's later weights too.
    """
    names = list(model.input)

    # As in training: AutoGraph would only cost time.
    @tf.autograph.experimental.do_not_convert
    def forward(features: dict[str, tf.Tensor]) -> tf.Tensor:
        inputs = {name: features[name] for name in names}
        return tf.cast(model(inputs, training=False), tf.float32)

    forward = tf.function(forward, jit_compile=True) if jit_compile else forward
    if strategy is None or strategy.num_replicas_in_sync == 1:
        signature = {name: tf.TensorSpec(t.shape, t.dtype) for name, t in model.input.items()}
        forward = tf.function(forward, input_signature=[signature])

        def one_device(batch: Batch) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            features, labels, weights = batch
            return forward({name: features[name] for name in names}), labels, weights

        return LogitsFn(one_device)

    @tf.function
    def all_replicas(batch: Batch) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        features, labels, weights = batch
        logits = strategy.run(forward, args=(features,))
        logits, labels, weights = (
            strategy.gather(value, axis=0) for value in (logits, labels, weights)
        )
        return logits, labels, weights

    return LogitsFn(all_replicas, strategy)


def predict_logits(
    model: keras.Model | LogitsFn, dataset: tf.data.Dataset
) -> tuple[np.ndarray, np.ndarray]:
    """Runs a model over a dataset.

    Args:
        model: The model, or its function from `make_logits_fn`, which is not traced again.
        dataset: Batches (features, labels, weights); rows of weight 0 fill a batch up and are
            left out. Under a strategy, the global batches, which this function distributes.

    Returns:
        The logits, float32 [n, num_outputs], and the labels [n, ...], in the dataset's order;
        under several workers every worker gets all of them.
    """
    logits_fn = make_logits_fn(model) if isinstance(model, keras.Model) else model
    batches = dataset
    if logits_fn.strategy is not None:
        # Shard by rows: the default may shard by files, or give every worker every row.
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.DATA
        )
        batches = logits_fn.strategy.experimental_distribute_dataset(dataset.with_options(options))
        # Traced for the shapes that all batches share; else each new length traces once more.
        logits_fn.function.get_concrete_function(batches.element_spec)
    collected = []
    for batch in batches:
        logits, labels, weights = (value.numpy() for value in logits_fn.function(batch))
        collected.append((logits[weights > 0], labels[weights > 0]))
    if not collected:
        raise ValueError("The dataset has no batches.")
    all_logits, all_labels = zip(*collected, strict=True)
    return np.concatenate(all_logits), np.concatenate(all_labels)
