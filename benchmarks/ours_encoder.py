"""A training step of tf_finetune's classifier, as its loop runs it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.encoder_step import (
    LABELS,
    LEARNING_RATE,
    MAX_GRAD_NORM,
    WEIGHT_DECAY,
    Clock,
    Steps,
    parse_steps,
)
from tf_finetune import (
    EncoderConfig,
    OptimizerConfig,
    Problem,
    RuntimeConfig,
    build_classifier,
    build_optimizer,
    load_encoder,
    make_runtime,
)
from tf_finetune.formats.saved_model import TOKEN_INPUTS
from tf_finetune.training.compile_ahead import compiling_ahead
from tf_finetune.training.step import make_train_loop


def train(steps: Steps) -> None:
    """Trains and reports."""
    clock = Clock()
    runtime = make_runtime(
        RuntimeConfig(
            precision="float32" if steps.precision == "float32" else "mixed_bfloat16",
            seed=1,
            distribution_strategy="one_device",
        )
    )
    model = build_classifier(
        load_encoder(str(steps.directory)),
        Problem("single_label", ("text",), LABELS),
        EncoderConfig(head="native"),
        max_seq_length=steps.length,
        runtime=runtime,
    ).model
    optimizer = OptimizerConfig(
        learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, max_grad_norm=MAX_GRAD_NORM
    )
    model.compile(build_optimizer(steps.total, optimizer), model.loss)
    model.optimizer.build(model.trainable_variables)
    run = make_train_loop(model, runtime)
    remaining = iter(dataset(steps, tuple(model.input)))
    shapes = () if runtime.jit_compile else [(steps.batch_size, steps.length)]
    with compiling_ahead(model, shapes):
        for _ in range(steps.total):
            loss = float(run(remaining, tf.constant(1)).losses.numpy()[0])
            clock.step()
    clock.report(steps, sum(int(np.prod(v.shape)) for v in model.trainable_variables), loss)


def dataset(steps: Steps, names: tuple[str, ...]) -> tf.data.Dataset:
    """Returns the batches as the loop takes them, their shapes unknown to the step as there."""

    def make() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
        for batch in steps.batches():
            values: tuple[Any, ...] = (batch.ids, batch.mask, np.zeros_like(batch.ids))
            features = dict(zip(TOKEN_INPUTS, values, strict=True))
            weights = np.ones(len(batch.labels), np.float32)
            yield {name: features[name] for name in names}, batch.labels, weights

    signature = (
        dict.fromkeys(names, tf.TensorSpec((None, None), tf.int32)),
        tf.TensorSpec((None,), tf.int32),
        tf.TensorSpec((None,), tf.float32),
    )
    return tf.data.Dataset.from_generator(make, output_signature=signature).prefetch(8)


if __name__ == "__main__":
    train(parse_steps(__doc__)[1])
