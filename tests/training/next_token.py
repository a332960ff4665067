"""A tiny language model on the hull alone: what a second wing brings, in one file.

    next_token one_device|mirrored|multi_worker planned|streamed FOLDER DROPOUT [STOP_AT]

Trains an embedding and a dense layer to guess the next token of an answer, and writes losses,
counts, metrics and weights to FOLDER/result<worker>.npz. With STOP_AT it ends like a killed process
after that many steps.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from tests.programs import record_losses, two_devices
from tf_finetune.data.batches import make_eval_dataset, plan_batches
from tf_finetune.data.readers import Row
from tf_finetune.data.row_stream import open_stream
from tf_finetune.data.streamed_batches import stream_batches
from tf_finetune.data.tokenized import Batch, TokenizedRows
from tf_finetune.runs.config import LoopConfig, OptimizerConfig, RuntimeConfig
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runtime.hardware import make_runtime
from tf_finetune.training.forward import make_forward
from tf_finetune.training.loop import Evaluation, train
from tf_finetune.training.optimizer import build_optimizer

VOCABULARY, WIDTH, LENGTH, BATCH = 29, 12, 16, 12
STEPS = 20


@dataclass(frozen=True)
class NextToken:
    """Ids to features, the ids that follow to labels; weight 1 on the tokens of the answer."""

    def __call__(self, columns: Mapping[str, Any], real: tf.Tensor, length: tf.Tensor) -> Batch:
        shape = tf.stack([-1, length])
        ids = columns["ids"].to_tensor(0, shape=shape)
        answer = columns["answer"].to_tensor(0.0, shape=shape)
        weights = tf.roll(answer, -1, axis=1) * tf.cast(real, tf.float32)[:, tf.newaxis]
        return ids, tf.roll(ids, -1, axis=1), weights

    def count_tokens(self, features: Any, labels: Any, weights: tf.Tensor) -> tf.Tensor:
        real = tf.reduce_any(weights > 0, axis=1, keepdims=True)
        return tf.reduce_sum(tf.cast((features > 0) & real, tf.float32))

    def check_training(self, columns: Mapping[str, Any]) -> None:
        pass


@dataclass(frozen=True)
class RowIds:
    """Rows `{"ids": [...], "prompt": n}` of a stream; nothing in them is a label."""

    signature: ClassVar = {
        "ids": tf.RaggedTensorSpec((None, None), tf.int32),
        "prompt": tf.TensorSpec((None,), tf.int32),
    }

    def read(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        values = [row for _, row in rows] or [{"ids": [1, 1], "prompt": 1}]
        ids = tf.ragged.constant([row["ids"] for row in values], tf.int32, ragged_rank=1)
        return {"ids": ids, "prompt": np.array([row["prompt"] for row in values], np.int32)}

    def tokenize(self, arrays: Mapping[str, Any]) -> tuple[dict[str, Any], tf.Tensor]:
        ids = arrays["ids"]
        lengths = tf.cast(ids.row_lengths(), tf.int32)
        places = tf.ragged.range(lengths).values
        is_answer = places >= tf.gather(arrays["prompt"], ids.value_rowids())
        answer = ids.with_values(tf.cast(is_answer, tf.float32))
        return {"ids": ids, "answer": answer}, lengths


def write_rows(path: Path, count: int = 50) -> list[dict[str, Any]]:
    """Writes rows of 3 to 16 tokens that count upwards from a random one."""
    random = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        length, start = int(random.integers(3, LENGTH)), int(random.integers(0, VOCABULARY))
        ids = [1 + (start + place) % (VOCABULARY - 1) for place in range(length)]
        rows.append({"ids": ids, "prompt": int(random.integers(1, length))})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def main(argv: Sequence[str]) -> None:
    """Trains; see the module's docstring."""
    strategy, source, folder, dropout, *stop_at = argv[1:]
    if strategy == "mirrored":
        two_devices()
    losses = record_losses(*map(int, stop_at))
    config = RuntimeConfig(distribution_strategy=strategy, precision="float32", seed=1)
    runtime = make_runtime(config)
    stream = open_stream([f"{folder}/rows.jsonl"])
    columns, lengths = RowIds().tokenize(RowIds().read(stream.sample))
    rows = TokenizedRows(columns, lengths.numpy(), lengths.numpy(), LENGTH, NextToken(), (8, 16))
    loop = LoopConfig(
        max_steps=STEPS, eval_steps=10, save_checkpoints_steps=5, keep_checkpoint_max=9
    )
    if source == "planned":
        batches = plan_batches(rows, BATCH, loop, seed=3)
    else:
        batches = stream_batches(stream, RowIds(), rows, BATCH, loop, seed=3)
    with runtime.scope():
        ids = keras.Input((None,), dtype="int32")
        normal = keras.initializers.RandomNormal(stddev=1.0)
        table = keras.layers.Embedding(VOCABULARY, WIDTH, normal, name="base", trainable=False)
        hidden = keras.layers.Dense(WIDTH, "tanh", name="adapter")(table(ids))
        hidden = keras.layers.Dropout(float(dropout))(hidden)
        model = keras.Model(ids, keras.layers.Dense(VOCABULARY, name="logits")(hidden))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
        model.compile("sgd", loss)
        optimizer = build_optimizer(STEPS, OptimizerConfig(learning_rate=5e-2))
    model.checkpoint_variables = lambda: [v for v in model.variables if "base" not in v.path]

    def by_row(logits: Any, labels: Any, weights: tf.Tensor) -> dict[str, tf.Tensor]:
        losses_of_tokens = loss.call(labels, logits) * weights
        hits = tf.cast(tf.argmax(logits, axis=-1, output_type=labels.dtype) == labels, tf.float32)
        return {
            "loss": tf.reduce_sum(losses_of_tokens, axis=1),
            "hits": tf.reduce_sum(hits * weights, axis=1),
            "tokens": tf.reduce_sum(weights, axis=1),
        }

    forward = make_forward(model, runtime, by_row)

    def metrics() -> dict[str, float]:
        results = forward(make_eval_dataset(rows, 8))
        sums = {name: float(values.sum()) for name, values in results.items()}
        return {"loss": sums["loss"] / sums["tokens"], "accuracy": sums["hits"] / sums["tokens"]}

    state = train(
        model,
        batches,
        optimizer=optimizer,
        evaluation=Evaluation(metrics, "accuracy", greater_is_better=True),
        loop=loop,
        model_dir=ModelDir(f"{folder}/model"),
        runtime=runtime,
    )
    weights = {v.path: tf.convert_to_tensor(v.value).numpy() for v in model.variables}
    index = 0 if runtime.workers.is_chief else 1
    np.savez(
        f"{folder}/result{index}.npz",
        losses=losses,
        examples=state.examples,
        tokens=state.tokens,
        metrics=list(metrics().values()),
        **{path.replace("/", "|"): value for path, value in weights.items()},
    )
