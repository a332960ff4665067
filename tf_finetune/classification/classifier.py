"""`Classifier`: encoder, head, preprocessor and problem as one object."""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

import tf_finetune.formats.keras_hub  # noqa: F401  # its layer is found by load_model
from tf_finetune.classification.config import Config, EncoderConfig
from tf_finetune.classification.export import export
from tf_finetune.classification.heads import choose_head, make_head
from tf_finetune.classification.losses import LogitsLoss, balanced_class_weights, constant_logits
from tf_finetune.classification.metrics import (
    check_metric_name,
    collapse_warning,
    compute_metrics,
    greater_is_better,
)
from tf_finetune.classification.model import apply_freeze, connect, fit_metrics, merge_adapters
from tf_finetune.classification.predict import (
    Predictions,
    predict_rows,
    text_columns,
    to_predictions,
)
from tf_finetune.classification.record import claim, label_settings, save_run
from tf_finetune.classification.tokenize import LABEL, check_examples, table_rows, tokenize
from tf_finetune.data.batches import Batches
from tf_finetune.data.checks import check_all_known, check_labels
from tf_finetune.data.labelled import Examples
from tf_finetune.data.plan import xla_buckets
from tf_finetune.data.problem import DEFAULT_METRICS, Problem
from tf_finetune.data.tokenized import TokenizedRows
from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder
from tf_finetune.models.lora import lora_config
from tf_finetune.runs.config import DataConfig, LoopConfig, OptimizerConfig, RunConfig
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runtime.hardware import Runtime
from tf_finetune.training.checkpoints import save_weights
from tf_finetune.training.fit import fit
from tf_finetune.training.forward import Forward, make_forward
from tf_finetune.training.loop import Evaluation
from tf_finetune.training.optimizer import build_optimizer, layer_rates
from tf_finetune.training.state import TrainState


@dataclass(frozen=True)
class Classifier:
    """A model with all that training, prediction and export need.

    Attributes:
        model: Takes the preprocessor's features, returns logits, float32 [batch, num_outputs]; an
            ordinary compiled `keras.Model`.
        encoder: The encoder under the head; its preprocessor tokenizes texts.
        problem: The problem that the model learns.
        config: The settings of encoder and head.
        max_seq_length: The most tokens of a row, in training, prediction and export.
        runtime: The one the model was made under.
    """

    model: keras.Model
    encoder: Encoder
    problem: Problem
    config: EncoderConfig
    max_seq_length: int = DataConfig.max_seq_length
    runtime: Runtime = dataclasses.field(default_factory=Runtime)

    @cached_property
    def forward(self) -> Forward:
        """The model's forward pass, traced once."""
        return make_forward(self.model, self.runtime)

    def tokenize(self, examples: Examples, cache_dir: str | None = None) -> TokenizedRows:
        """Turns examples of the problem into token ids; see `tokenize` and `check_examples`."""
        examples, text = check_examples(examples, self.problem), self.encoder.preprocessor
        rows = tokenize(examples, text, self.max_seq_length, cache_dir, self.config.long_text)
        # XLA compiles the whole step for each length: use few.
        buckets = xla_buckets(self.max_seq_length) if self.runtime.jit_compile else None
        return dataclasses.replace(rows, buckets=buckets)

    def logits(
        self, rows: TokenizedRows, batch_size: int = DataConfig.predict_batch_size
    ) -> np.ndarray:
        """Returns the logits of texts, float32 [n, num_outputs], in their order."""
        return predict_rows(self.forward, rows, batch_size)

    def predict(
        self,
        texts: Sequence[str] | Sequence[Sequence[str]],
        batch_size: int = DataConfig.predict_batch_size,
    ) -> Predictions:
        """Predicts the labels of texts.

        Args:
            texts: One sequence of strings for each text column, of equal lengths; for a single
                column the strings alone suffice.
            batch_size: Texts per batch, over all replicas.

        Returns:
            The predictions, in the order of the texts.

        Raises:
            UserError: One string in place of several; or other text columns than the model's.
        """
        columns = text_columns(texts, self.problem)
        logits = np.zeros((0, self.problem.num_outputs), np.float32)
        if columns[0]:
            logits = self.logits(self.tokenize(Examples(columns)), batch_size)
        return to_predictions(logits, self.problem)

    def evaluate(
        self, examples: Examples, batch_size: int = DataConfig.eval_batch_size
    ) -> dict[str, Any]:
        """Computes the metrics of the examples whose label is known; see `compute_metrics`."""
        return self.evaluate_rows(self.tokenize(examples), batch_size)

    def evaluate_rows(
        self, rows: TokenizedRows, batch_size: int = DataConfig.eval_batch_size
    ) -> dict[str, Any]:
        """Computes the metrics of labelled rows; warns if all get the same prediction."""
        return self.metrics(self.logits(rows, batch_size), rows)

    def metrics(self, logits: np.ndarray, rows: TokenizedRows) -> dict[str, Any]:
        """Computes the metrics of the logits of labelled rows; see `evaluate_rows`."""
        if LABEL not in rows.columns:
            raise UserError("The examples have no labels to evaluate on.")
        labels = rows.columns[LABEL].numpy()[rows.first_rows]
        if warning := collapse_warning(logits, labels, self.problem):
            _warn_once(warning)
        return compute_metrics(logits, labels, self.problem)

    def fit(
        self,
        batches: Batches,
        optimizer: OptimizerConfig = OptimizerConfig(),
        *,
        loop: LoopConfig = LoopConfig(),
        validation: TokenizedRows | None = None,
        metric: str | None = None,
        model_dir: ModelDir | None = None,
        eval_batch_size: int = DataConfig.eval_batch_size,
    ) -> TrainState:
        """Trains the model; see `train`.

        Args:
            batches: From `plan_batches` or `stream_batches`.
            optimizer: AdamW's settings.
            loop: When the model is evaluated and saved, and when the training stops.
            validation: The rows to evaluate on; None: no evaluation.
            metric: The metric that picks the best weights; None: the problem's usual one.
            model_dir: Gets checkpoints, log, curves and the record that `load_classifier` reads;
                None: none of them, and no best weights.
            eval_batch_size: Rows per batch of an evaluation, over all replicas.

        Returns:
            The progress of the training and its cost.

        Raises:
            UserError: See `train`; or the problem has no such metric.
            Interrupted: See `train`.
        """
        metric = metric or DEFAULT_METRICS[self.problem.problem_type]
        check_metric_name(metric, self.problem)
        evaluation = None
        if validation is not None:
            metrics = partial(self.evaluate_rows, validation, eval_batch_size)
            evaluation = Evaluation(metrics, metric, greater_is_better(metric))
        with self.runtime.scope():
            rates = layer_rates(self.encoder.blocks, optimizer.layerwise_lr_decay)
            tables = table_rows(self.encoder, batches.rows)
            adamw = build_optimizer(batches.num_steps, optimizer, rates, tables)
        if model_dir and self.runtime.workers.is_chief:
            config = self._config(model_dir.path)
            config = dataclasses.replace(config, optimizer=optimizer, loop=loop)
            claim(model_dir, config, self.problem)
        return fit(
            self.model,
            batches,
            optimizer=adamw,
            evaluation=evaluation,
            loop=loop,
            model_dir=model_dir,
            runtime=self.runtime,
        )

    def export(self, directory: str, example_texts: Sequence[Sequence[str]] = ()) -> None:
        """Writes a SavedModel that takes raw strings, adapters merged in; see `export`."""
        export(
            merge_adapters(self.model, self.encoder, self.problem),
            self.encoder.preprocessor,
            self.problem,
            directory,
            max_seq_length=self.max_seq_length,
            long_text=self.config.long_text,
            example_texts=example_texts,
        )

    def save(self, model_dir: str) -> None:
        """Writes a model directory that `load_classifier` and `--model_dir` read.

        Args:
            model_dir: A folder without a model.

        Raises:
            UserError: The folder is in use, or the disk is full.
        """
        directory = ModelDir(model_dir)
        directory.check_free(self._config(model_dir), lambda _: ["  a model is there already"])
        save_run(directory, self._config(model_dir), self.problem)
        save_weights(self.model, directory.checkpoints)

    def _config(self, model_dir: str) -> Config:
        """Returns the configuration of a run that makes this classifier."""
        return Config(
            data=DataConfig(max_seq_length=self.max_seq_length),
            labels=label_settings(self.problem),
            # What a command did beside making the model.
            encoder=dataclasses.replace(self.config, init_from=None, export_encoder=False),
            lora=lora_config(self.encoder.lora),
            run=RunConfig(model_dir=model_dir),
        )


def build_classifier(
    encoder: Encoder,
    problem: Problem,
    config: EncoderConfig = EncoderConfig(),
    *,
    labels: np.ndarray | None = None,
    head: keras.layers.Layer | None = None,
    max_seq_length: int = DataConfig.max_seq_length,
    runtime: Runtime | None = None,
) -> Classifier:
    """Puts a head on an encoder.

    Args:
        encoder: From `load_encoder`. The model shares its weights, it does not copy them.
        problem: The problem to learn.
        config: The head, its pooling and dropout, the frozen layers and the loss. Its
            `preprocessor` and `encoder_dropout` must be those that `load_encoder` was given: a
            saved model records them.
        labels: The training labels, from which balanced class weights and the head's initial biases
            are computed; see `constant_logits`.
        head: A layer from [batch, hidden] to logits, in place of the one of `config`.
        max_seq_length: The most tokens of a row.
        runtime: The one to make the model under; None: the current strategy.

    Returns:
        The classifier, whose model is compiled.

    Raises:
        UserError: A head, pooling or freezing that this encoder cannot have; or a wrong label.
    """
    runtime = runtime or Runtime()
    if runtime.jit_compile and encoder.takes_text:
        runtime = dataclasses.replace(runtime, jit_compile=False)
        print("XLA is off: it does not compile what this encoder does with strings")
    config = dataclasses.replace(config, encoder=encoder.handle, encoder_mode=encoder.mode)
    apply_freeze(encoder, config.freeze)
    class_weights: tuple[float, ...] = ()
    output_bias: tuple[float, ...] = ()
    if labels is not None:
        labels = check_labels(labels, problem)
        check_all_known(labels)
        if config.class_weights == "balanced":
            class_weights = balanced_class_weights(labels, problem.num_outputs)
        output_bias = constant_logits(labels, problem.problem_type, class_weights)
    config = choose_head(encoder, config)
    if head is None:
        head = make_head(encoder, config, problem.num_outputs)
    else:
        config = dataclasses.replace(
            config, head=f"{type(head).__module__}:{type(head).__qualname__}"
        )
    model = connect(encoder, problem, config.pooling, head)
    bias = getattr(getattr(head, "logits", None), "bias", None)
    if bias is not None and tuple(bias.shape) == (len(output_bias),):
        bias.assign(output_bias)
    model.compile(
        optimizer=build_optimizer(total_steps=None),
        loss=LogitsLoss(problem.problem_type, config.label_smoothing_factor, class_weights),
        weighted_metrics=fit_metrics(problem.problem_type),
        jit_compile=runtime.jit_compile,
    )
    return Classifier(model, encoder, problem, config, max_seq_length, runtime)


@functools.cache
def _warn_once(text: str) -> None:
    tqdm.write(f"warning: {text}", file=sys.stderr)
