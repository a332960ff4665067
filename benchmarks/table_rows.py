"""A training step with Adam on all rows of the table of embeddings, and on those that are used.

Both train the same encoder on the same batches, in turn. `--vocabulary` gives the encoder a larger
table, as a multilingual one has.
"""

import argparse
import csv
import dataclasses
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks.encoder import encoder_dir
from tf_finetune import (
    Examples,
    LoopConfig,
    OptimizerConfig,
    Problem,
    Runtime,
    build_classifier,
    build_optimizer,
    load_encoder,
    plan_batches,
)
from tf_finetune.classification.tokenize import table_rows
from tf_finetune.models.bert import BertEncoder
from tf_finetune.runtime.hardware import choose_precision
from tf_finetune.training.step import make_train_loop


def main() -> None:
    """Measures and prints both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--encoder", default=encoder_dir())
    parser.add_argument("--vocabulary", type=int, help="rows of the table, with new weights")
    parser.add_argument("--num_steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=4)
    flags = parser.parse_args()
    with open(Path(flags.data_dir) / "banking77" / "train.csv", encoding="utf-8") as file:
        texts, names = zip(*list(csv.reader(file))[1:], strict=True)
    labels = np.unique(names, return_inverse=True)[1].astype(np.int32)
    problem = Problem("single_label", ("text",), tuple(sorted(set(names))))
    keras.config.set_dtype_policy(choose_precision("auto")[0])
    loop = LoopConfig(num_train_epochs=3)
    loops, batches = {}, {}
    for name in ("all", "used"):
        encoder = load_encoder(flags.encoder)
        if flags.vocabulary:
            network = BertEncoder.from_config(
                {**encoder.network.get_config(), "vocabulary_size": flags.vocabulary}
            )
            network.build()
            blocks = network.blocks
            encoder = dataclasses.replace(encoder, network=network, blocks=blocks)
        classifier = build_classifier(encoder, problem)
        rows = classifier.tokenize(Examples((texts,), labels))
        planned = plan_batches(rows, 32, loop)
        tables = table_rows(encoder, rows)
        classifier.model.optimizer = build_optimizer(
            planned.num_steps, OptimizerConfig(), table_rows=tables if name == "used" else {}
        )
        classifier.model.optimizer.build(classifier.model.trainable_variables)
        loops[name] = make_train_loop(classifier.model, Runtime())
        batches[name] = iter(planned.start(Runtime().strategy, 0))
        numbers = sum(int(np.prod(v.shape)) for v in classifier.model.optimizer.variables)
        print(f"{name}: {numbers * 4 / 2**20:.0f} MiB of moments")
    (used,) = tables.values()
    print(f"{len(used)} of {encoder.network.vocabulary_size} rows are used")
    seconds: dict[str, list[float]] = {"all": [], "used": []}
    for number in range(1 + flags.rounds):
        for name in loops:
            started = time.perf_counter()
            loops[name](batches[name], tf.constant(flags.num_steps))
            if number:
                seconds[name].append((time.perf_counter() - started) / flags.num_steps)
    for name, values in seconds.items():
        print(f"{name}: {1000 * np.median(values):.0f} ms a step", [round(v, 3) for v in values])


if __name__ == "__main__":
    main()
