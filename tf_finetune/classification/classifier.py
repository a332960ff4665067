"""An encoder and a head as one ordinary Keras model."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from tf_finetune.classification.heads import Pooling, load_head
from tf_finetune.classification.losses import LogitsLoss
from tf_finetune.data.tasks import Problem
from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder
from tf_finetune.training.optimizer import build_optimizer


def build_classifier(
    encoder: Encoder,
    problem: Problem,
    *,
    head: str | keras.layers.Layer = "linear",
    pooling: str = "pooled",
    dropout: float = 0.1,
    freeze: str = "none",
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] = (),
    output_bias: Sequence[float] = (),
    jit_compile: bool = False,
) -> keras.Model:
    """Puts a head on an encoder.

    Args:
        encoder: From `load_encoder`. Its weights become the model's, not a copy.
        problem: What is learnt.
        head: A name (see `load_head`) or a layer that takes [batch, hidden] to logits.
        pooling: The head's input: `pooled`, `cls`, `mean` or `max` (see `Pooling`).
        dropout: Share of the head's inputs dropped in training.
        freeze: `encoder`, `embeddings`, or `first_N_layers` (embeddings included); `none` leaves
            the encoder as it is.
        label_smoothing: See `LogitsLoss`.
        class_weights: See `LogitsLoss`.
        output_bias: What the biases of the head's last layer, its attribute `logits`, start at,
            such as `constant_logits(labels, problem_type)`; empty, or a head without: unchanged.
        jit_compile: Compile with XLA in `fit`, `evaluate` and `predict`.

    Returns:
        A compiled model from the preprocessor's features to logits, float32 [batch, num_outputs].

    Raises:
        UserError: A head, pooling or freezing that this encoder cannot have.
    """
    apply_freeze(encoder, freeze)
    inputs = _make_inputs(encoder, len(problem.text_columns))
    outputs = encoder.network(inputs)
    if pooling != "pooled" and "sequence_output" not in outputs:
        raise UserError(
            f"--pooling={pooling}: {encoder.handle} gives no sequence_output. Use --pooling=pooled."
        )
    features = Pooling(pooling, name="pooling")(outputs, input_mask=inputs.get("input_mask"))
    if isinstance(head, str):
        head = load_head(head)(num_outputs=problem.num_outputs, dropout=dropout, name="head")
    logits = keras.layers.Activation("linear", dtype="float32", name="float32_logits")(
        head(features)
    )
    if tuple(logits.shape) != (None, problem.num_outputs):
        raise UserError(
            f"The head gives outputs of shape {tuple(logits.shape)}; the problem needs "
            f"(None, {problem.num_outputs}), one logit per label."
        )
    bias = getattr(getattr(head, "logits", None), "bias", None)
    if bias is not None and tuple(bias.shape) == (len(output_bias),):
        bias.assign(output_bias)
    model = keras.Model(inputs, logits, name="classifier")
    model.compile(
        optimizer=build_optimizer(total_steps=None),
        loss=LogitsLoss(problem.problem_type, label_smoothing, class_weights),
        weighted_metrics=_fit_metrics(problem.problem_type),
        jit_compile=jit_compile,
    )
    return model


def apply_freeze(encoder: Encoder, freeze: str) -> None:
    """Sets which of the encoder's layers train; see `build_classifier`."""
    if freeze == "none":
        return
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


def _fit_metrics(problem_type: str) -> list[keras.metrics.Metric]:
    if problem_type == "single_label":
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    if problem_type == "multi_label":
        return [keras.metrics.BinaryAccuracy(name="binary_accuracy", threshold=0.0)]
    return [keras.metrics.RootMeanSquaredError(name="rmse")]
