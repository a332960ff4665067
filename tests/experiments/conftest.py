"""Model directories of runs that were written by hand: what a report reads, without a training."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tf_finetune.classification.config import Config
from tf_finetune.classification.record import save_run
from tf_finetune.data.problem import Problem
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.report import report_files
from tf_finetune.runs.settings import replaced

Row = tuple[str, Any, dict[str, float]]


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., ModelDir]:
    """Returns what writes a classifier's run: its record, its training file, its evaluated rows."""

    def make_run(
        train: Sequence[tuple[str, str]],
        rows: Sequence[Row] = (),
        labels: Sequence[str] = ("bad", "good"),
        name: str = "out",
        **settings: Any,
    ) -> ModelDir:
        """Writes a run.

        Args:
            train: Text and label of the training rows.
            rows: Text, label and probabilities (a regression's number) of the evaluated ones.
            labels: The labels' names.
            name: The folder's name.
            settings: Of the configuration.
        """
        lines = [json.dumps({"text": text, "label": label}) for text, label in train]
        (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n")
        model_dir = ModelDir(str(tmp_path / name))
        settings = {"encoder": str(tmp_path / "no-encoder"), "do_train": True, **settings}
        config = replaced(Config(), train_file=str(tmp_path / "train.jsonl"), **settings)
        kind = config.labels.problem_type
        problem = Problem("single_label" if kind == "auto" else kind, ("text",), tuple(labels))
        save_run(model_dir, config, problem)
        found = []
        for number, (text, label, said) in enumerate(rows, start=1):
            record = {"row": number, "texts": {"text": text}, "label": label, "split": "test"}
            record["location"] = f"{tmp_path}/test.jsonl:{number}"
            if isinstance(said, dict):
                record |= {"prediction": max(said, key=said.__getitem__), "probabilities": said}
            else:
                record["prediction"] = said
            found.append(json.dumps(record))
        if found:
            Path(report_files(model_dir).evaluated).write_text("\n".join(found) + "\n")
        return model_dir

    return make_run
