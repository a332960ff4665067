"""The formats of `--do_export`: what is checked before a training, and written after it."""

import os
from collections.abc import Sequence

from tf_finetune.classification.classifier import Classifier
from tf_finetune.classification.config import Config
from tf_finetune.classification.hugging_face import find_layout
from tf_finetune.classification.hugging_face_export import export_hugging_face
from tf_finetune.classification.prepare import Request, can_be_evaluated
from tf_finetune.classification.runtime_export import (
    RuntimeExport,
    check_runtime_export,
    measured_table,
    to_results,
    token_model,
)
from tf_finetune.data.labelled import Examples, TextData
from tf_finetune.errors import UserError
from tf_finetune.formats.hub_writer import check_hub_encoder, save_hub_encoder
from tf_finetune.formats.runtime_formats import FORMATS


def check_exports(classifier: Classifier, config: Config, data: TextData) -> None:
    """Checks, before a training, that its result can be written.

    Raises:
        UserError: A format cannot express it, or a package or labelled rows are missing.
    """
    formats = config.encoder.export_formats
    if "hugging_face" in formats:
        find_layout(classifier.encoder, classifier.model)
    if "saved_model" in formats and config.encoder.export_encoder:
        check_hub_encoder(classifier.encoder)
    check_runtime_export(classifier, formats)
    if (names := set(formats) & set(FORMATS)) and evaluation_of(data) is None:
        raise UserError(
            f"--export_formats={','.join(sorted(names))}: what is written there is measured, and "
            "no file has labelled rows for that. Give --validation_file or --test_file."
        )


def evaluation_of(data: TextData) -> Examples | None:
    """Returns the rows that exports are measured on."""
    return next((part for part in (data.validation, data.test) if can_be_evaluated(part)), None)


def write_exports(classifier: Classifier, request: Request) -> None:
    """Writes all formats that a request names, and prints where."""
    config, data, model_dir = request.config, request.data, request.model_dir
    known = data.test or data.validation or data.train
    texts = (
        [column[:8] for column in known.texts] if known else [[] for _ in data.problem.text_columns]
    )
    if "saved_model" in config.encoder.export_formats:
        directory = model_dir.export_of(config.run.export_version)
        classifier.export(directory, texts)
        print(f"exported to {directory}")
        if config.encoder.export_encoder:
            save_hub_encoder(classifier.encoder, model_dir.encoder)
            print(f"exported the encoder in TF Hub format to {model_dir.encoder}")
    if "hugging_face" in config.encoder.export_formats:
        for written in export_hugging_face(classifier, request, texts):
            print(f"exported to {written}")
    if names := [name for name in config.encoder.export_formats if name in FORMATS]:
        _export_runtimes(classifier, request, names)


def _export_runtimes(classifier: Classifier, request: Request, names: Sequence[str]) -> None:
    config, model_dir, evaluation = request.config, request.model_dir, evaluation_of(request.data)
    assert evaluation is not None
    metric = config.loop.metric_for_best_model or request.data.metric_for_best_model
    with token_model(classifier) as source:
        exports = RuntimeExport(
            classifier,
            source,
            evaluation,
            metric,
            calibration=evaluation if config.encoder.quantization == "int8" else None,
            max_quality_loss=config.encoder.max_quality_loss,
        )
        found = {}
        for name in names:
            directory = os.path.join(model_dir.path, name)
            found[name] = exports.write(name, directory)
            print(f"exported to {directory}", flush=True)
    print(measured_table(metric, found))
    model_dir.save_metrics({"exports": to_results(found)})
