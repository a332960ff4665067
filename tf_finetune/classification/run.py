"""One run, in order: runtime, encoder, model, training, evaluation, predictions, export."""

import dataclasses
import functools
import os.path
import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from tqdm import tqdm

from tf_finetune.classification.classifier import build_classifier
from tf_finetune.classification.export import export
from tf_finetune.classification.losses import balanced_class_weights, constant_logits
from tf_finetune.classification.metrics import (
    check_metric_name,
    collapse_warning,
    compute_metrics,
    greater_is_better,
)
from tf_finetune.classification.predict import predict_rows, read_logits, write_predictions
from tf_finetune.classification.summary import example_predictions, next_steps, results_table
from tf_finetune.data.batches import (
    TokenizedExamples,
    count_steps,
    make_train_dataset,
    xla_buckets,
)
from tf_finetune.data.labelled import TextData
from tf_finetune.data.report import length_report
from tf_finetune.data.streamed_batches import StreamedBatches
from tf_finetune.data.tasks import Problem
from tf_finetune.data.tokenized import tokenize_cached
from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.formats.hub_writer import save_hub_encoder
from tf_finetune.runs.cluster import read_cluster, reporting
from tf_finetune.runs.config import Config, RuntimeConfig
from tf_finetune.runs.model_dir import load_run, save_metrics, save_run
from tf_finetune.runtime.hardware import (
    choose_jit_compile,
    choose_precision,
    choose_steps_per_loop,
    compile_unseen,
    make_strategy,
    set_seed,
)
from tf_finetune.runtime.interrupt import Interrupted
from tf_finetune.runtime.workers import Workers
from tf_finetune.training.checkpoints import load_weights
from tf_finetune.training.forward import make_logits_fn
from tf_finetune.training.loop import train
from tf_finetune.training.optimizer import build_optimizer, layer_rates
from tf_finetune.training.progress import write_text_summary

# What a collective operation raises where another process has ended.
CONNECTION_ERRORS = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
    tf.errors.UnknownError,
)
Evaluate = Callable[[TokenizedExamples], dict[str, Any]]


def run(config: Config, data: TextData) -> int:
    """Does what a configuration asks for.

    Args:
        config: The run, from `prepare`.
        data: Its examples.

    Returns:
        The exit status: 0; 128 + a signal's number if that stopped the training; 1 if another
        worker is gone.

    Raises:
        UserError: The encoder, a flag or a checkpoint cannot be used.
    """
    cluster = read_cluster(config.runtime.distribution_strategy, config.runtime.tpu)
    if cluster.num_workers == 1:
        strategy, jit_compile = _set_up(config.runtime)
        return _run(config, data, strategy, jit_compile, Workers(strategy))
    try:
        print(f"waiting for all {cluster.num_workers} workers of {cluster.source}", flush=True)
        strategy, jit_compile = _set_up(config.runtime)
        workers = Workers(strategy)
        with reporting(cluster):
            status = _run(config, data, strategy, jit_compile, workers)
        workers.wait()  # Else those that have nothing to write would end the connection.
        return status
    except CONNECTION_ERRORS as error:
        reason = f"{type(error).__name__}: {error.message.splitlines()[0]:.200}"
        print(
            f"error: a worker is gone or cannot be reached ({reason}). Start all workers again "
            "with the same command: the training goes on from its last checkpoint.",
            file=sys.stderr,
        )
        return 1


def _run(
    config: Config,
    data: TextData,
    strategy: tf.distribute.Strategy,
    jit_compile: bool,
    workers: Workers,
) -> int:
    runtime = config.runtime
    directory = runtime.model_dir or ""
    metric = config.train.metric_for_best_model or data.metric_for_best_model
    check_metric_name(metric, data.problem)
    with strategy.scope():
        encoder, model = make_model(config, data, jit_compile, workers)
    if jit_compile and encoder.takes_text:
        jit_compile = False
        print("XLA is off: it does not compile what this encoder does with strings")
    examples = _tokenize(config, data, encoder)

    logits_fn = make_logits_fn(model, strategy, jit_compile=jit_compile)
    buckets = xla_buckets(config.data.max_seq_length) if jit_compile else None
    threshold = config.model.threshold

    def evaluate(split: TokenizedExamples) -> dict[str, Any]:
        assert split.labels is not None
        logits = predict_rows(logits_fn, split, config.data.eval_batch_size, buckets=buckets)
        if warning := collapse_warning(logits, split.labels, data.problem, threshold=threshold):
            _warn_once(warning)
        return compute_metrics(logits, split.labels, data.problem, threshold=threshold)

    if runtime.do_train:
        if workers.is_chief:
            save_run(config, data.problem)
            write_text_summary(directory, "config", config.to_json())
        try:
            _train(
                config,
                data,
                model,
                encoder,
                examples,
                evaluate,
                metric,
                strategy,
                buckets,
                jit_compile,
            )
        except Interrupted as interrupted:
            print(interrupted, file=sys.stderr)
            return 128 + interrupted.signum
    else:
        folder = os.path.join(directory, "checkpoints")
        print(f"weights    {load_weights(model, folder, workers)}")

    if runtime.do_eval:
        results = {
            part: evaluate(examples[split])
            for part, split in (("eval", "validation"), ("test", "test"))
            if split in examples and examples[split].labels is not None
        }
        if workers.is_chief:
            save_metrics(directory, results)
        print(results_table(results))
    if runtime.do_predict:
        split = "test" if "test" in examples else "validation"
        texts = getattr(data, split).texts
        batch_size = config.data.predict_batch_size
        logits = predict_rows(logits_fn, examples[split], batch_size, buckets=buckets)
        predictions = read_logits(logits, data.problem, threshold)
        path = os.path.join(directory, "predictions.tsv")
        if workers.is_chief:
            write_predictions(path, predictions, texts, data.problem)
        print(f"predictions of {len(logits)} {split} examples are in {path}, e.g.")
        print(example_predictions(texts, predictions, data.problem))
    if runtime.do_export and workers.is_chief:
        _export(config, model, encoder, data)
    print(next_steps(directory, exported=runtime.do_export))
    return 0


def make_model(
    config: Config, data: TextData, jit_compile: bool, workers: Workers | None = None
) -> tuple[Encoder, keras.Model]:
    """Loads the encoder and puts the head on it, both from `init_from` where that is given.

    Args:
        config: The run.
        data: What is learnt, and the training labels, from which weights and biases start.
        jit_compile: See `build_classifier`.
        workers: See `load_weights`.

    Returns:
        The encoder and the compiled model.
    """
    if config.model.init_from:
        earlier, earlier_problem = load_run(config.model.init_from)
        same: dict[str, Any] = {"init_from": None, "freeze": "none"}
        if config.model.encoder_dropout is not None:
            same["encoder_dropout"] = config.model.encoder_dropout
        earlier = dataclasses.replace(earlier, model=dataclasses.replace(earlier.model, **same))
        source = dataclasses.replace(data, train=None, problem=earlier_problem)
        encoder, fine_tuned = make_model(earlier, source, jit_compile, workers)
        folder = os.path.join(config.model.init_from, "checkpoints")
        path = load_weights(fine_tuned, folder, workers)
        print(f"init_from  {path}")
    else:
        encoder = load_encoder(
            config.model.encoder or "",
            mode=config.model.encoder_mode,  # type: ignore[arg-type]
            preprocessor=config.model.preprocessor,
            dropout=config.model.encoder_dropout,
        )
    class_weights: tuple[float, ...] = ()
    output_bias: tuple[float, ...] = ()
    if data.train and (labels := data.train.labels) is not None:
        if config.data.class_weights == "balanced":
            class_weights = balanced_class_weights(labels, data.problem.num_outputs)
        output_bias = constant_logits(labels, data.problem.problem_type, class_weights)
    model = build_classifier(
        encoder,
        data.problem,
        head=config.model.head,
        pooling=config.model.pooling,
        dropout=config.model.dropout,
        freeze=config.model.freeze,
        label_smoothing=config.train.label_smoothing_factor,
        class_weights=class_weights,
        output_bias=output_bias,
        jit_compile=jit_compile and not encoder.takes_text,
    )
    if config.model.init_from:
        same_head = (earlier.model.head, earlier.model.pooling, *_outputs(earlier_problem)) == (
            config.model.head,
            config.model.pooling,
            *_outputs(data.problem),
        )
        if same_head:
            model.get_layer("head").set_weights(fine_tuned.get_layer("head").get_weights())
        print(f"head       {'kept' if same_head else 'new'}")
    return encoder, model


def _set_up(runtime: RuntimeConfig) -> tuple[tf.distribute.Strategy, bool]:
    """Chooses strategy, precision and XLA, and says which and why."""
    strategy, reason = make_strategy(runtime.distribution_strategy, runtime.tpu)
    policy, policy_reason = choose_precision(runtime.precision)
    jit_compile = choose_jit_compile(runtime.jit_compile)
    keras.config.set_dtype_policy(policy)
    set_seed(runtime.seed)
    if runtime.deterministic:
        tf.config.experimental.enable_op_determinism()
    compile_unseen()
    print(
        f"strategy   {type(strategy).__name__} ({strategy.num_replicas_in_sync}): {reason}\n"
        f"precision  {policy}: {policy_reason}; XLA {'on' if jit_compile else 'off'}"
    )
    return strategy, jit_compile


def _tokenize(config: Config, data: TextData, encoder: Encoder) -> dict[str, TokenizedExamples]:
    length = config.data.max_seq_length
    print(f"encoder    {encoder.handle}, {encoder.mode}, hidden size {encoder.hidden_size}")
    examples = {
        split: tokenize_cached(texts, encoder.preprocessor, length, config.data.tokenized_cache_dir)
        for split in ("train", "validation", "test")
        if (texts := getattr(data, split)) is not None
    }
    full_lengths = {split: rows.full_lengths for split, rows in examples.items()}
    print(length_report(full_lengths, length), flush=True)
    return examples


def _train(
    config: Config,
    data: TextData,
    model: keras.Model,
    encoder: Encoder,
    examples: dict[str, TokenizedExamples],
    evaluate: Evaluate,
    metric: str,
    strategy: tf.distribute.Strategy,
    buckets: Sequence[int] | None,
    jit_compile: bool,
) -> None:
    settings, directory = config.train, config.runtime.model_dir or ""
    _check_batch_size(config, strategy.num_replicas_in_sync, data.stream is not None)
    dataset, steps_per_epoch = _batches(config, data, examples["train"], buckets)
    with strategy.scope():
        optimizer = build_optimizer(
            int(dataset.cardinality()),
            learning_rate=settings.learning_rate,
            warmup_proportion=settings.warmup_proportion,
            lr_scheduler_type=settings.lr_scheduler_type,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            layer_rates=layer_rates(encoder.blocks, settings.layerwise_lr_decay),
        )
    state = train(
        model,
        dataset,
        optimizer=optimizer,
        steps_per_epoch=steps_per_epoch,
        evaluate=(lambda: evaluate(examples["validation"])) if "validation" in examples else None,
        eval_steps=settings.eval_steps,
        metric_for_best_model=metric,
        greater_is_better=greater_is_better(metric),
        load_best_model_at_end=settings.load_best_model_at_end,
        early_stopping_patience=settings.early_stopping_patience,
        model_dir=directory,
        save_checkpoints_steps=settings.save_checkpoints_steps,
        keep_checkpoint_max=settings.keep_checkpoint_max,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        steps_per_loop=choose_steps_per_loop(settings.steps_per_loop),
        jit_compile=jit_compile,
        strategy=strategy,
    )
    summary = state.summary(steps_per_epoch)
    if strategy.extended.should_checkpoint:
        save_metrics(directory, {"train": summary})
    print(
        f"trained {state.step} steps in {state.seconds:.1f} s: "
        f"{summary['examples_per_second']:.1f} examples/s over all, "
        f"{summary['steady_examples_per_second']:.1f} after the first step"
    )


def _check_batch_size(config: Config, num_replicas: int, is_streamed: bool) -> None:
    slices, batch_size = config.train.gradient_accumulation_steps, config.data.train_batch_size
    parts = num_replicas * slices
    if (is_streamed or slices > 1) and batch_size % parts:
        raise UserError(
            f"--train_batch_size={batch_size} cannot be cut into {num_replicas} replicas of "
            f"{slices} slices each. Give a multiple of {parts}."
        )


def _batches(
    config: Config,
    data: TextData,
    rows: TokenizedExamples,
    buckets: Sequence[int] | None,
) -> tuple[tf.data.Dataset | StreamedBatches, int]:
    """Makes the batches of the training, and returns the steps of an epoch too."""
    batch_size, settings, seed = config.data.train_batch_size, config.train, config.runtime.seed
    if data.stream is None:
        dataset = make_train_dataset(
            rows,
            batch_size,
            num_epochs=settings.num_train_epochs,
            max_steps=settings.max_steps,
            seed=seed,
            buckets=buckets,
        )
        return dataset, count_steps(len(rows), batch_size)
    # To count the rows of large files takes a while, so not if nobody asks for whole epochs.
    num_rows = data.stream.estimated_rows if settings.max_steps else data.stream.num_rows
    steps = settings.max_steps or count_steps(num_rows, batch_size, settings.num_train_epochs)
    num_columns = len(data.problem.text_columns)
    stream = StreamedBatches(data.stream, num_columns, rows, batch_size, steps, seed, buckets)
    return stream, count_steps(num_rows, batch_size)


def _export(config: Config, model: keras.Model, encoder: Encoder, data: TextData) -> None:
    directory = config.runtime.model_dir or ""
    target = os.path.join(directory, "export")
    known = data.test or data.validation or data.train
    export(
        model,
        encoder.preprocessor,
        data.problem,
        target,
        max_seq_length=config.data.max_seq_length,
        example_texts=[column[:8] for column in known.texts] if known else (),
        threshold=config.model.threshold,
    )
    print(f"exported to {target}")
    if config.runtime.export_encoder:
        target = os.path.join(directory, "encoder")
        save_hub_encoder(encoder, target)
        print(f"exported the encoder in TF Hub format to {target}")


@functools.cache
def _warn_once(text: str) -> None:
    tqdm.write(f"warning: {text}", file=sys.stderr)


def _outputs(problem: Problem) -> tuple[str, tuple[str, ...]]:
    return problem.problem_type, problem.label_names
