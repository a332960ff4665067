"""KerasHub's BertTextClassifier and fit, with their default settings."""

from typing import Any

import keras
import keras_hub
import numpy as np

from benchmarks.encoder import encoder_dir
from benchmarks.work import (
    BATCH_SIZE,
    EVAL_BATCH_SIZE,
    LEARNING_RATE,
    MAX_SEQ_LENGTH,
    WARMUP_PROPORTION,
    WEIGHT_DECAY,
    Clock,
    Rows,
    Work,
    parse_work,
    report,
)


class Marks(keras.callbacks.Callback):
    """Tells the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """One pass is done."""
        self.clock.epoch()


def inputs(rows: Rows) -> Any:
    """Returns the texts as `fit` takes them."""
    columns = tuple(np.array(column, object) for column in rows.texts)
    return columns if len(columns) > 1 else columns[0]


def train(work: Work) -> None:
    """Trains and reports."""
    keras.utils.set_random_seed(work.seed)
    clock = Clock()
    model = keras_hub.models.BertTextClassifier(
        backbone=keras_hub.models.BertBackbone.from_preset(encoder_dir()),
        preprocessor=keras_hub.models.BertTextClassifierPreprocessor(
            keras_hub.models.BertTokenizer.from_preset(encoder_dir()),
            sequence_length=MAX_SEQ_LENGTH,
        ),
        num_classes=len(work.label_names),
        dropout=0.1,
    )
    steps = work.num_epochs * work.steps_per_epoch
    warmup_steps = int(WARMUP_PROPORTION * steps)
    model.compile(
        # Of Keras' schedules the one with a warm-up.
        optimizer=keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(
                0.0, steps - warmup_steps, warmup_target=LEARNING_RATE, warmup_steps=warmup_steps
            ),
            weight_decay=WEIGHT_DECAY,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    clock.start()
    model.fit(
        inputs(work.train),
        np.array(work.train.labels),
        batch_size=BATCH_SIZE,
        epochs=work.num_epochs,
        callbacks=[Marks(clock)],
        verbose=0,
    )
    timing = clock.timing(work)
    timing.accuracy = model.evaluate(
        inputs(work.test),
        np.array(work.test.labels),
        batch_size=EVAL_BATCH_SIZE,
        verbose=0,
        return_dict=True,
    )["accuracy"]
    report(timing)


if __name__ == "__main__":
    train(parse_work(__doc__)[2])
