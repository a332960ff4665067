"""The network of a classifier: encoder, pooling, head."""

import dataclasses

import keras
import tensorflow as tf

from tf_finetune.classification.heads import Pooling
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder
from tf_finetune.formats.encoder_adapters import with_lora


def connect(
    encoder: Encoder, problem: Problem, pooling: str, head: keras.layers.Layer
) -> keras.Model:
    """Puts a head on an encoder.

    Args:
        encoder: The encoder.
        problem: Sets the number of texts and the number of logits.
        pooling: The head's input; see `Pooling`.
        head: From [batch, hidden] to logits.

    Returns:
        The model from features to logits, float32 [batch, num_outputs], not compiled. Of an
        encoder with adapters its checkpoints do not hold the frozen weights.

    Raises:
        UserError: The encoder has no `sequence_output` to pool, or a new pooler that is frozen, or
            the head has other outputs.
    """
    inputs = _make_inputs(encoder, len(problem.text_columns))
    outputs = encoder.network(inputs)
    if pooling != "pooled" and "sequence_output" not in outputs:
        raise UserError(
            f"--pooling={pooling}: {encoder.handle} gives no sequence_output. Use --pooling=pooled."
        )
    if pooling == "pooled" and encoder.has_new_pooler:
        if not encoder.network.trainable:
            raise UserError(
                f"--freeze=encoder: {encoder.handle} was saved without a pooler; --pooling=pooled "
                "gives it a new one, which would stay random. Use --pooling=mean, cls or max."
            )
        print(
            f"notice: {encoder.handle} was saved without a pooler; --pooling=pooled trains a new "
            "one from random weights. --pooling=mean needs none."
        )
    if pooling == "cls" and not encoder.has_pooler:
        pooling = "pooled"  # The same row, and the last layer computes no other.
    features = Pooling(pooling, name="pooling")(outputs, input_mask=inputs.get("input_mask"))
    logits = keras.layers.Activation("linear", dtype="float32", name="float32_logits")(
        head(features)
    )
    if tuple(logits.shape) != (None, problem.num_outputs):
        raise UserError(
            f"The head gives outputs of shape {tuple(logits.shape)}; the problem needs "
            f"(None, {problem.num_outputs}), one logit per label."
        )
    model = keras.Model(inputs, logits, name="classifier")
    if encoder.lora:
        model.checkpoint_variables = lambda: _all_but_frozen(model, encoder.network)
    return model


def merge_adapters(model: keras.Model, encoder: Encoder, problem: Problem) -> keras.Model:
    """Returns a model that computes the same with the adapters merged into the encoder's weights.

    Args:
        model: From `connect`; its head is used, not copied.
        encoder: See `connect`.
        problem: See `connect`.

    Returns:
        The model; the same one if there are no adapters.
    """
    if encoder.lora is None:
        return model
    encoder = dataclasses.replace(with_lora(encoder, None), has_new_pooler=False)
    pooling = model.get_layer("pooling").mode
    return connect(encoder, problem, pooling, model.get_layer("head"))


def _all_but_frozen(model: keras.Model, network: keras.layers.Layer) -> list[keras.Variable]:
    """Returns a model's variables but for those that adapters leave as they were loaded."""
    frozen = {id(variable) for variable in network.non_trainable_weights}
    return [variable for variable in model.variables if id(variable) not in frozen]


def apply_freeze(encoder: Encoder, freeze: str) -> None:
    """Freezes layers of the encoder; see `--freeze`."""
    if freeze == "none":
        return
    if encoder.lora:
        raise UserError(
            f"--freeze={freeze}: {encoder.handle} has adapters, beside weights that are frozen "
            "already. Leave it out."
        )
    encoder.network.trainable = True
    if freeze == "encoder":
        encoder.network.trainable = False
        return
    depth = len(encoder.blocks) - 1
    if depth < 0:
        raise UserError(
            f"--freeze={freeze}: {encoder.handle} is a wrapped SavedModel, whose layers cannot be "
            "told apart. Allowed are none and encoder."
        )
    layers = 0 if freeze == "embeddings" else int(freeze.split("_")[1])
    if layers > depth:
        raise UserError(f"--freeze={freeze}: {encoder.handle} has {depth} layers.")
    for block in encoder.blocks[: layers + 1]:
        for layer in block:
            layer.trainable = False


def _make_inputs(encoder: Encoder, num_segments: int) -> dict[str, keras.KerasTensor]:
    example = encoder.preprocessor([tf.constant(["a"])] * num_segments, 16)
    return {
        name: keras.Input((None,) * (value.shape.rank - 1), dtype=value.dtype.name, name=name)
        for name, value in example.items()
    }


def fit_metrics(problem_type: str) -> list[keras.metrics.Metric]:
    """Returns the metrics that `keras.Model.fit` and `evaluate` show in addition to the loss."""
    if problem_type == "single_label":
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    if problem_type == "multi_label":
        return [keras.metrics.BinaryAccuracy(name="binary_accuracy", threshold=0.0)]
    return [keras.metrics.RootMeanSquaredError(name="rmse")]
