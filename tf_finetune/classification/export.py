r"""The fine-tuned model as files that serve without this package.

The directory is a TensorFlow SavedModel that takes raw strings. Whoever loads it must have
imported tensorflow_text, whose ops cut the text into tokens:

    import tensorflow as tf, tensorflow_text
    serve = tf.saved_model.load("out/export").signatures["serving_default"]
    serve(sentence=tf.constant(["a text"]))

The plain `saved_model_cli run` does not know these ops and has no flag to load them; this does:

    python -c "import tensorflow_text; from tensorflow.python.tools.saved_model_cli import main; \
    main()" run --dir out/export --tag_set serve --signature_def serving_default \
    --input_exprs 'sentence=["a text"]'

Beside the SavedModel's own files lie `model.keras`, for `keras.saving.load_model` after
`import tf_finetune.classification.classifier`, and `assets.extra/labels.txt`, a name for each
column of the probabilities.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.files import replaced_directory, write_text_atomic
from tf_finetune.formats.saved_model import RESOURCE_KINDS
from tf_finetune.models.precision import float32_compute
from tf_finetune.text.preprocessor import TextPreprocessor

TOLERANCE = 1e-4


def serving_module(
    model: keras.Model,
    preprocessor: TextPreprocessor,
    problem: Problem,
    *,
    max_seq_length: int,
) -> tf.Module:
    """Makes what `tf.saved_model.save` writes: `serve`, from strings to answers.

    Args:
        model: From features to logits.
        preprocessor: The encoder's.
        problem: What the model has learnt.
        max_seq_length: Longer texts are cut to this many tokens.

    Returns:
        A module whose `serve` takes a string [batch] for each text column; see `export`.
    """
    names = argument_names(problem.text_columns)

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name) for name in names], autograph=False
    )
    def serve(*segments: tf.Tensor) -> dict[str, tf.Tensor]:
        features = preprocessor(segments, max_seq_length)
        return answer(model(features, training=False), problem)

    module = tf.Module()
    module.serve = serve
    module.preprocessor = preprocessor
    # Not the model itself: with it would come the optimizer, and Keras 3 saves a variable of its
    # own as two, of which a session (saved_model_cli, TensorFlow Serving) restores the unused one.
    module.resources = list(_resources(model))
    return module


def answer(logits: tf.Tensor, problem: Problem) -> dict[str, tf.Tensor]:
    """Turns logits [batch, num_outputs] into what `export` says that the signature gives."""
    logits = tf.cast(logits, tf.float32)
    if problem.problem_type == "regression":
        return {"score": logits[:, 0]}
    names = tf.constant(problem.label_names)
    if problem.problem_type == "multi_label":
        probabilities = tf.sigmoid(logits)
        rows = tf.repeat(names[tf.newaxis], tf.shape(logits)[0], axis=0)
        chosen = tf.ragged.boolean_mask(rows, probabilities >= problem.threshold)
        label = tf.strings.reduce_join(chosen, axis=1, separator=",")
    else:
        probabilities = tf.nn.softmax(logits)
        label = tf.gather(names, tf.argmax(logits, axis=1))
    score = tf.reduce_max(probabilities, axis=1)
    return {"label": label, "score": score, "probabilities": probabilities}


def export(
    model: keras.Model,
    preprocessor: TextPreprocessor,
    problem: Problem,
    directory: str | os.PathLike[str],
    *,
    max_seq_length: int,
    example_texts: Sequence[Sequence[str]] = (),
) -> None:
    """Writes the model as a SavedModel from strings to labels, with `model.keras` beside it.

    The signature `serving_default` takes a string [batch] for each text column, named after it
    (see `argument_names`), and gives `label` string [batch], `score` float32 [batch], the label's
    probability, and `probabilities` float32 [batch, labels]. For multi_label, `label` holds the
    names from the threshold on, joined by commas, and `score` is the highest probability. A
    regression gives `score` alone, the predicted number. Rows are padded to the longest of a
    request. The SavedModel computes in float32 also where the model uses a mixed precision.

    Args:
        model: From features to logits, as of `build_classifier`.
        preprocessor: The encoder's.
        problem: What the model has learnt.
        directory: Where to write; a directory that is there is replaced.
        max_seq_length: Longer texts are cut to this many tokens.
        example_texts: For each text column some strings, on which what was written is compared
            with the model; an empty text is always added.

    Raises:
        UserError: The disk is full; or what was written, loaded again, differs from the model by
            more than 1e-4 (of the value, where it is above 1). `directory` is as it was.
    """
    columns = [[*column, ""] for column in example_texts or [()] * len(problem.text_columns)]
    segments = [tf.constant(column, tf.string) for column in columns]
    features = preprocessor(segments, max_seq_length)
    with replaced_directory(directory) as folder:
        with float32_compute(model):
            expected = answer(model(features, training=False), problem)
            module = serving_module(model, preprocessor, problem, max_seq_length=max_seq_length)
            try:
                tf.saved_model.save(module, str(folder), signatures=module.serve)
            except (tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError) as error:
                raise UserError(f"{directory} cannot be written: {error.message}.") from None
        loaded = tf.saved_model.load(str(folder)).signatures["serving_default"]
        inputs = dict(zip(argument_names(problem.text_columns), segments, strict=True))
        _compare("SavedModel", loaded(**inputs), expected)

        # Outside the block above, so that it keeps the precision that the model was trained in.
        restored = _save_keras(model, folder / "model.keras")
        with float32_compute(restored):
            again = answer(restored(features, training=False), problem)
        _compare("model.keras", again, expected)

        labels = "".join(f"{name}\n" for name in problem.label_names)
        write_text_atomic(folder / "assets.extra" / "labels.txt", labels)


def argument_names(text_columns: Sequence[str]) -> list[str]:
    """Makes names of a TensorFlow signature from column names.

    Every character other than an ASCII letter, digit or `_` becomes `_`; a name that does not
    begin with a letter gets `text_` before it, and one that is taken a number after it.
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
        # What a layer holds in a list is a weight for Keras alone.
        for item in [*tf.train.TrackableView(layer).descendants(), *layer.weights]:
            item = item.value if isinstance(item, keras.Variable) else item
            if isinstance(item, RESOURCE_KINDS) and id(item) not in seen:
                seen.add(id(item))
                yield item


def _save_keras(model: keras.Model, path: Path) -> keras.Model:
    """Writes a model and returns what is loaded from the file."""
    try:
        model.save(path)
        return keras.saving.load_model(path, compile=False)
    except (TypeError, ValueError) as error:
        # Keras puts the cause behind the model's configuration and the layer's behind the cause.
        reason = str(error).rsplit("Exception encountered: ", 1)[-1].split(" Full object config")[0]
        raise UserError(
            f"model.keras cannot be written and loaded again, nothing was exported: {reason} "
            "A layer of your own needs @keras.saving.register_keras_serializable() and a "
            "get_config() of all arguments of its __init__."
        ) from error


def _compare(kind: str, written: dict[str, tf.Tensor], expected: dict[str, tf.Tensor]) -> None:
    """Raises a UserError if what was written does not answer as the model does."""
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
