r"""Times our int8 export for OpenVINO beside one that is made of the same weights by PyTorch.

    python run_classifier.py --model_dir=out --do_export --quantization=int8 \
        --export_formats=hugging_face,openvino
    .venv-bench/bin/python -m benchmarks.exports --model_dir=out --file=test.tsv \
        --text_columns=sentence1,sentence2 --label_column=label

The peer is what optimum does: transformers' model is traced, and quantized by NNCF with ranges of
texts. Both answer the same texts in the same batches, in turn, from one tokenizer.
"""

import argparse
import csv
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Logits = Callable[[Sequence[Any]], np.ndarray]
CALIBRATION_ROWS, LATENCY_ROWS = 300, 200


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_dir", type=Path, required=True)
    parser.add_argument("--file", type=Path, required=True, help="a .tsv file with labels")
    parser.add_argument("--text_columns", required=True, help="comma-separated")
    parser.add_argument("--label_column", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args(argv)
    with arguments.file.open(encoding="utf-8") as file:
        table = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    names = arguments.text_columns.split(",")
    rows = [tuple(row[name] for name in names) if names[1:] else row[names[0]] for row in table]
    labels = [row[arguments.label_column] for row in table]
    contenders = {
        "ours": load(arguments.model_dir / "openvino"),
        "theirs": load(arguments.model_dir / "openvino", peer(arguments.model_dir, rows)),
    }
    settings = json.loads((arguments.model_dir / "openvino" / "classifier.json").read_text())
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    accuracy = {}
    for _ in range(arguments.rounds):
        for name, ask in contenders.items():
            logits, rate, milliseconds = measure(ask, rows)
            found[name].append((rate, milliseconds))
            said = [settings["label_names"][index] for index in logits.argmax(axis=1)]
            accuracy[name] = float(np.mean([a == b for a, b in zip(said, labels, strict=True)]))
    print("| OpenVINO, int8 | accuracy | rows/s | ms a row |\n| --- | --- | --- | --- |")
    for name, rounds in found.items():
        rate, milliseconds = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(f"| {name} | {accuracy[name]:.4f} | {rate:.0f} | {milliseconds:.1f} |")
    return 0


def load(folder: Path, run: Callable[[dict[str, np.ndarray]], np.ndarray] | None = None) -> Logits:
    """Returns `logits` of an export's `classify.py`, of another network if one is given."""
    path = folder / "classify.py"
    module: dict[str, Any] = {"__name__": "classify", "__file__": str(path)}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module)
    if run is not None:
        module["run"] = run
    return module["logits"]


def peer(model_dir: Path, rows: Sequence[Any]) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Returns the network of transformers in OpenVINO's int8, as `classify.py` calls it."""
    import nncf
    import openvino
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForSequenceClassification

    tokenizer = Tokenizer.from_file(str(model_dir / "openvino" / "tokenizer.json"))
    names = ("input_ids", "attention_mask", "token_type_ids")

    def features(row: Any) -> dict[str, np.ndarray]:
        encoded = tokenizer.encode(*(row if isinstance(row, tuple) else (row,)))
        values = (encoded.ids, encoded.attention_mask, encoded.type_ids)
        return {
            name: np.array([value], np.int64) for name, value in zip(names, values, strict=True)
        }

    network = AutoModelForSequenceClassification.from_pretrained(model_dir / "hugging_face").eval()
    example = {name: torch.tensor(value) for name, value in features(rows[0]).items()}
    model = openvino.convert_model(network, example_input=example)
    calibration = nncf.Dataset([features(row) for row in rows[:CALIBRATION_ROWS]])
    quantized = nncf.quantize(model, calibration, model_type=nncf.ModelType.TRANSFORMER)
    compiled = openvino.Core().compile_model(quantized, "CPU")
    ours = ("input_word_ids", "input_mask", "input_type_ids")

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        return compiled(
            {there: inputs[here].astype(np.int64) for there, here in zip(names, ours, strict=True)}
        )[0]

    return run


def measure(ask: Logits, rows: Sequence[Any]) -> tuple[np.ndarray, float, float]:
    """Returns the logits, rows per second, and the median milliseconds of one row alone."""
    ask(rows[:64])
    started = time.perf_counter()
    logits = ask(rows)
    rate, times = len(rows) / (time.perf_counter() - started), []
    for row in rows[:LATENCY_ROWS]:
        started = time.perf_counter()
        ask([row])
        times.append(time.perf_counter() - started)
    return logits, rate, 1e3 * statistics.median(times)


if __name__ == "__main__":
    raise SystemExit(main())
