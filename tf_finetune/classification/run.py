"""One run of a classifier, in order: model, training, evaluation, predictions, export."""

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from tf_finetune.classification.auto import choose
from tf_finetune.classification.calibrate import calibrate, save_calibration
from tf_finetune.classification.classifier import Classifier
from tf_finetune.classification.config import Config
from tf_finetune.classification.distill import (
    Answers,
    ask_teacher,
    learning,
    teacher_record,
    with_answers,
)
from tf_finetune.classification.export_formats import check_exports, evaluation_of, write_exports
from tf_finetune.classification.load import make_classifier, restore_classifier
from tf_finetune.classification.metrics import check_metric_name
from tf_finetune.classification.predict import to_predictions
from tf_finetune.classification.predictions import write_evaluated, write_predictions
from tf_finetune.classification.prepare import Request, can_be_evaluated
from tf_finetune.classification.price import price_of, price_table, save_prices
from tf_finetune.classification.record import save_run, split_record
from tf_finetune.classification.summary import example_predictions, next_steps, results_table
from tf_finetune.classification.tokenize import ExampleTokenizer
from tf_finetune.data.batches import Batches, plan_batches
from tf_finetune.data.facts import describe_lengths
from tf_finetune.data.facts_file import write_facts
from tf_finetune.data.labelled import Examples, TextData
from tf_finetune.data.report import length_report
from tf_finetune.data.streamed_batches import stream_batches
from tf_finetune.data.tokenized import TokenizedRows
from tf_finetune.formats.runtime_formats import FORMATS
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.report import report_files
from tf_finetune.runs.settings import replaced, to_record
from tf_finetune.runtime.hardware import Runtime, make_runtime
from tf_finetune.runtime.interrupt import Interrupted
from tf_finetune.runtime.workers import run_in_workers
from tf_finetune.training.fit import check_batch_size
from tf_finetune.training.progress import write_text_summary


def run(request: Request) -> int:
    """Trains, evaluates, predicts and exports, as the request says.

    Returns:
        The exit status: 0; 128 + a signal's number if that stopped the training; 1 if the
        connection to another worker is lost.

    Raises:
        UserError: The encoder, a flag or a checkpoint cannot be used.
    """

    def work() -> int:
        runtime = make_runtime(request.config.runtime)
        print(runtime.description)
        status = _run(request, runtime)
        runtime.workers.wait()  # A worker that ends while the chief writes breaks the connection.
        return status

    return run_in_workers(request.config.runtime, work)


def _run(request: Request, runtime: Runtime) -> int:
    config, model_dir, data = request.config, request.model_dir, request.data
    metric = config.loop.metric_for_best_model or data.metric_for_best_model
    check_metric_name(metric, data.problem)
    is_chief = runtime.workers.is_chief
    if config.run.do_train or config.encoder.init_from:
        classifier = make_classifier(config, data, runtime)
    else:
        classifier, path = restore_classifier(model_dir, config, data.problem, runtime)
        print(f"weights    {path}")
    if config.run.do_export:
        check_exports(classifier, config, data)
    rows, facts = _tokenize(classifier, request)
    answers = None
    if config.run.do_train:
        request = _with_choices(request, classifier, rows["train"])
        config = request.config
        try:
            answers = _train(classifier, rows, facts, request, metric)
        except Interrupted as interrupted:
            print(interrupted, file=sys.stderr)
            return 128 + interrupted.signum
    known, held_out = {}, data.validation
    has_calibration = data.problem.problem_type == "single_label" or config.labels.tune_thresholds
    if config.run.do_train and has_calibration and held_out and can_be_evaluated(held_out):
        known["validation"] = classifier.logits(rows["validation"], config.data.eval_batch_size)
        assert held_out.labels is not None
        classifier = _calibrate(classifier, known["validation"], held_out.labels, model_dir)
    if config.run.do_eval:
        print(results_table(_evaluate(classifier, rows, request, known)))
    if config.run.do_predict:
        _predict(classifier, rows, data, model_dir, config.data.predict_batch_size)
    if config.run.do_export and is_chief:
        write_exports(classifier, request)
    if measured := _measured(request, runtime):
        teacher = answers.price if answers else None
        logits = known.get("validation") if measured is data.validation else None
        own = price_of(classifier, measured, metric, logits=logits)
        prices = save_prices(model_dir, own, teacher, metric)
        print(price_table(metric, prices))
    has_saved_model = config.run.do_export and "saved_model" in config.encoder.export_formats
    exported = model_dir.export_of(config.run.export_version) if has_saved_model else None
    checkpoint = None if config.run.do_train else config.encoder.init_from
    print(next_steps(model_dir, exported, checkpoint))
    return 0


def _with_choices(request: Request, classifier: Classifier, rows: TokenizedRows) -> Request:
    """Chooses the settings that are left to the program, and says what they are."""
    config, stream = request.config, request.data.stream
    num_rows = stream.rows_for(config.loop.max_steps) if stream else len(rows)
    config, told = choose(config, request.auto, classifier, num_rows)
    for line in told:
        print(line)
    return dataclasses.replace(request, config=config, auto=frozenset())


def _train(
    classifier: Classifier,
    rows: dict[str, TokenizedRows],
    facts: Mapping[str, Any],
    request: Request,
    metric: str,
) -> Answers | None:
    """Trains the model, on its teacher's answers too; returns these, if there is a teacher."""
    config, model_dir, data = request.config, request.model_dir, request.data
    runtime, is_chief = classifier.runtime, classifier.runtime.workers.is_chief
    files, answers = split_record(data), None
    lesson: AbstractContextManager[None] = nullcontext()
    if request.teacher and (examples := data.trained_on):
        measured = _measured(request, runtime)
        answers = ask_teacher(request.teacher, examples, measured, metric, config.data, runtime)
        rows["train"] = with_answers(rows["train"], answers)
        files |= teacher_record(model_dir, answers, config.run.overwrite) if is_chief else {}
        lesson = learning(classifier, config.distillation)
    if is_chief:
        # What auto has become, and the commit: later the encoder's folder may be another.
        names = ("pooling", "head", "encoder")
        config = replaced(config, **{n: getattr(classifier.config, n) for n in names})
        save_run(model_dir, config, data.problem, files)
        if config.report.do_report:
            write_facts(report_files(model_dir).facts, facts)
        write_text_summary(model_dir, "config", json.dumps(to_record(config), indent=2))
    check_batch_size(config.data, config.loop, runtime, data.stream is not None)
    with lesson:
        classifier.fit(
            _batches(config, data, classifier, rows["train"]),
            config.optimizer,
            loop=config.loop,
            validation=rows["validation"] if can_be_evaluated(data.validation) else None,
            metric=metric,
            model_dir=model_dir,
            eval_batch_size=config.data.eval_batch_size,
        )
    return answers


def _measured(request: Request, runtime: Runtime) -> Examples | None:
    """Returns the rows that tell what answers cost, if there is more than one model to compare."""
    run, formats = request.config.run, set(request.config.encoder.export_formats)
    several = (run.do_eval and request.teacher) or (run.do_export and formats & set(FORMATS))
    alone = runtime.num_replicas == 1 and not runtime.workers.is_multi_worker
    return evaluation_of(request.data) if several and alone else None


def _tokenize(
    classifier: Classifier, request: Request
) -> tuple[dict[str, TokenizedRows], dict[str, Any]]:
    """Returns the rows of each split, and what is known of the data."""
    encoder, config = classifier.encoder, request.config
    print(f"encoder    {encoder.handle}, {encoder.mode}, hidden size {encoder.hidden_size}")
    if encoder.lora:
        trained, every = (
            sum(math.prod(weight.shape) for weight in weights)
            for weights in (classifier.model.trainable_weights, classifier.model.weights)
        )
        print(f"adapters   rank {encoder.lora.rank}, {trained:,} of {every:,} weights are trained")
    cache_dir = config.data.tokenized_cache_dir
    splits = request.data.splits
    if config.run.do_train and (trained_on := request.data.trained_on):
        splits["train"] = trained_on
    rows = {name: classifier.tokenize(split, cache_dir) for name, split in splits.items()}
    full_lengths = {split: part.full_lengths for split, part in rows.items()}
    lengths = describe_lengths(
        full_lengths,
        classifier.max_seq_length,
        long_text=None if encoder.takes_text else classifier.config.long_text,
        encoder_length=encoder.max_seq_length,
    )
    print(length_report(lengths), flush=True)
    facts = {**request.facts, "lengths": lengths}
    if config.run.data_report and classifier.runtime.workers.is_chief:
        write_facts(config.run.data_report, facts)
    return rows, facts


def _batches(
    config: Config, data: TextData, classifier: Classifier, rows: TokenizedRows
) -> Batches:
    size, seed = config.data.train_batch_size, config.runtime.seed
    if data.stream is None:
        return plan_batches(rows, size, config.loop, seed=seed)
    tokenizer = ExampleTokenizer(
        data.read,
        classifier.encoder.preprocessor,
        classifier.max_seq_length,
        classifier.config.long_text,
    )
    return stream_batches(data.stream, tokenizer, rows, size, config.loop, seed)


def _calibrate(
    classifier: Classifier, logits: np.ndarray, labels: np.ndarray, model_dir: ModelDir
) -> Classifier:
    """Finds temperature or thresholds on labelled rows, keeps them with the model, says so."""
    problem, told = calibrate(logits, labels, classifier.problem)
    print(f"{told} on validation")
    if classifier.runtime.workers.is_chief:
        save_calibration(model_dir, problem)
    calibrated = dataclasses.replace(classifier, problem=problem)
    vars(calibrated)["forward"] = classifier.forward  # Not to trace it again.
    return calibrated


def _evaluate(
    classifier: Classifier,
    rows: dict[str, TokenizedRows],
    request: Request,
    known: Mapping[str, np.ndarray],
) -> dict[str, dict[str, Any]]:
    """Writes the metrics and, for the report, the predictions for the last split evaluated.

    Args:
        classifier: The model.
        rows: Of each split.
        request: Of the run.
        known: Logits of splits that are known already.
    """
    config, model_dir, splits = request.config, request.model_dir, request.data.splits
    results = {}
    for part, split in (("eval", "validation"), ("test", "test")):
        if can_be_evaluated(splits.get(split)):
            logits = known.get(split)
            if logits is None:
                logits = classifier.logits(rows[split], config.data.eval_batch_size)
            results[part] = classifier.metrics(logits, rows[split])
            if config.report.do_report and classifier.runtime.workers.is_chief:
                # What it would have said, refused or not: errors are counted over all rows.
                problem = dataclasses.replace(classifier.problem, reject_below=0.0)
                predictions = to_predictions(logits, problem)
                write_evaluated(model_dir, predictions, splits[split], problem, split)
    if classifier.runtime.workers.is_chief:
        model_dir.save_metrics(results)
    return results


def _predict(
    classifier: Classifier,
    rows: dict[str, TokenizedRows],
    data: TextData,
    model_dir: ModelDir,
    batch_size: int,
) -> None:
    split = "test" if "test" in rows else "validation"
    examples, problem = data.splits[split], classifier.problem
    predictions = to_predictions(classifier.logits(rows[split], batch_size), problem)
    if classifier.runtime.workers.is_chief:
        write_predictions(model_dir, predictions, examples, problem)
    print(
        f"predictions of {len(predictions)} {split} examples are in {model_dir.predictions} and "
        f"{model_dir.predictions_jsonl}, e.g."
    )
    print(example_predictions(examples.texts, predictions, problem))
