"""A training step of KerasHub's backbone under a dense layer, by `fit`."""

from collections.abc import Iterator
from typing import Any

import keras
import keras_hub
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

BACKBONES = {
    "bert": keras_hub.models.BertBackbone,
    "roberta": keras_hub.models.RobertaBackbone,
    "distilbert": keras_hub.models.DistilBertBackbone,
    "electra": keras_hub.models.ElectraBackbone,
    "albert": keras_hub.models.AlbertBackbone,
    "deberta-v2": keras_hub.models.DebertaV3Backbone,
}
# Its arguments, and their names in a config.json, of which DistilBERT has its own.
_ARGUMENTS = {
    "num_layers": ("num_hidden_layers", "n_layers"),
    "num_heads": ("num_attention_heads", "n_heads"),
    "hidden_dim": ("hidden_size", "dim"),
    "intermediate_dim": ("intermediate_size", "hidden_dim"),
    "max_sequence_length": ("max_position_embeddings",),
    "dropout": ("hidden_dropout_prob", "dropout"),
}


class Marks(keras.callbacks.Callback):
    """Tells the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """An optimizer step is done."""
        self.clock.step()


def make_backbone(config: dict[str, Any]) -> keras.Model:
    """Returns a backbone of random weights in the shape of a config.json."""
    arguments = {
        own: next(config[name] for name in names if name in config)
        for own, names in _ARGUMENTS.items()
    }
    kind = config["model_type"]
    arguments["vocab_size" if kind == "electra" else "vocabulary_size"] = config["vocab_size"]
    if kind in ("albert", "electra"):
        arguments["embedding_dim"] = config["embedding_size"]
    if kind == "deberta-v2":
        arguments["bucket_size"] = config["position_buckets"]
    return BACKBONES[kind](**arguments)


def make_model(config: dict[str, Any]) -> keras.Model:
    """Returns the classifier: of the pooled output where there is one, else of the first row."""
    backbone = make_backbone(config)
    outputs = backbone.output
    features = outputs["pooled_output"] if isinstance(outputs, dict) else outputs[:, 0]
    features = keras.layers.Dropout(0.1)(features)
    return keras.Model(backbone.input, keras.layers.Dense(len(LABELS), dtype="float32")(features))


def train(steps: Steps) -> None:
    """Trains and reports."""
    keras.utils.set_random_seed(1)
    if steps.precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    clock = Clock()
    model = make_model(steps.config)
    model.compile(
        optimizer=keras.optimizers.AdamW(
            keras.optimizers.schedules.PolynomialDecay(LEARNING_RATE, steps.total, 0.0),
            weight_decay=WEIGHT_DECAY,
            global_clipnorm=MAX_GRAD_NORM,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # XLA has no bfloat16 product on the CPU.
        jit_compile=False if steps.precision == "bfloat16" else "auto",
    )
    history = model.fit(
        dataset(steps, tuple(model.input)),
        steps_per_epoch=steps.total,
        callbacks=[Marks(clock)],
        verbose=0,
    )
    parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    clock.report(steps, parameters, history.history["loss"][-1])


def dataset(steps: Steps, names: tuple[str, ...]) -> tf.data.Dataset:
    """Returns the batches as `fit` takes them."""

    def make() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        for batch in steps.batches():
            features = {
                "token_ids": batch.ids,
                "padding_mask": batch.mask,
                "segment_ids": np.zeros_like(batch.ids),
            }
            yield {name: features[name] for name in names}, batch.labels

    shape = (steps.batch_size, steps.length)
    signature = (
        dict.fromkeys(names, tf.TensorSpec(shape, tf.int32)),
        tf.TensorSpec(shape[:1], tf.int32),
    )
    return tf.data.Dataset.from_generator(make, output_signature=signature).prefetch(8)


if __name__ == "__main__":
    train(parse_steps(__doc__)[1])
