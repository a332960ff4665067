"""What a model said of preferences before it was trained on them: the reference of its loss."""

import dataclasses
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import tensorflow as tf

from tf_finetune.data.tokenized import TokenizedRows
from tf_finetune.files import exists, open_file, replaced_file
from tf_finetune.generation.collate import IDS, TARGETS
from tf_finetune.generation.config import Config
from tf_finetune.generation.generator import Generator
from tf_finetune.generation.load import make_generator
from tf_finetune.generation.preferences import REFERENCE, SIZES
from tf_finetune.generation.tokenize import TokenizedDialogues
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runtime.workers import Workers
from tf_finetune.text.fingerprint import hash_parts
from tf_finetune.training.checkpoints import find

Splits = Mapping[str, TokenizedDialogues]
# The errors of numpy and zipfile for a file that is truncated or damaged.
_READ_ERRORS = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def references_at_start(
    generator: Generator, found: Splits, model_dir: ModelDir | None, batch_size: int
) -> dict[str, TokenizedDialogues]:
    """Adds the log-probabilities of both answers to pairs, once, before a training.

    The reference is the model as it is before its first step, wherever its weights come from: the
    base, an adapter, or a model that was tuned before. Call it before the training also where that
    goes on: the checkpoint is restored by the training itself. As soon as there is a checkpoint,
    the stored values count, whatever has become of the files that the training started from.

    Args:
        generator: The generator, not yet trained.
        found: The pairs of each split.
        model_dir: Keeps the values; None: nothing does.
        batch_size: Pairs at a time.

    Returns:
        The splits with a column `REFERENCE`.
    """
    has_begun = model_dir is not None and bool(find(model_dir.checkpoints, "step"))
    stored = _read(model_dir) if model_dir and has_begun else {}
    workers = generator.runtime.workers
    result = _with_references(found, stored, lambda: nullcontext(generator), workers, batch_size)
    values = {_key(part.rows): part.rows.columns[REFERENCE].numpy() for part in result.values()}
    if model_dir and workers.is_chief and not values.keys() <= stored.keys():
        with replaced_file(model_dir.reference) as file:
            np.savez(file, **values)
    return result


def references_after(
    generator: Generator, found: Splits, config: Config, model_dir: ModelDir
) -> dict[str, TokenizedDialogues]:
    """Adds the log-probabilities before a training to pairs, after it.

    Those of the training's own pairs are stored; for others the model is taken back to where it
    began.

    Args:
        generator: The trained generator.
        found: The pairs of each split.
        config: The configuration of its training.
        model_dir: Its folder.

    Raises:
        UserError: What the training started from is not there any more.
    """
    stored = _read(model_dir) if generator.runtime.workers.is_chief else {}
    return _with_references(
        found,
        stored,
        lambda: _at_start(generator, config),
        generator.runtime.workers,
        config.data.eval_batch_size,
    )


def _with_references(
    found: Splits,
    stored: Mapping[str, np.ndarray],
    start: Callable[[], AbstractContextManager[Generator]],
    workers: Workers,
    batch_size: int,
) -> dict[str, TokenizedDialogues]:
    """Adds stored values, and computes those that are missing with the model that `start` gives."""
    values = {split: stored.get(_key(part.rows)) for split, part in found.items()}
    # Only the chief reads files, but all workers compute.
    missing = [
        split for split, value in values.items() if workers.any(workers.is_chief and value is None)
    ]
    if missing:
        with start() as generator:
            for split in missing:
                print(f"reference  {len(found[split].rows):,} pairs of {split}", flush=True)
                values[split] = generator.score_pairs(found[split], batch_size)
    result = {}
    for split, part in found.items():
        value = values[split]
        shared = tf.Variable(np.zeros((len(part.rows), 2), np.float32) if value is None else value)
        workers.share_variables([shared])
        columns = {**part.rows.columns, REFERENCE: tf.convert_to_tensor(shared)}
        rows = dataclasses.replace(part.rows, columns=columns)
        result[split] = dataclasses.replace(part, rows=rows)
    return result


@contextmanager
def _at_start(generator: Generator, config: Config) -> Iterator[Generator]:
    """Yields the model as it was before its training."""
    if config.decoder.init_from or config.decoder.adapter:
        yield make_generator(config, generator.runtime)
        return
    with generator.as_base():
        yield generator


def _read(model_dir: ModelDir) -> dict[str, np.ndarray]:
    """Reads the stored values by the keys of their rows; nothing if there are none."""
    if not exists(model_dir.reference):
        return {}
    try:
        with open_file(model_dir.reference) as stream, np.load(stream, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except _READ_ERRORS as error:
        print(
            f"warning: {model_dir.reference} is damaged ({error}); it is computed again.",
            file=sys.stderr,
        )
        return {}


def _key(rows: TokenizedRows) -> str:
    """Returns a key that only equal pairs share."""
    columns = rows.columns
    values = (columns[IDS].values, columns[TARGETS].values, columns[SIZES])
    return hash_parts(value.numpy().tobytes() for value in values)
