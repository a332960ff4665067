"""`ModelDir`: the folder of one run's model, its files, its record and its results."""

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.files import exists, is_dir, list_dir, read_bytes, remove, write_text_atomic
from tf_finetune.runs import exports
from tf_finetune.runs.config import RunConfig
from tf_finetune.runs.flags import flagfile_text
from tf_finetune.runs.paths import expand_path
from tf_finetune.runs.settings import (
    ConfigT,
    differences,
    from_record,
    replaced,
    settings,
    to_record,
)
from tf_finetune.runs.versions import package_versions

# Written atomically, so each is whole or absent.
_REPORT = ("evaluated.jsonl", "report.json", "report.html")
_ATOMIC = (
    *("config.json", "train.cfg", "labels.txt", "split.tsv", "metrics.json", "reference.npz"),
    *("predictions.tsv", "predictions.jsonl", "export", "encoder", "adapter", "saved_model"),
    *("hugging_face", "data.json", *exports.RECORDS, *exports.RUNTIMES, *_REPORT),
)
# By one of these files a folder is known to be of a run: others of its name are left alone.
_MADE = {
    "export": (exports.SAVED_MODEL, exports.HUGGING_FACE),
    "encoder": ("encoder/saved_model.pb", "hugging_face/config.json"),
    "hugging_face": (exports.CONFIG,),
    "adapter": (exports.PEFT,),
    "saved_model": (exports.SAVED_MODEL,),
    **{name: (mark,) for name, mark in exports.RUNTIMES.items()},
}
_EVENTS, _LOG = ("train", "validation"), "log.jsonl"
_CHECKPOINT = re.compile(r"(step|best)-\d+")
_OWN = (*_ATOMIC, *_EVENTS, _LOG, "checkpoints")
# The key in config.json of what the model learns; the other keys are the sections of settings.
_LEARNT = "problem"


@dataclass(frozen=True)
class ModelDir:
    """The folder of one run's model.

    Attributes:
        path: Its path, local or on one of TensorFlow's file systems; `~` is expanded.
    """

    path: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", expand_path(self.path, "model_dir"))

    def __str__(self) -> str:
        return self.path

    @property
    def config(self) -> str:
        """The run's settings and what its model learns, as JSON."""
        return self._join("config.json")

    @property
    def checkpoints(self) -> str:
        """The folder of the checkpoints."""
        return self._join("checkpoints")

    @property
    def metrics(self) -> str:
        """The results, as JSON."""
        return self._join("metrics.json")

    @property
    def reference(self) -> str:
        """What the model said of preferences before its training, as numpy arrays."""
        return self._join("reference.npz")

    @property
    def predictions(self) -> str:
        """The predictions for the test examples, as a table."""
        return self._join("predictions.tsv")

    @property
    def predictions_jsonl(self) -> str:
        """The predictions for the test examples, one JSON object a line."""
        return self._join("predictions.jsonl")

    @property
    def export(self) -> str:
        """The folder of the exported model, or of its versions."""
        return self._join("export")

    def export_of(self, version: int | None) -> str:
        """Returns the folder of a version of the exported model; None: it has no versions."""
        return os.path.join(self.export, str(version)) if version else self.export

    @property
    def encoder(self) -> str:
        """The folder of the exported encoder."""
        return self._join("encoder")

    @property
    def hugging_face(self) -> str:
        """The folder of a classifier in Hugging Face's format; a generator's is `export`."""
        return self._join("hugging_face")

    @property
    def adapter(self) -> str:
        """The folder of the exported adapter."""
        return self._join("adapter")

    @property
    def saved_model(self) -> str:
        """The folder of a generator's SavedModel; that of a classifier is `export`."""
        return self._join("saved_model")

    @property
    def log(self) -> str:
        """The training log, one JSON object a line."""
        return self._join(_LOG)

    def check_free(
        self, config: Any, differences_learnt: Callable[[dict[str, Any]], list[str]]
    ) -> None:
        """Checks that a training may write here: the folder is free, or this training's own.

        Args:
            config: The run's configuration.
            differences_learnt: Takes the record of what the model here has learnt; lists its
                differences from what the run will learn.

        Raises:
            UserError: It holds another run's model, whose differences the message lists, or files
                that no run has made.
        """
        found = [name for name in _OWN if exists(self._join(name))]
        names = list_dir(self.checkpoints)
        has_checkpoint = any(_CHECKPOINT.fullmatch(name.removesuffix(".index")) for name in names)
        results = {"metrics.json", "predictions.tsv", "predictions.jsonl", *_REPORT}
        if set(found) <= results and "versions" in self.load_metrics():
            return  # A checkpoint of others was evaluated here.
        if found and not (has_checkpoint or self._is_of_a_run()):
            raise UserError(
                f"--model_dir={self} holds {', '.join(found)}, but not of a run of ours. "
                "Choose another folder, or move these away."
            )
        if config.run.overwrite or not (has_checkpoint or "export" in found):
            return
        earlier, learnt = self.load(type(config))
        lines = [*differences(earlier, config), *differences_learnt(learnt)]
        if lines:
            remedy = (
                "Give the same flags to go on, another --model_dir, or --overwrite to replace it"
            )
            if any(field.name == "init_from" for *_, field in settings(config)):
                remedy += f"; to train this model further: --init_from={self} --model_dir=<new>"
            raise UserError(
                "\n".join([f"--model_dir={self} holds another run's model:", *lines, f"{remedy}."])
            )

    def check_export(self, run: RunConfig) -> None:
        """Checks, before its work, that a classifier's run may write its folders."""
        if run.do_export and not self._is_cleared("export", run):
            exports.check_export(self.export_of(run.export_version))
        marks = {"hugging_face": exports.CONFIG, "adapter": exports.PEFT, **exports.RUNTIMES}
        self._check_replaced(run, marks)

    def check_exports(self, run: RunConfig) -> None:
        """Checks, before its work, that a generator's run may write its three folders."""
        marks = {"export": exports.HUGGING_FACE, "adapter": exports.PEFT}
        self._check_replaced(run, {**marks, "saved_model": exports.SAVED_MODEL})

    def save(self, config: Any, learnt: Mapping[str, Any], files: Mapping[str, str]) -> None:
        """Writes the record of a run; with `overwrite` it first removes an earlier run's files.

        Versions of its export stay: a server may be reading them.

        Call it after all checks.

        Args:
            config: The run's configuration.
            learnt: A JSON object of what the model learns.
            files: Other text files of the run: name to content.
        """
        if config.run.overwrite:
            self._clear()
        # A run that is repeated from this record must not replace anything by itself.
        config = replaced(config, overwrite=False)
        record = {**to_record(config), _LEARNT: learnt}
        header = "Repeats this run: python {} --flagfile=<this file> --model_dir=<new>"
        texts = {"config.json": json.dumps(record, indent=2) + "\n", **files}
        if config.run.do_train:  # Else no command has made the model.
            texts["train.cfg"] = flagfile_text(config, header.format(config.program))
        for name, text in texts.items():
            write_text_atomic(self._join(name), text)

    def load(self, config_class: type[ConfigT]) -> tuple[ConfigT, dict[str, Any]]:
        """Reads the record of the run that made a model.

        Args:
            config_class: The class of the run's configuration.

        Returns:
            The configuration, and the record of what was learnt.

        Raises:
            UserError: There is no model, or its `config.json` is damaged.
        """
        try:
            record = json.loads(read_bytes(self.config).decode())
            learnt = dict(record.pop(_LEARNT))
            return from_record(config_class, record), learnt
        except OSError as error:
            raise UserError(
                f"{self} holds no model: {self.config}: {error.strerror}. Give the --model_dir of "
                "an earlier run, or train one with --do_train (and --overwrite, if checkpoints are "
                "there)."
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
            raise self.damaged(error) from None

    def damaged(self, error: Exception) -> UserError:
        """Returns the error for a `config.json` whose content is wrong."""
        return UserError(f"{self.config} is damaged: {error!r}. Train again with --overwrite.")

    def of_another_program(self, program: str) -> UserError:
        """Returns the error for a model that another program than this one has made."""
        return UserError(f"{self} holds a model that {program} did not make. Give it to its own.")

    def save_metrics(self, parts: Mapping[str, Any]) -> None:
        """Adds parts (`train`, `eval`, `test`) and the versions of packages to the results."""
        metrics = self.load_metrics()
        metrics = {**metrics, **parts, "versions": package_versions()}
        write_text_atomic(self.metrics, json.dumps(metrics, indent=2, allow_nan=False) + "\n")

    def load_metrics(self) -> dict[str, Any]:
        """Returns the results so far; without a file that can be read there are none."""
        try:
            return dict(json.loads(read_bytes(self.metrics))) if exists(self.metrics) else {}
        except (ValueError, TypeError):
            print(f"warning: {self.metrics} is damaged; it is written anew.", file=sys.stderr)
            return {}

    def remove_leftovers(self) -> None:
        """Removes what killed runs have left; a folder that one had moved away is moved back."""
        atomic = "|".join(map(re.escape, (*_ATOMIC, _LOG)))
        for folder, written in ((self.path, atomic), (self.export, "[0-9]+")):
            for name in list_dir(folder):
                match = re.fullmatch(rf"\.({written})\.(old\.)?[a-z0-9_]{{8}}", name)
                if match:
                    path, target = os.path.join(folder, name), os.path.join(folder, match[1])
                    if match[2] and not exists(target) and exists(os.path.join(path, match[1])):
                        os.replace(os.path.join(path, match[1]), target)
                    remove(path)

    def _join(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _is_of_a_run(self) -> bool:
        try:
            return _LEARNT in json.loads(read_bytes(self.config))
        except (OSError, ValueError, TypeError):
            return False

    def _is_made(self, name: str) -> bool:
        return any(exists(os.path.join(self._join(name), made)) for made in _MADE[name])

    def _check_replaced(self, run: RunConfig, marks: Mapping[str, str]) -> None:
        for name, mark in marks.items():
            if run.do_export and not self._is_cleared(name, run):
                exports.check_replaced(self._join(name), mark)

    def _is_cleared(self, name: str, run: RunConfig) -> bool:
        """Whether the folder goes with the model that the run replaces."""
        return run.do_train and run.overwrite and self._is_made(name)

    def _clear(self) -> None:
        for name in _OWN:
            path = self._join(name)
            # Without such a file it is not of a run, or holds numbered exports.
            if name in _MADE and not self._is_made(name):
                continue
            if name not in (*_EVENTS, "checkpoints"):
                remove(path)
                continue
            # Folders of these names may hold other files too.
            own = _CHECKPOINT if name == "checkpoints" else re.compile("events.out.tfevents")
            for file in list_dir(path):
                if own.match(file):
                    remove(os.path.join(path, file))
            if is_dir(path) and not list_dir(path):
                remove(path)
