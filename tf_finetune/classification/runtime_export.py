"""Writes a classifier for OpenVINO, ONNX Runtime or LiteRT, and measures what was written."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_finetune.classification.classifier import Classifier
from tf_finetune.classification.metrics import greater_is_better
from tf_finetune.classification.model import merge_adapters
from tf_finetune.classification.price import measure_speed, rows_of
from tf_finetune.classification.runtime_loader import LOADER
from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import UNSURE
from tf_finetune.data.tokenized import TokenizedRows
from tf_finetune.errors import UserError
from tf_finetune.files import replaced_directory
from tf_finetune.formats.huggingface_writer import write_json
from tf_finetune.formats.runtime_formats import FORMATS, Features
from tf_finetune.formats.tokenizer_files import special_tokens
from tf_finetune.models.precision import float32_compute
from tf_finetune.runs.exports import check_replaced

CALIBRATION_ROWS = 300  # NNCF's default.
COMPARED_ROWS = 64
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Measured:
    """What an export does on the evaluation data, asked in raw texts as its users ask it.

    Attributes:
        quantization: Of its weights.
        score: The metric by which the run's best weights were chosen.
        loss: How much less that is than the model's own, in points (hundredths).
        rows_per_second: Of all rows in batches of 32, alike long ones together.
        milliseconds: The median time of one row alone.
        megabytes: The size of its model's files, 10^6 bytes.
    """

    quantization: str
    score: float
    loss: float
    rows_per_second: float
    milliseconds: float
    megabytes: float


def check_runtime_export(classifier: Classifier, names: Sequence[str]) -> None:
    """Checks, before a training, that a classifier can be written in some formats.

    Raises:
        UserError: It cannot, or a package is missing.
    """
    encoder, config = classifier.encoder, classifier.config
    for name in (name for name in names if name in FORMATS):
        FORMATS[name].check_installed(name)
        if config.long_text != "truncate":
            raise UserError(
                f"--export_formats={name} does not go with --long_text={config.long_text}: what "
                "reads texts there cuts them at their end. Choose --long_text=truncate, or "
                "--export_formats=saved_model."
            )
        if encoder.mode != "native" or not hasattr(encoder.preprocessor, "tokenizer_json"):
            raise UserError(
                f"--export_formats={name}: --encoder={encoder.handle} has no tokenizer.json, by "
                "which texts become tokens there. Give an encoder in Hugging Face's format, or "
                "choose --export_formats=saved_model."
            )


@contextmanager
def token_model(classifier: Classifier) -> Iterator[Path]:
    """Yields the folder of a SavedModel from token ids to logits in float32, adapters merged in."""
    model = merge_adapters(classifier.model, classifier.encoder, classifier.problem)
    names = list(model.input)
    signature = [tf.TensorSpec([None, None], tf.int32, name) for name in names]

    @tf.function(input_signature=signature, autograph=False)
    def logits(*features: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(dict(zip(names, features, strict=True)), training=False)
        return {"logits": tf.cast(outputs, tf.float32)}

    with tempfile.TemporaryDirectory() as folder, float32_compute(model):
        module = tf.Module()
        module.logits, module.weights = logits, [v.value for v in model.variables]
        tf.saved_model.save(module, folder, signatures=logits.get_concrete_function())
        yield Path(folder)


@dataclass(frozen=True)
class RuntimeExport:
    """Exports of one classifier.

    Attributes:
        classifier: The model.
        source: Its `token_model`.
        evaluation: Labelled rows, on which an export is measured.
        metric: The name of the metric that is compared.
        calibration: Rows whose activations give their ranges in int8; None: float32.
        max_quality_loss: The most points of the metric that an export may lose.
    """

    classifier: Classifier
    source: Path
    evaluation: Examples
    metric: str
    calibration: Examples | None = None
    max_quality_loss: float = 0.5

    def write(self, name: str, directory: str) -> Measured:
        """Writes a format with what runs it on texts, and measures it.

        Args:
            name: Of `FORMATS`.
            directory: The folder; an earlier export there is replaced.

        Raises:
            UserError: The format cannot express the model, or it computes something else in
                float32, or loses too much. The folder is unchanged.
        """
        runtime = FORMATS[name]
        check_replaced(directory, runtime.mark)
        with replaced_directory(directory) as folder:
            try:
                runtime.write(self.source, folder, self._ranges)
            except Exception as error:  # Whatever a converter raises for what it cannot express.
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
                raise UserError(
                    f"--export_formats={name}: {runtime.title} cannot express this model: {reason} "
                    f"Nothing was exported there. Leave {name} out."
                ) from error
            self._write_loader(folder, name)
            measured = self._measure(folder, name)
            if not measured.loss <= self.max_quality_loss:
                raise UserError(
                    f"--export_formats={name}: {self.metric} {measured.score:.4f} in "
                    f"{measured.quantization} is {measured.loss:.2f} points less than the model's; "
                    f"--max_quality_loss={self.max_quality_loss:g}. Nothing was exported there. "
                    "Choose --quantization=none, or allow more."
                )
            (folder / "README.md").write_text(_readme(name, self.metric, measured), "utf-8")
        return measured

    @cached_property
    def _ranges(self) -> list[Features]:
        """The rows that give the ranges of int8, for all formats; empty in float32."""
        return list(self._features(self.calibration)) if self.calibration else []

    @cached_property
    def _rows(self) -> TokenizedRows:
        """The tokenized evaluation rows."""
        return self.classifier.tokenize(self.evaluation)

    @cached_property
    def _expected(self) -> float:
        """The model's own metric on them."""
        logits = self.classifier.logits(self._rows)
        return self.classifier.metrics(logits, self._rows)[self.metric]

    def _features(self, examples: Examples) -> Iterator[Features]:
        """Yields the features of some rows, each alone, without padding."""
        columns = [column[:CALIBRATION_ROWS] for column in examples.texts]
        names, classifier = list(self.classifier.model.input), self.classifier
        for texts in zip(*columns, strict=True):
            segments = [tf.constant([text]) for text in texts]
            row = classifier.encoder.preprocessor(segments, classifier.max_seq_length)
            yield {name: row[name].numpy() for name in names}

    def _write_loader(self, folder: Path, name: str) -> None:
        """Writes the tokenizer, the settings and the program that answers texts by them."""
        runtime, problem = FORMATS[name], self.classifier.problem
        text: Any = self.classifier.encoder.preprocessor
        (folder / "tokenizer.json").write_text(text.tokenizer_json, encoding="utf-8")
        settings = {
            "problem_type": problem.problem_type,
            "label_names": problem.label_names,
            "thresholds": problem.label_thresholds.tolist(),
            "temperature": problem.temperature,
            "reject_below": problem.reject_below,
            "unsure": UNSURE,
            "num_texts": len(problem.text_columns),
            "max_seq_length": self.classifier.max_seq_length,
            "pad_token": special_tokens(text)["pad_token"],
            "inputs": list(self.classifier.model.input),
        }
        write_json(folder / "classifier.json", settings)
        program = LOADER.replace("{needs}", runtime.needs).replace("{session}", runtime.session)
        (folder / "classify.py").write_text(program, encoding="utf-8")

    def _measure(self, folder: Path, name: str) -> Measured:
        ask, rows = load_logits(folder), rows_of(self.evaluation)
        if self.calibration is None:
            self._compare(name, ask(rows[:COMPARED_ROWS]))
        logits, speed, milliseconds = measure_speed(ask, rows)
        score = self.classifier.metrics(logits, self._rows)[self.metric]
        sign = 1 if greater_is_better(self.metric) else -1
        stem = Path(FORMATS[name].mark).stem
        return Measured(
            quantization="float32" if self.calibration is None else "int8",
            score=score,
            loss=100 * sign * (self._expected - score),
            rows_per_second=speed,
            milliseconds=milliseconds,
            megabytes=sum(file.stat().st_size for file in folder.glob(f"{stem}.*")) / 1e6,
        )

    def _compare(self, name: str, found: np.ndarray) -> None:
        """Raises a UserError if the first logits are not the model's."""
        run = tf.saved_model.load(str(self.source)).signatures["serving_default"]
        columns = [column[: len(found)] for column in self.evaluation.texts]
        length, text = self.classifier.max_seq_length, self.classifier.encoder.preprocessor
        features = text([tf.constant(column) for column in columns], length)
        inputs = {key: features[key] for key in self.classifier.model.input}
        expected = run(**inputs)["logits"].numpy()
        difference = float(np.max(np.abs(found - expected)))
        # Written so that NaN fails too.
        if not difference <= TOLERANCE * max(1.0, float(np.max(np.abs(expected)))):
            raise UserError(
                f"--export_formats={name}: what was written computes something else: logits differ "
                f"by up to {difference:.3g}, allowed is {TOLERANCE:g}. Nothing was exported there."
            )


def load_logits(folder: Path) -> Callable[[Sequence[Any]], np.ndarray]:
    """Returns the function `logits` of an export's `classify.py`, which takes texts or pairs."""
    path = folder / "classify.py"
    module: dict[str, Any] = {"__name__": "classify", "__file__": str(path)}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module)  # Leaves no cache.
    return module["logits"]


def measured_table(metric: str, found: Mapping[str, Measured]) -> str:
    """Writes a Markdown table of exports by their names."""
    lines = [f"| | {metric} | points lost | rows/s | ms a row | MB |", "| --- " * 6 + "|"]
    lines += [
        f"| {FORMATS[name].title}, {one.quantization} | {one.score:.4f} | {one.loss:.2f} | "
        f"{one.rows_per_second:.0f} | {one.milliseconds:.1f} | {one.megabytes:.1f} |"
        for name, one in found.items()
    ]
    return "\n".join(lines)


def to_results(found: Mapping[str, Measured]) -> dict[str, dict[str, Any]]:
    """Returns what the results file keeps of exports."""
    return {name: asdict(one) for name, one in found.items()}


def _readme(name: str, metric: str, measured: Measured) -> str:
    runtime = FORMATS[name]
    return f"""\
# A classifier for {runtime.title}

    pip install numpy {runtime.needs}
    python classify.py "a text"

In Python: `from classify import answer`, then `answer(["a text", "another"])`; a pair of texts is a
tuple. Measured on the evaluation data where it was made, from raw texts to logits:

{measured_table(metric, {name: measured})}
"""
