"""A teacher's answers on the training rows: computed once before a training, and learnt in it."""

import dataclasses
import gc
import json
import os.path
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import tensorflow as tf
from keras import ops

from tf_finetune import __version__
from tf_finetune.classification.classifier import Classifier
from tf_finetune.classification.distillation_config import DistillationConfig
from tf_finetune.classification.load import load_classifier
from tf_finetune.classification.losses import DistillationLoss
from tf_finetune.classification.model import fit_metrics
from tf_finetune.classification.price import Price, price_of
from tf_finetune.classification.teacher import Teacher
from tf_finetune.classification.tokenize import TEACHER
from tf_finetune.data.labelled import Examples
from tf_finetune.data.tokenized import TokenizedRows
from tf_finetune.errors import UserError
from tf_finetune.files import exists, open_file, read_bytes, replaced_file
from tf_finetune.runs.config import DataConfig
from tf_finetune.runs.exports import TEACHER_RECORD
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runtime.hardware import Runtime
from tf_finetune.text.fingerprint import hash_parts

# The errors of numpy and zipfile for a file that is truncated, damaged or not a cache file.
_READ_ERRORS = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a teacher says of the training rows.

    Attributes:
        logits: float32 [examples, num_outputs], in the order of the student's labels.
        identity: A hash of the weights that said it, and of how they read texts.
        price: What its answers cost; None: there are no labelled rows to evaluate on.
    """

    logits: np.ndarray
    identity: str
    price: Price | None = None


def ask_teacher(
    teacher: Teacher,
    examples: Examples,
    evaluation: Examples | None,
    metric: str,
    config: DataConfig,
    runtime: Runtime,
) -> Answers:
    """Loads a teacher, asks it, and forgets it.

    Its logits are raw: the temperature that makes its probabilities calibrated is left out, as
    that of the distillation takes its place.

    Args:
        teacher: The teacher.
        examples: All rows that are trained on.
        evaluation: Labelled rows, on which its price is measured; None: it is not.
        metric: The name of the score of that.
        config: The folder of cached token ids gets the logits too.
        runtime: The one of the run.

    Raises:
        UserError: Its encoder or checkpoint cannot be used.
    """
    try:
        model = load_classifier(teacher.model_dir.path, head=teacher.head, runtime=runtime)
    except UserError as error:
        raise UserError(f"--teacher={teacher.model_dir}: {error}") from None
    answers = _ask(model, teacher, examples, evaluation, metric, config)
    del model
    gc.collect()  # Its functions form reference cycles that keep every variable alive.
    return answers


def _ask(
    model: Classifier,
    teacher: Teacher,
    examples: Examples,
    evaluation: Examples | None,
    metric: str,
    config: DataConfig,
) -> Answers:
    cache_dir = config.tokenized_cache_dir

    def answers(asked: Examples) -> np.ndarray:
        rows = model.tokenize(dataclasses.replace(asked, labels=None), cache_dir)
        logits = model.logits(rows, config.predict_batch_size)
        return logits[:, teacher.order] if teacher.order else logits

    print(f"teacher    {teacher.model_dir}, asked about {len(examples):,} rows", flush=True)
    identity, reads = _identity(model), model.encoder.preprocessor.fingerprint()
    if cache_dir and reads:
        texts = (text for column in examples.texts for text in column)
        order = f"{__version__} {len(examples.texts)} {teacher.order}"
        key = hash_parts([order, identity, reads, *texts])
        path = os.path.join(cache_dir, f"teacher-{key}.npz")
        logits = _cached(path, partial(answers, examples), model.runtime)
    else:
        logits = answers(examples)
    price = None
    if evaluation is not None:
        said = answers(evaluation)
        price = price_of(model, evaluation, metric, logits=said, problem=teacher.problem)
    return Answers(logits, identity, price)


def teacher_record(model_dir: ModelDir, answers: Answers, overwrite: bool) -> dict[str, str]:
    """Returns the record of a training's teacher, a file of its folder.

    Args:
        model_dir: The student's folder.
        answers: What is learnt now.
        overwrite: Whether a training there is replaced.

    Raises:
        UserError: The training that goes on there began with another teacher.
    """
    file = os.path.join(model_dir.path, TEACHER_RECORD)
    if exists(file) and not overwrite:
        try:
            was = json.loads(read_bytes(file))["identity"]
        except (ValueError, TypeError, KeyError) as error:
            raise model_dir.damaged(error) from None
        if was != answers.identity:
            raise UserError(
                f"--model_dir={model_dir}: its training began with other weights of --teacher, or "
                "another --precision. Bring back that teacher to go on, or begin anew with "
                "--overwrite."
            )
    return {TEACHER_RECORD: json.dumps({"identity": answers.identity}) + "\n"}


def with_answers(rows: TokenizedRows, answers: Answers) -> TokenizedRows:
    """Gives rows the teacher's logits; the pieces of a text have those of the whole."""
    logits = answers.logits
    if rows.pieces is not None:
        logits = np.repeat(logits, rows.pieces, axis=0)
    return dataclasses.replace(rows, columns={**rows.columns, TEACHER: tf.constant(logits)})


@contextmanager
def learning(classifier: Classifier, config: DistillationConfig) -> Iterator[None]:
    """Gives a classifier the loss of a student while it is trained."""
    hard = classifier.model.loss
    _compile(
        classifier,
        DistillationLoss(hard, config.distillation_alpha, config.distillation_temperature),
    )
    yield
    _compile(classifier, hard)


def _compile(classifier: Classifier, loss: object) -> None:
    classifier.model.compile(
        optimizer=classifier.model.optimizer,
        loss=loss,
        weighted_metrics=fit_metrics(classifier.problem.problem_type),
        jit_compile=classifier.runtime.jit_compile,
    )


def _identity(model: Classifier) -> str:
    """Returns a hash of all that a classifier's logits depend on but the texts."""

    def parts() -> Iterator[str | bytes]:
        precision = model.model.get_layer("pooling").compute_dtype
        yield f"{precision} {model.max_seq_length} {model.config.long_text}"
        yield repr(model.problem.label_names)
        for weight in model.model.weights:
            value = ops.convert_to_numpy(weight)
            yield f"{value.dtype} {value.shape}"
            yield value.tobytes()

    return hash_parts(parts())


def _cached(path: str, compute: Callable[[], np.ndarray], runtime: Runtime) -> np.ndarray:
    """Reads what an earlier run has computed, or computes and keeps it."""
    found: np.ndarray | None = None
    try:
        with open_file(path) as stream, np.load(stream, allow_pickle=False) as file:
            found = file["logits"]
    except FileNotFoundError:
        pass
    except _READ_ERRORS as error:
        print(f"warning: {path} is damaged ({error}); the teacher is asked again.")
    # All workers compute, or none.
    if runtime.workers.any(found is None) or found is None:
        found = compute()
        with replaced_file(path) as file:
            np.savez(file, logits=found)
        print(f"answers    written to {path}")
    else:
        print(f"answers    read from {path}")
    return found
