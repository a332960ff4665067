r"""Exports a fine-tuned model as a SavedModel that serves without this package.

The directory is a TensorFlow SavedModel that takes raw strings. Whoever loads it must have
imported tensorflow_text, whose ops cut the text into tokens:

    import tensorflow as tf, tensorflow_text
    serve = tf.saved_model.load("out/export").signatures["serving_default"]
    serve(sentence=tf.constant(["a text"]))

The plain `saved_model_cli run` does not know these ops and has no flag to load them; this does:

    python -c "import tensorflow_text; from tensorflow.python.tools.saved_model_cli import main; \
    main()" run --dir out/export --tag_set serve --signature_def serving_default \
    --input_exprs 'sentence=["a text"]'

Next to the SavedModel's own files are `model.keras`, for `keras.saving.load_model` after
`import tf_finetune.classification.classifier`, and `assets.extra/labels.txt`, a name for each
column of the probabilities.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_finetune.classification.fields import escape
from tf_finetune.data.problem import UNSURE, Problem
from tf_finetune.errors import UserError
from tf_finetune.files import replaced_directory, write_text_atomic
from tf_finetune.formats.saved_model import RESOURCE_KINDS
from tf_finetune.models.precision import float32_compute
from tf_finetune.runs.exports import check_export
from tf_finetune.runs.paths import expand_path
from tf_finetune.text.long_texts import pack_long
from tf_finetune.text.preprocessor import TextPreprocessor

TOLERANCE = 1e-4


def serving_module(
    model: keras.Model,
    preprocessor: TextPreprocessor,
    problem: Problem,
    *,
    max_seq_length: int,
    long_text: str = "truncate",
) -> tf.Module:
    """Makes the module that `tf.saved_model.save` writes, with its function `serve`.

    Args:
        model: From features to logits.
        preprocessor: The encoder's.
        problem: The model's problem.
        max_seq_length: The most tokens of a row.
        long_text: What rows are made of longer texts; see `pack_long`.

    Returns:
        A module whose `serve` takes a string [batch] for each text column; see `export`.
    """
    names = argument_names(problem.text_columns)

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name) for name in names], autograph=False
    )
    def serve(*segments: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.shape(segments[0])[0]
        # An encoder cannot read no rows: an empty batch gets an empty text, whose row is cut off.
        filling = tf.fill([tf.cast(rows == 0, tf.int32)], "")
        filled = [tf.concat([segment, filling], 0) for segment in segments]
        logits = text_logits(model, preprocessor, filled, max_seq_length, long_text)
        outputs = answer(logits, problem)
        return {name: output[:rows] for name, output in outputs.items()}

    module = tf.Module()
    module.serve = serve
    module.preprocessor = preprocessor
    # Not the model itself: it would bring the optimizer, and Keras 3 saves each of its variables as
    # two, of which a session (saved_model_cli, TensorFlow Serving) restores the unused one.
    module.resources = list(_resources(model))
    return module


def text_logits(
    model: keras.Model,
    preprocessor: TextPreprocessor,
    segments: Sequence[tf.Tensor],
    max_seq_length: int,
    long_text: str,
) -> tf.Tensor:
    """Returns the logits of texts as `predict` does: float32 [batch, num_outputs].

    Args:
        model: From features to logits.
        preprocessor: The encoder's.
        segments: A string [batch] for each text column.
        max_seq_length: The most tokens of a row.
        long_text: See `pack_long`.
    """
    tokens = preprocessor.tokenize(segments)
    packed, pieces = pack_long(preprocessor, tokens, max_seq_length, long_text)
    features = preprocessor.pad(packed)
    if long_text != "window":
        return tf.cast(model(features, training=False), tf.float32)
    logits = _logits_in_parts(model, features)
    return tf.math.segment_mean(logits, tf.repeat(tf.range(tf.size(pieces)), pieces))


def _logits_in_parts(model: keras.Model, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Returns logits as the model does; takes memory for 64 rows however many there are."""
    rows, part = tf.shape(next(iter(features.values())))[0], 64

    def step(number: tf.Tensor, done: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        rows = {n: value[part * number : part * (number + 1)] for n, value in features.items()}
        return number + 1, done.write(number, tf.cast(model(rows, training=False), tf.float32))

    count = (rows + part - 1) // part
    shape = (None, model.output_shape[-1])
    done = tf.TensorArray(tf.float32, count, infer_shape=False, element_shape=shape)
    _, done = tf.while_loop(
        lambda number, _: number < count, step, (0, done), parallel_iterations=1
    )
    return done.concat()


def answer(logits: tf.Tensor, problem: Problem) -> dict[str, tf.Tensor]:
    """Turns logits, float32 [batch, num_outputs], into the outputs of `export`."""
    if problem.problem_type == "regression":
        return {"score": logits[:, 0]}
    names = tf.constant(problem.label_names)
    if problem.problem_type == "multi_label":
        probabilities = tf.sigmoid(logits)
        written = tf.constant([escape(name).replace(",", r"\x2c") for name in problem.label_names])
        rows = tf.repeat(written[tf.newaxis], tf.shape(logits)[0], axis=0)
        chosen = tf.ragged.boolean_mask(rows, probabilities >= problem.label_thresholds)
        label = tf.strings.reduce_join(chosen, axis=1, separator=",")
    else:
        probabilities = tf.nn.softmax(logits / problem.temperature)
        label = tf.gather(names, tf.argmax(logits, axis=1))
    score = tf.reduce_max(probabilities, axis=1)
    if problem.reject_below:
        label = tf.where(score >= problem.reject_below, label, UNSURE)
    return {"label": label, "score": score, "probabilities": probabilities}


def export(
    model: keras.Model,
    preprocessor: TextPreprocessor,
    problem: Problem,
    directory: str | os.PathLike[str],
    *,
    max_seq_length: int,
    long_text: str = "truncate",
    example_texts: Sequence[Sequence[str]] = (),
) -> None:
    r"""Writes the model as a SavedModel from strings to labels, with `model.keras` beside it.

    The signature `serving_default` takes a string [batch] for each text column, named after it
    (see `argument_names`), and returns `label` string [batch], `score` float32 [batch], the label's
    probability, and `probabilities` float32 [batch, labels]. For multi_label, `label` joins by
    commas the labels whose probability reaches their threshold, and `score` is the highest
    probability; a comma in a name is written `\x2c` and a backslash `\\`, which `unescape` of
    `fields.py` reads back. A `score` below `reject_below` has the label `unsure`. A regression
    returns `score` alone, the predicted number. Rows are
    padded to the longest of a request; an empty request gets an empty answer. Both files compute in
    float32, even if the model's precision is mixed.

    Args:
        model: From features to logits, as of `build_classifier`.
        preprocessor: The encoder's.
        problem: The model's problem.
        directory: Where to write; an earlier export there is replaced. `~` is expanded. For
            TensorFlow Serving give `<folder>/<version>`.
        max_seq_length: The most tokens of a row.
        long_text: What rows are made of longer texts; see `pack_long`. `model.keras` takes rows.
        example_texts: Some strings for each text column, on which the files' outputs are compared
            with the model's; an empty text is always added.

    Raises:
        UserError: `directory` holds other files, see `check_export`; the disk is full; or the
            outputs of the files, loaded again, differ from the model's by more than 1e-4 (of the
            value, where it is above 1). `directory` is unchanged.
    """
    directory = expand_path(directory, "directory")
    check_export(directory)
    columns = [[*column, ""] for column in example_texts or [()] * len(problem.text_columns)]
    segments = [tf.constant(column, tf.string) for column in columns]

    def answers(network: keras.Model) -> dict[str, tf.Tensor]:
        logits = text_logits(network, preprocessor, segments, max_seq_length, long_text)
        return answer(logits, problem)

    with replaced_directory(directory) as folder, float32_compute(model):
        expected = answers(model)
        module = serving_module(
            model, preprocessor, problem, max_seq_length=max_seq_length, long_text=long_text
        )
        try:
            tf.saved_model.save(module, str(folder), signatures=module.serve)
        except (tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError) as error:
            raise UserError(f"{directory} cannot be written: {error.message}.") from None
        loaded = tf.saved_model.load(str(folder)).signatures["serving_default"]
        inputs = dict(zip(argument_names(problem.text_columns), segments, strict=True))
        _compare("SavedModel", loaded(**inputs), expected)

        restored = _save_keras(model, folder / "model.keras")
        _compare("model.keras", answers(restored), expected)

        labels = "".join(f"{name}\n" for name in problem.label_names)
        write_text_atomic(folder / "assets.extra" / "labels.txt", labels)


def argument_names(text_columns: Sequence[str]) -> list[str]:
    """Makes names of a TensorFlow signature from column names.

    Every character other than an ASCII letter, digit or `_` becomes `_`; a name that does not
    begin with a letter gets the prefix `text_`, and a name that is in use gets a number appended.
    """
    names: list[str] = []
    for column in text_columns:
        name = re.sub(r"[^A-Za-z0-9_]", "_", column)
        name = name if re.match("[A-Za-z]", name) else f"text_{name}"
        while name in names:
            name = f"{name}_{len(names) + 1}"
        names.append(name)
    return names


def _resources(model: keras.Model) -> Iterator[Any]:
    """Yields once each TensorFlow variable, lookup table and asset that a model uses."""
    seen = set()
    for layer in model._flatten_layers():
        # Only Keras tracks the weights that a layer keeps in a list.
        for item in [*tf.train.TrackableView(layer).descendants(), *layer.weights]:
            item = item.value if isinstance(item, keras.Variable) else item
            if isinstance(item, RESOURCE_KINDS) and id(item) not in seen:
                seen.add(id(item))
                yield item


def _save_keras(model: keras.Model, path: Path) -> keras.Model:
    """Writes a model and returns the model loaded from the file."""
    try:
        model.save(path)
        return keras.saving.load_model(path, compile=False)
    except (TypeError, ValueError) as error:
        # In Keras's message the cause stands between the model's configuration and the layer's.
        reason = str(error).rsplit("Exception encountered: ", 1)[-1].split(" Full object config")[0]
        raise UserError(
            f"model.keras cannot be written and loaded again, nothing was exported: {reason} "
            "A layer of your own needs @keras.saving.register_keras_serializable() and a "
            "get_config() of all arguments of its __init__."
        ) from error


def _compare(kind: str, written: dict[str, tf.Tensor], expected: dict[str, tf.Tensor]) -> None:
    """Raises a UserError if the outputs of a written file differ from the model's."""
    for name in set(expected) - {"label"}:
        ours, theirs = expected[name].numpy(), written[name].numpy()
        difference = float(np.max(np.abs(ours - theirs) / np.maximum(1.0, np.abs(ours))))
        # Written so that NaN fails too.
        if not difference <= TOLERANCE:
            raise UserError(
                f"The exported {kind} differs from the model: {name} by up to {difference:.3g}, "
                f"allowed is {TOLERANCE:g}. Nothing was exported. A layer of the encoder or of a "
                "head of your own computes something else after saving and loading."
            )
