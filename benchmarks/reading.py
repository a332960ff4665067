r"""Reading, checking and encoding 1 million labelled rows: time and peak memory of each format.

    python -m benchmarks.reading --data_dir=<folder with banking77/>
    python -m benchmarks.reading --data_dir=<folder> --compare_with=<another checkout>

Writes banking77's rows again and again as CSV, TSV, JSONL and Parquet. Each file is read whole by
`load_data` in a process of its own; with `--compare_with` the two checkouts take turns.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
KINDS = ("csv", "tsv", "jsonl", "parquet")
PROGRAM = """
import json, resource, sys, time
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import load_data
from tf_finetune.runs.config import DataConfig
data = DataConfig(train_file=sys.argv[1], streaming="false")
wall, processor = time.perf_counter(), time.process_time()
train = load_data(data, LabelConfig()).train
wall, processor = time.perf_counter() - wall, time.process_time() - processor
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([len(train), len(set(train.labels.tolist())), wall, processor, peak]))
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compare_with", type=Path, help="the root of another checkout")
    arguments = parser.parse_args(argv)
    checkouts = {"this": REPOSITORY}
    if arguments.compare_with:
        checkouts["other"] = arguments.compare_with.resolve()
    with tempfile.TemporaryDirectory() as folder:
        print("| file | MB | checkout | seconds | processor seconds | peak memory, MiB |")
        print("| --- | --- | --- | --- | --- | --- |")
        for kind in KINDS:
            path = Path(folder) / f"train.{kind}"
            write(path, arguments.data_dir / "banking77" / "train.csv", arguments.rows)
            found: dict[str, list[list[float]]] = {name: [] for name in checkouts}
            for _ in range(arguments.rounds):
                for name, root in checkouts.items():
                    found[name].append(read(path, root, arguments.rows))
            for name, results in found.items():
                wall, processor, peak = map(statistics.median, zip(*results, strict=True))
                size = path.stat().st_size / 1e6
                print(
                    f"| {kind} | {size:.0f} | {name} | {wall:.2f} | {processor:.2f} | {peak:.0f} |"
                )
            path.unlink()


def write(path: Path, source: Path, rows: int) -> None:
    """Writes a file of so many rows, those of the source again and again, each text numbered."""
    with source.open(encoding="utf-8", newline="") as file:
        given = [
            (f"{row['text']} {number}".replace("\t", " ").replace("\n", " "), row["category"])
            for number, row in enumerate(csv.DictReader(file))
        ]
    table = (given * (rows // len(given) + 1))[:rows]
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        texts, labels = zip(*table, strict=True)
        pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": labels}), path)
        return
    with path.open("w", encoding="utf-8", newline="") as out:
        if path.suffix == ".jsonl":
            out.writelines(json.dumps({"text": t, "label": c}) + "\n" for t, c in table)
        elif path.suffix == ".tsv":
            out.writelines(f"{t}\t{c}\n" for t, c in [("text", "label"), *table])
        else:
            csv.writer(out).writerows([("text", "label"), *table])


def read(path: Path, root: Path, rows: int) -> list[float]:
    """Returns seconds, processor seconds and peak memory of a process that reads the file."""
    command = [sys.executable, "-c", PROGRAM, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=root, env=environment
    )
    number, labels, *measured = json.loads(done.stdout.splitlines()[-1])
    assert number == rows and labels > 1
    return list(measured)


if __name__ == "__main__":
    main()
