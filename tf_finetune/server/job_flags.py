"""A job becomes a command: the flags of `run_generator.py` or `run_classifier.py`."""

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from tf_finetune.classification.config import Config as ClassifierConfig
from tf_finetune.data.plan import count_steps
from tf_finetune.errors import UserError
from tf_finetune.formats.families import FAMILIES
from tf_finetune.formats.handles import find_kind, local_path, read_object
from tf_finetune.formats.language_models import read_language_model
from tf_finetune.generation.config import Config as GeneratorConfig
from tf_finetune.generation.config import with_rate_of_method
from tf_finetune.runs.flags import flagfile_text
from tf_finetune.runs.settings import replaced
from tf_finetune.server.store import Job

Kind = Literal["generator", "classifier"]
_MODULES = {
    "generator": "tf_finetune.generation.command",
    "classifier": "tf_finetune.classification.command",
}
# Adapters are small: those of every epoch are kept. Checkpoints of encoders hold all weights.
_KEPT = {"generator": 1000, "classifier": 3}
# A training of more steps is logged at so many of them.
_MOST_POINTS = 1000


@dataclass(frozen=True)
class JobFolder:
    """The folder of a job: its data, its command, and the model directory of its training.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def model_dir(self) -> Path:
        """The model directory."""
        return self.path / "model"

    @property
    def log(self) -> Path:
        """The training log, one JSON object a line."""
        return self.model_dir / "log.jsonl"

    @property
    def flagfile(self) -> Path:
        """The flags of the command."""
        return self.path / "job.cfg"

    @property
    def output(self) -> Path:
        """What the command printed."""
        return self.path / "output.txt"

    @property
    def lock(self) -> Path:
        """The file that is locked while the command runs."""
        return self.path / "lock"

    def data(self, param: str) -> Path:
        """Returns the data that the job learns, `training_file`, or is evaluated on."""
        return self.path / f"{param}.jsonl"


@cache
def kind_of(handle: str) -> Kind:
    """Returns which program trains a base model.

    Args:
        handle: The base's.

    Raises:
        UserError: It is neither a language model nor an encoder.
    """
    try:
        read_language_model(handle)
        return "generator"
    except UserError as refusal:
        if handle.startswith("hf://"):  # Of an encoder the training itself reads the files.
            return "classifier"
        try:
            path = local_path(handle, "models")
        except UserError:
            raise refusal from None
        if path is None or not find_kind(path):
            raise
        config = path / "config.json"
        if config.is_file() and read_object(config).get("model_type") in FAMILIES:
            raise
        return "classifier"


def flags_of(job: Job, folder: JobFolder, init_from: JobFolder | None) -> str:
    """Returns the flagfile of a job's command.

    Args:
        job: A job whose files were read.
        folder: Its folder.
        init_from: That of the job whose model is trained further; None: the base.
    """
    numbers = job.hyperparameters
    has_validation = folder.data("validation_file").exists()
    values: dict[str, Any] = {
        "train_file": str(folder.data("training_file")),
        "validation_file": str(folder.data("validation_file")) if has_validation else None,
        "model_dir": str(folder.model_dir),
        "do_train": True,
        "num_train_epochs": float(numbers["n_epochs"]),
        "train_batch_size": numbers["batch_size"],
        "seed": job.seed,
        # As OpenAI's: the model of the last step, and those of the epochs beside it.
        "load_best_model_at_end": False,
        "keep_checkpoint_max": _KEPT[job.kind or "generator"],
        "log_steps": max(1, total_steps(job) // _MOST_POINTS),
        "init_from": str(init_from.model_dir) if init_from else None,
    }
    base = None if init_from else job.handle
    config: Any
    if job.kind == "classifier":
        values |= {"text_columns": ("prompt",), "label_column": "completion"}
        config = replaced(ClassifierConfig(), encoder=base, problem_type="single_label", **values)
    else:
        method = "dpo" if job.method == "dpo" else "sft"
        if "beta" in numbers:
            values["beta"] = numbers["beta"]
        config = replaced(GeneratorConfig(), model=base, method=method, **values)
        config = with_rate_of_method(config, ())
    rate = config.optimizer.learning_rate * numbers["learning_rate_multiplier"]
    return flagfile_text(replaced(config, learning_rate=rate), f"The training of {job.id}.")


def total_steps(job: Job) -> int:
    """Returns the optimizer steps of a job whose files were read."""
    numbers = job.hyperparameters
    return count_steps(numbers["num_examples"], numbers["batch_size"], numbers["n_epochs"])


def command_of(job: Job, folder: JobFolder) -> list[str]:
    """Returns the command that trains a job's model, and that goes on after a stop."""
    module = _MODULES[job.kind or "generator"]
    return [sys.executable, "-P", "-m", module, f"--flagfile={folder.flagfile}"]
