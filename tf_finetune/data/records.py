"""Rows from binary formats. Their libraries are imported when such data are read, not before."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tf_finetune.data.blocks import read_records
from tf_finetune.errors import UserError
from tf_finetune.files import open_file


def read_parquet(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads the rows of a Parquet file.

    Yields:
        `file:row N`, counted from 1, and the values by column.

    Raises:
        UserError: Not a Parquet file.
    """
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with open_file(path) as stream, pyarrow.parquet.ParquetFile(stream) as file:
            schema = file.schema_arrow
            twice = [name for name in schema.names if schema.names.count(name) > 1]
            if twice:
                raise UserError(f"{path}: two columns are named {twice[0]!r}. Rename one.")
            classes = _class_labels(schema.metadata)
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    for name in classes.keys() & row.keys():
                        row[name] = _class_names(row[name], classes[name], f"{path}:row {number}")
                    yield f"{path}:row {number}", row
    # Of a value that Python cannot hold, such as a date in the year 300,000, ValueError and others.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: cannot be read as Parquet ({error}).") from None


def parquet_class_names(path: str) -> dict[str, tuple[str, ...]]:
    """Returns the class names that Hugging Face's `datasets` wrote into a Parquet file's schema.

    Returns:
        For each column of a `ClassLabel`, or of lists of them, the names in order of their index.

    Raises:
        UserError: Not a Parquet file.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with open_file(path) as stream:
            return _class_labels(pyarrow.parquet.read_schema(stream).metadata)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as Parquet ({error}).") from None


def _class_labels(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Finds the features of type `ClassLabel`, as `datasets.Features.to_dict` describes them."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        found = {}
        for column, feature in features.items():
            # Lists are {"feature": ..., "_type": "Sequence" or "List"} or [...].
            while isinstance(feature, list) or "feature" in feature:
                feature = feature[0] if isinstance(feature, list) else feature["feature"]
            if feature.get("_type") == "ClassLabel" and feature.get("names"):
                found[column] = tuple(map(str, feature["names"]))
        return found
    # It is only a description, which other programs write too.
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}


def read_tfrecord(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads the `tf.train.Example` records of a TFRecord file.

    Yields:
        `file:record N`, counted from 1, and the features by name: bytes, int or float, and a list
        of these where a feature does not hold exactly one value.

    Raises:
        UserError: Not a TFRecord file, or not of `tf.train.Example`.
    """
    for number, record in enumerate(read_records(path), 1):
        location = f"{path}:record {number}"
        yield location, parse_example(record.data, location)


def parse_example(record: bytes, location: str) -> dict[str, Any]:
    """Returns the features of a `tf.train.Example` by name; see `read_tfrecord`.

    Raises:
        UserError: It is not one.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{location}: not a tf.train.Example ({reason}).") from None
    row = {}
    for name, feature in features.items():
        list_name = feature.WhichOneof("kind")
        values = list(getattr(feature, list_name).value) if list_name else []
        row[name] = values[0] if len(values) == 1 else values
    return row


@dataclass(frozen=True)
class TfdsLayout:
    """A TensorFlow data set on disk.

    Attributes:
        tables: For each split a function that reads it from its first row.
        text_columns: Its text features by alphabet, if there are one or two.
        label_column: Its class label, if there is one.
        label_names: The names of its classes.
    """

    tables: dict[str, Callable[[], Iterator[tuple[str, dict[str, Any]]]]]
    text_columns: tuple[str, ...]
    label_column: str | None
    label_names: tuple[str, ...]


def open_tfds(name: str, data_dir: str | None) -> TfdsLayout:
    """Opens a data set in the format of TensorFlow Datasets that has been prepared on disk.

    Args:
        name: As in `glue/mrpc`.
        data_dir: Folder of prepared data sets; None: `~/tensorflow_datasets`.

    Raises:
        UserError: Not known, or not prepared. Nothing is downloaded: without a network a download
            takes minutes to fail.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        raise UserError(
            f"--tfds_name={name}: not a data set in {data_dir or '~/tensorflow_datasets'}, nor "
            f"one that TensorFlow Datasets knows. {str(error).splitlines()[0]}"
        ) from None
    if not builder.is_prepared():
        flag = f" --data_dir={data_dir}" if data_dir else ""
        raise UserError(
            f"--tfds_name={name}: not prepared in {builder.data_path}. Run `tfds build {name}"
            f"{flag}` where there is a network, and name the folder in --tfds_data_dir."
        )
    features = dict(builder.info.features)
    # The order of features differs from run to run.
    texts = sorted(key for key, value in features.items() if isinstance(value, tfds.features.Text))
    classes = {}
    for key, value in features.items():
        value = getattr(value, "feature", value)  # the elements of a Sequence
        if isinstance(value, tfds.features.ClassLabel):
            classes[key] = tuple(value.names)
    label_column = next(iter(classes)) if len(classes) == 1 else None
    tables: dict[str, Callable[[], Iterator[tuple[str, dict[str, Any]]]]] = {}
    for split in ("train", "validation", "test"):
        # glue/mnli has validation_matched and validation_mismatched.
        found = next((key for key in sorted(builder.info.splits) if key.startswith(split)), None)
        if found:
            tables[split] = partial(_read_tfds, builder, found, classes)
    return TfdsLayout(
        tables,
        tuple(texts) if len(texts) <= 2 else (),
        label_column,
        classes.get(label_column or "", ()),
    )


def _read_tfds(
    builder: Any, split: str, classes: dict[str, tuple[str, ...]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    for example in builder.as_dataset(split=split, shuffle_files=False).as_numpy_iterator():
        row = {
            name: value.tolist() if hasattr(value, "tolist") else value
            for name, value in example.items()
        }
        for name, names in classes.items():
            row[name] = _class_names(row[name], names, f"{builder.info.full_name}/{split}")
        number += 1
        yield f"{builder.info.full_name}/{split}:{number}", row
    if not number:
        raise UserError(f"{builder.info.full_name}: the split {split} is empty.")


def _class_names(value: Any, names: Sequence[str], location: str) -> Any:
    """Replaces indices by names; -1, a label that was not published, becomes None."""
    if isinstance(value, list):
        parts = [_class_names(part, names, location) for part in value]
        return None if parts and parts.count(None) == len(parts) else parts
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        return value
    value = int(value)
    if value >= len(names):
        raise UserError(f"{location}: the class {value}, but the schema names {len(names)} only.")
    return names[value] if value >= 0 else None
