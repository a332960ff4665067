"""Token ids kept on disk for later runs on the same texts."""

import os.path
import zipfile
from typing import Any

import numpy as np
import tensorflow as tf

from tf_finetune import __version__
from tf_finetune.data.batches import TokenizedExamples, tokenize
from tf_finetune.data.labelled import Examples
from tf_finetune.files import open_file, replaced_file
from tf_finetune.text.fingerprint import hash_parts
from tf_finetune.text.preprocessor import TextPreprocessor

# What numpy and zipfile raise for a file that is torn, damaged or not of ours.
READ_ERRORS = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def tokenize_cached(
    examples: Examples, preprocessor: TextPreprocessor, max_seq_length: int, cache_dir: str | None
) -> TokenizedExamples:
    """Tokenizes, or reads what an earlier run has tokenized.

    A file is named by a hash of the texts, the tokenizer and the length, so that it cannot be out
    of date; it carries checksums, and one that is torn is made anew.

    Args:
        examples: See `tokenize`.
        preprocessor: See `tokenize`; one without a `fingerprint` always tokenizes.
        max_seq_length: See `tokenize`.
        cache_dir: The folder of such files; None: tokenize.

    Returns:
        What `tokenize` returns.

    Raises:
        UserError: See `tokenize`.
        OSError: The folder cannot be written.
    """
    fingerprint = preprocessor.fingerprint() if cache_dir else None
    if cache_dir is None or fingerprint is None:
        return tokenize(examples, preprocessor, max_seq_length)
    name = _key(examples, fingerprint, max_seq_length)
    path = os.path.join(cache_dir, f"{name}.npz")
    try:
        packed, lengths, full_lengths = _read(path)
    except FileNotFoundError:
        pass
    except READ_ERRORS as error:
        print(f"warning: {path} is damaged ({error}); the texts are tokenized again.")
    else:
        return TokenizedExamples(
            preprocessor, packed, examples.labels, lengths, full_lengths, max_seq_length
        )
    rows = tokenize(examples, preprocessor, max_seq_length)
    _write(path, rows)
    return rows


def _key(examples: Examples, fingerprint: str, max_seq_length: int) -> str:
    head = f"{__version__} {fingerprint} {max_seq_length} {len(examples.texts)} {len(examples)}"
    return hash_parts([head, *(text for column in examples.texts for text in column)])


def _read(path: str) -> tuple[dict[str, tf.Tensor | tf.RaggedTensor], np.ndarray, np.ndarray]:
    with open_file(path) as stream, np.load(stream, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    lengths, full_lengths = arrays.pop("lengths"), arrays.pop("full_lengths")
    packed = {}
    for name in {name.rpartition(" ")[0] for name in arrays}:
        splits = arrays.pop(f"{name} splits")
        packed[name] = tf.RaggedTensor.from_row_splits(arrays.pop(f"{name} values"), splits)
    return packed, lengths, full_lengths


def _write(path: str, rows: TokenizedExamples) -> None:
    arrays: dict[str, Any] = {"lengths": rows.lengths, "full_lengths": rows.full_lengths}
    for name, value in rows.packed.items():
        arrays[f"{name} values"] = value.values.numpy()
        arrays[f"{name} splits"] = value.row_splits.numpy()
    with replaced_file(path) as file:
        np.savez(file, **arrays)
