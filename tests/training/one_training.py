"""Trains a small classifier under a strategy, for tests that compare strategies.

    one_training one_device|mirrored|multi_worker HANDLE OUTPUT MODE:SLICES ...

Writes losses, counts, metrics and weights of each case to OUTPUT<number>.json and .npz.
"""

import json
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.programs import record_losses, two_devices
from tf_finetune import (
    EncoderConfig,
    Examples,
    LoopConfig,
    OptimizerConfig,
    Problem,
    Runtime,
    RuntimeConfig,
    build_classifier,
    build_optimizer,
    evaluate,
    load_encoder,
    make_eval_dataset,
    make_logits_fn,
    plan_batches,
    tokenize,
    train,
)
from tf_finetune.classification.tokenize import table_rows
from tf_finetune.runtime.hardware import make_strategy


def main(argv: Sequence[str]) -> None:
    """Trains; see the module's docstring."""
    _, strategy, handle, output, *cases = argv
    if strategy == "mirrored":
        two_devices()
    runtime = Runtime(make_strategy(RuntimeConfig(distribution_strategy=strategy))[0])
    for number, case in enumerate(cases):
        mode, slices = case.split(":")
        train_once(runtime, handle, mode, int(slices), f"{output}{number}")


def train_once(runtime: Runtime, handle: str, mode: str, slices: int, output: str) -> None:
    """Trains one classifier and writes what it has become."""
    losses = record_losses()
    keras.utils.set_random_seed(1)
    problem = Problem("single_label", ("text",), ("bad", "good"))
    config = EncoderConfig(dropout=0.0, label_smoothing_factor=0.1)
    with runtime.scope():
        # The SavedModel was written without dropout; a native encoder has its own.
        encoder = load_encoder(handle, mode=mode, dropout=0.0 if mode == "native" else None)
        model = build_classifier(encoder, problem, config, runtime=runtime).model
    logits_fn = make_logits_fn(model, runtime)
    texts = ["good " * (i % 7) + "film" for i in range(37)]
    labels = np.arange(37, dtype="int32") % 2
    rows = tokenize(Examples((texts,), labels), encoder.preprocessor, 32)
    tables = table_rows(encoder, rows)
    with runtime.scope():
        settings = OptimizerConfig(learning_rate=1e-3, max_grad_norm=0.5)
        optimizer = build_optimizer(30, settings, table_rows=tables)
    few = tokenize(Examples((texts[:1],), labels[:1]), encoder.preprocessor, 32)

    def metrics() -> list[dict[str, Any]]:
        """Of 37 rows by 10; by more than there are; of one row, fewer than replicas."""
        return [
            evaluate(logits_fn, make_eval_dataset(part, size), problem)
            for part, size in ((rows, 10), (rows, 64), (few, 8))
        ]

    untrained = metrics()
    loop = LoopConfig(max_steps=30, gradient_accumulation_steps=slices)
    batches = plan_batches(rows, 12, loop)
    state = train(model, batches, optimizer=optimizer, loop=loop, runtime=runtime)
    result = {
        "replicas": runtime.num_replicas,
        "examples": state.examples,
        "tokens": state.tokens,
        "losses": losses,
        "norm": float(tf.convert_to_tensor(optimizer.gradient_norm.value)),
        "untrained": untrained,
        "metrics": metrics(),
    }
    weights = {v.path: tf.convert_to_tensor(v.value).numpy() for v in model.trainable_variables}
    np.savez(output + ".npz", **{path.replace("/", "|"): value for path, value in weights.items()})
    with open(output + ".json", "w") as file:
        json.dump(result, file)
