"""The published TensorFlow BERT recipe: a TF Hub encoder in tf_keras, padded to one length."""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"

from typing import Any

import tensorflow as tf
import tensorflow_hub as hub
import tensorflow_text  # noqa: F401  # registers the preprocessor's ops
import tf_keras
from official.nlp import optimization

from benchmarks.encoder import HUB_DIR
from benchmarks.work import (
    BATCH_SIZE,
    EVAL_BATCH_SIZE,
    LEARNING_RATE,
    MAX_SEQ_LENGTH,
    WARMUP_PROPORTION,
    Clock,
    Rows,
    Work,
    parse_work,
    report,
)


class Marks(tf_keras.callbacks.Callback):
    """Tells the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """One pass is done."""
        self.clock.epoch()


def make_preprocessor(num_segments: int) -> tf_keras.Model:
    """Returns a model from texts to the encoder's inputs."""
    preprocessor = hub.load(str(HUB_DIR / "preprocessor"))
    segments = [tf_keras.Input((), dtype=tf.string) for _ in range(num_segments)]
    tokenize = hub.KerasLayer(preprocessor.tokenize)
    pack = hub.KerasLayer(preprocessor.bert_pack_inputs, arguments={"seq_length": MAX_SEQ_LENGTH})
    return tf_keras.Model(segments, pack([tokenize(segment) for segment in segments]))


def make_dataset(
    rows: Rows, preprocessor: tf_keras.Model, batch_size: int, shuffle: bool
) -> tf.data.Dataset:
    """Returns batches of the encoder's inputs and labels."""
    dataset = tf.data.Dataset.from_tensor_slices((rows.texts, rows.labels))
    if shuffle:
        dataset = dataset.shuffle(len(rows))
    dataset = dataset.batch(batch_size)
    return dataset.map(
        lambda texts, labels: (preprocessor(texts), labels), tf.data.AUTOTUNE
    ).prefetch(tf.data.AUTOTUNE)


def train(work: Work) -> None:
    """Trains and reports."""
    tf_keras.utils.set_random_seed(work.seed)
    clock = Clock()
    preprocessor = make_preprocessor(len(work.train.texts))
    inputs = {
        name: tf_keras.Input((MAX_SEQ_LENGTH,), dtype=tf.int32, name=name)
        for name in ("input_word_ids", "input_mask", "input_type_ids")
    }
    outputs = hub.KerasLayer(str(HUB_DIR / "encoder"), trainable=True)(inputs)
    net = tf_keras.layers.Dropout(0.1)(outputs["pooled_output"])
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(len(work.label_names))(net))
    steps = work.num_epochs * work.steps_per_epoch
    model.compile(
        optimizer=optimization.create_optimizer(
            init_lr=LEARNING_RATE,
            num_train_steps=steps,
            num_warmup_steps=int(WARMUP_PROPORTION * steps),
            optimizer_type="adamw",
        ),
        loss=tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[tf_keras.metrics.SparseCategoricalAccuracy("accuracy")],
    )
    clock.start()
    model.fit(
        make_dataset(work.train, preprocessor, BATCH_SIZE, shuffle=True),
        epochs=work.num_epochs,
        callbacks=[Marks(clock)],
        verbose=0,
    )
    timing = clock.timing(work)
    timing.accuracy = model.evaluate(
        make_dataset(work.test, preprocessor, EVAL_BATCH_SIZE, shuffle=False),
        verbose=0,
        return_dict=True,
    )["accuracy"]
    report(timing)


if __name__ == "__main__":
    train(parse_work(__doc__)[2])
