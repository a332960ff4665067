"""`Generator`: a language model with its text side and its adapters as one object."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_finetune.data.batches import Batches
from tf_finetune.data.conversations import Example, Preference
from tf_finetune.data.plan import xla_buckets
from tf_finetune.data.tokenized import TokenizedRows
from tf_finetune.errors import UserError
from tf_finetune.formats.decoder import Decoder
from tf_finetune.generation.answers import Answer, Messages, Question
from tf_finetune.generation.collate import pack_rows, shared_prefix
from tf_finetune.generation.config import Config, DecoderConfig
from tf_finetune.generation.decode import Decoding
from tf_finetune.generation.dialogue_format import DialogueFormat
from tf_finetune.generation.metrics import loss_metrics, preference_metrics
from tf_finetune.generation.network import TargetLoss, connect, connect_pairs, row_sums
from tf_finetune.generation.preference_loss import PreferenceLoss
from tf_finetune.generation.preferences import REFERENCE, tokenize_pairs
from tf_finetune.generation.sampling_config import SamplingConfig
from tf_finetune.generation.tokenize import TokenizedDialogues, tokenize
from tf_finetune.models.stored_weights import assign_weights
from tf_finetune.runs.config import DataConfig, LoopConfig, OptimizerConfig, RuntimeConfig
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runtime.hardware import Runtime
from tf_finetune.training.fit import fit
from tf_finetune.training.forward import Forward, make_forward
from tf_finetune.training.loop import Evaluation
from tf_finetune.training.optimizer import build_optimizer
from tf_finetune.training.state import TrainState

PLAIN = "plain"  # The value of --chat_template for texts as they are.


@dataclass(frozen=True)
class Generator:
    """A language model with all that training, answering and export need.

    Attributes:
        model: What is trained, an ordinary compiled `keras.Model`: from features to the
            log-probability of each target, see `network.connect`; of preferences to that of both
            answers, see `network.connect_pairs`.
        decoder: The network, its tokenizer and its chat format.
        config: The settings of the decoder.
        max_seq_length: The length that rows are cut to.
        runtime: The one the model was made under.
        seed: Of answers that are drawn.
    """

    model: keras.Model
    decoder: Decoder
    config: DecoderConfig = DecoderConfig()
    max_seq_length: int = 1024
    runtime: Runtime = dataclasses.field(default_factory=Runtime)
    seed: int = RuntimeConfig.seed

    @property
    def is_raw(self) -> bool:
        """Whether texts are joined as they are, without the chat template."""
        return self.config.chat_template == PLAIN

    @property
    def prefers(self) -> bool:
        """Whether preferences are learnt, not answers."""
        return self.config.method == "dpo"

    @property
    def form(self) -> DialogueFormat:
        """How examples become texts."""
        return DialogueFormat(self.decoder.chat, self.is_raw)

    @property
    def description(self) -> str:
        """Says what the model is, and what of it is trained."""
        sizes = (
            sum(int(np.prod(v.shape)) for v in part)
            for part in (self.model.trainable_variables, self.model.variables)
        )
        trained, all_ = (f"{size / 1e6:,.1f} M" for size in sizes)
        return f"{self.decoder.handle}, {all_} weights, {trained} of them trained"

    @cached_property
    def forward(self) -> Forward:
        """The forward pass of answers, traced once; it sums over the targets of each row."""
        model = connect(self.decoder) if self.prefers else self.model
        return make_forward(model, self.runtime, row_sums)

    @cached_property
    def pair_forward(self) -> Forward:
        """The forward pass of preferences, traced once."""
        return make_forward(self.model, self.runtime)

    @cached_property
    def decoding(self) -> Decoding:
        """Answers prompts; its programs are traced once."""
        # A TPU runs nothing else; elsewhere XLA would compile anew for each length.
        on_tpu = isinstance(self.runtime.strategy, tf.distribute.TPUStrategy)
        return Decoding(self.decoder, jit_compile=on_tpu)

    def tokenize(
        self, examples: Sequence[Example], cache_dir: str | None = None
    ) -> TokenizedDialogues:
        """Turns examples into token ids; those without an answer left are dropped.

        Of a preference it takes the chosen answer.
        """
        return self._in_buckets(tokenize(examples, self.form, self.max_seq_length, cache_dir))

    def tokenize_training(
        self, examples: Sequence[Example], cache_dir: str | None = None
    ) -> TokenizedDialogues:
        """Turns examples into what the model is trained on: answers, or pairs of answers."""
        if not self.prefers:
            return self.tokenize(examples, cache_dir)
        pairs = [example for example in examples if isinstance(example, Preference)]
        return self._in_buckets(tokenize_pairs(pairs, self.form, self.max_seq_length, cache_dir))

    def _in_buckets(self, found: TokenizedDialogues) -> TokenizedDialogues:
        # XLA compiles the whole step for each length: use few.
        buckets = xla_buckets(self.max_seq_length) if self.runtime.jit_compile else None
        return dataclasses.replace(found, rows=dataclasses.replace(found.rows, buckets=buckets))

    def training_rows(self, rows: TokenizedRows) -> TokenizedRows:
        """Returns the rows as they are batched in training: packed, if the settings say so."""
        return pack_rows(rows) if self.config.packing else rows

    def evaluate_rows(
        self, found: TokenizedDialogues, batch_size: int = DataConfig.eval_batch_size
    ) -> dict[str, Any]:
        """Computes the metrics of answers that are given; see `loss_metrics`."""
        sums = self.forward(found.batches(batch_size))
        return loss_metrics(
            sums["log_probability"],
            sums["tokens"].astype(np.int64),
            sums["hits"].astype(np.int64),
            found.answer_bytes,
        )

    def score_pairs(self, found: TokenizedDialogues, batch_size: int) -> np.ndarray:
        """Returns the log-probability of each chosen and rejected answer, float32 [n, 2]."""
        outputs, _ = self.pair_forward(found.batches(batch_size))
        scores = np.empty_like(outputs)
        scores[found.rows.order] = outputs
        return scores

    def evaluate_pairs(
        self, found: TokenizedDialogues, batch_size: int = DataConfig.eval_batch_size
    ) -> dict[str, Any]:
        """Computes the metrics of pairs with a reference; see `preference_metrics`."""
        reference = found.rows.columns[REFERENCE].numpy()
        scores = self.score_pairs(found, batch_size)
        return preference_metrics(scores, reference, self.config.beta)

    def answer(
        self,
        prompts: Sequence[Messages | str],
        sampling: SamplingConfig = SamplingConfig(),
        batch_size: int = Config.data.predict_batch_size,
    ) -> list[Answer]:
        """Answers prompts: messages, or texts to go on from.

        Raises:
            UserError: A prompt leaves no room for an answer.
        """
        ids = [self.form.prompt_ids(prompt) for prompt in prompts]
        return self.decoding.answer(ids, sampling, seed=self.seed, batch_size=batch_size)

    def fits(self, prompts: Sequence[Messages | str], sampling: SamplingConfig) -> bool:
        """Whether each prompt leaves room for an answer."""
        most = self.decoder.config.max_positions - sampling.max_new_tokens
        return all(len(self.form.prompt_ids(prompt)) <= most for prompt in prompts)

    def check_prompts(self, questions: Sequence[Question], sampling: SamplingConfig) -> None:
        """Checks that each question leaves room for an answer.

        Raises:
            UserError: One does not; the message says where it stands.
        """
        for question in questions:
            try:
                self.decoding.check(self.form.prompt_ids(question.prompt), sampling)
            except UserError as error:
                raise UserError(f"{question.location}: {error}") from None

    def stream(
        self, prompt: Messages | str, sampling: SamplingConfig = SamplingConfig()
    ) -> Iterator[str]:
        """Answers a prompt piece by piece, as its tokens come; see `answer`."""
        return self.decoding.stream(self.form.prompt_ids(prompt), sampling, seed=self.seed)

    def fit(
        self,
        batches: Batches,
        optimizer: OptimizerConfig = OptimizerConfig(),
        *,
        loop: LoopConfig = LoopConfig(),
        evaluation: Evaluation | None = None,
        model_dir: ModelDir | None = None,
    ) -> TrainState:
        """Trains the model; see `train`.

        Args:
            batches: From `plan_batches` or `stream_batches`.
            optimizer: AdamW's settings.
            loop: When the model is evaluated and saved, and when the training stops.
            evaluation: How the model is evaluated; None: it is not.
            model_dir: Gets checkpoints, log and curves; None: none of them, and no best weights.

        Raises:
            UserError: See `train`; or nothing of the model is to be trained.
        """
        if not self.model.trainable_variables:
            raise UserError(
                f"Nothing of {self.decoder.handle} is to be trained. Load it with adapters, "
                "load_decoder(..., lora=Lora(16, 32.0)), or with trainable=True for all weights."
            )
        with self.runtime.scope():
            adamw = build_optimizer(batches.num_steps, optimizer)
        network = self.decoder.network
        if batches.rows is not None and not self.prefers:
            network.prefix = shared_prefix(batches.rows)
        try:
            return fit(
                self.model,
                batches,
                optimizer=adamw,
                evaluation=evaluation,
                loop=loop,
                model_dir=model_dir,
                runtime=self.runtime,
            )
        finally:
            network.prefix = ()

    @contextmanager
    def as_base(self) -> Iterator[None]:
        """Makes the model the base, as it was before any training, while the block runs."""
        adapters = self.decoder.network.adapters
        if adapters:
            variables = [adapter.b for adapter in adapters.values()]
        else:
            variables = list(self.model.trainable_variables)
        kept = [keras.ops.convert_to_numpy(variable) for variable in variables]
        try:
            if adapters:
                for variable in variables:
                    variable.assign(np.zeros(variable.shape, np.float32))
            else:
                assign_weights(self.decoder.network.stored(), self.decoder.files.read)
            yield
        finally:
            for variable, value in zip(variables, kept, strict=True):
                variable.assign(value)


def build_generator(
    decoder: Decoder,
    config: DecoderConfig = DecoderConfig(),
    *,
    max_seq_length: int = 1024,
    runtime: Runtime | None = None,
) -> Generator:
    """Puts the head on a decoder, and compiles the model.

    Rows are cut to `max_seq_length`, or where the positions end that the decoder was made for.
    """
    runtime = runtime or Runtime()
    prefers = config.method == "dpo"
    model = connect_pairs(decoder) if prefers else connect(decoder)
    model.compile(
        optimizer=build_optimizer(total_steps=None),
        loss=PreferenceLoss(config.beta) if prefers else TargetLoss(),
        jit_compile=runtime.jit_compile,
    )
    length = min(max_seq_length, decoder.config.max_positions)
    return Generator(model, decoder, config, length, runtime)
