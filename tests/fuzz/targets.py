"""What is fuzzed: functions of bytes that end in a result or in one of our own errors."""

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tf_finetune.classification.config import Config
from tf_finetune.classification.record import problem_from_record
from tf_finetune.data.blocks import read_block, split_files
from tf_finetune.data.facts import describe
from tf_finetune.data.file_format import find_format
from tf_finetune.data.label_cells import parse_list
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import load_data
from tf_finetune.data.readers import read_file, read_label_names
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig
from tf_finetune.runs.flags import parse_flags
from tf_finetune.runs.model_dir import ModelDir

# In memory where there is such a folder: thousands of files are written.
FOLDER = Path(
    tempfile.mkdtemp(prefix="fuzz.", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
)


def _write(name: str, data: bytes) -> str:
    path = FOLDER / name
    path.write_bytes(data)
    return str(path)


def _rows(name: str, prefix: bytes = b"") -> Callable[[bytes], None]:
    return lambda data: list(read_file(_write(name, prefix + data))).clear()


def _load(
    name: str, prefix: bytes, files: Mapping[str, Any] = {}, **labels: Any
) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        config = DataConfig(train_file=_write(name, prefix + data), **files)
        found = load_data(config, LabelConfig(text_columns=("text",), **labels))
        describe(found)

    return target


def table(data: bytes) -> None:
    """A table that is read as the first byte's bits say, in files of both names."""
    choice = data[0] if data else 0
    config = DataConfig(
        field_separator=("auto", "tab", ";", "space")[choice & 3],
        quoting=("auto", "minimal", "none")[(choice >> 2) % 3],
        header=("auto", "first_row", "none")[(choice >> 4) % 3],
    )
    for name in ("table.csv", "table.tsv"):
        try:
            list(read_file(find_format(_write(name, data[1:]), config))).clear()
        except UserError:
            continue


def text_folder(data: bytes) -> None:
    """A text in the folder of a class."""
    folder = FOLDER / "texts"
    (folder / "class").mkdir(parents=True, exist_ok=True)
    (folder / "class" / "a.txt").write_bytes(data)
    list(read_file(str(folder)))


def list_cell(data: bytes) -> None:
    """A cell that may hold a list."""
    parse_list(data.decode(errors="replace"))


def labels_txt(data: bytes) -> None:
    """A list of labels."""
    read_label_names(_write("labels.txt", data))


def labels_flag(data: bytes) -> None:
    """Rows whose labels must be among those of the first line."""
    first, _, rest = data.partition(b"\n")
    names = tuple(name for name in first.decode(errors="replace").split(",") if name)
    path = _write("labelled.tsv", b"text\tlabel\n" + rest)
    load_data(DataConfig(train_file=path), LabelConfig(label_names=names))


def flagfile(data: bytes) -> None:
    """A file of flags."""
    parse_flags(Config, ["run_classifier.py", f"--flagfile={_write('flags.cfg', data)}"])


def arguments(data: bytes) -> None:
    """A command line."""
    parse_flags(Config, ["run_classifier.py", *data.decode(errors="replace").split()])


def config_json(data: bytes) -> None:
    """The record of an earlier run."""
    _write("config.json", data)
    model_dir = ModelDir(str(FOLDER))
    config, learnt = model_dir.load(Config)
    problem_from_record(model_dir, config, learnt)


def blocks(data: bytes) -> None:
    """A file of lines and one of records, in blocks of as many bytes as the first byte says."""
    size = data[0] + 1 if data else 1
    for name in ("blocks.jsonl", "blocks.tfrecord"):
        try:
            for block in split_files([_write(name, data[1:])], size):
                read_block(block)
        except UserError:
            continue


TARGETS: dict[str, Callable[[bytes], None]] = {
    "tsv": _rows("rows.tsv"),
    "tsv_load": _load("load.tsv", b"text\tlabel\n"),
    "csv": _rows("rows.csv"),
    "csv_load": _load("load.csv", b"text,label\n"),
    "jsonl": _rows("rows.jsonl"),
    "jsonl_load": _load("load.jsonl", b'{"text": "a", "label": '),
    "json": _rows("rows.json"),
    "json_load": _load("load.json", b'[{"text": "a", "label": "x"}, {"text": "b", "label": '),
    "table": table,
    "lists_load": _load("lists.csv", b"text,label\na,", problem_type="multi_label"),
    "vectors_load": _load(
        "vectors.jsonl", b'{"text": "a", "label": [0, 1, ', label_format="multi_hot"
    ),
    "columns_load": _load("columns.csv", b"text,a,b\nx,0,1\n", label_columns=("a", "b")),
    "ignore_load": _load("ignore.tsv", b"text\tlabel\na\tx\n", ignore_labels=("x", "-")),
    "held_out_load": _load(
        "held.tsv",
        b"text\tlabel\n" + b"".join(b"%d\t%d\n" % (n, n % 2) for n in range(40)),
        {"validation_fraction": 0.2, "test_fraction": 0.2},
    ),
    "workbook": _rows("rows.xlsx"),
    "text_folder": text_folder,
    "list_cell": list_cell,
    "gzip": _rows("rows.tsv.gz"),
    "zstd": _rows("rows.tsv.zst"),
    "xz": _rows("rows.csv.xz"),
    "parquet": _rows("rows.parquet"),
    "tfrecord": _rows("rows.tfrecord"),
    "labels_txt": labels_txt,
    "labels_flag": labels_flag,
    "flagfile": flagfile,
    "arguments": arguments,
    "config_json": config_json,
    "blocks": blocks,
}


def check(name: str, data: bytes) -> None:
    """Runs a target; raises whatever it raises but our own error."""
    try:
        TARGETS[name](data)
    except UserError as error:
        if not str(error):
            raise AssertionError("an error without a message") from error
