"""The models in memory: loaded when they are asked for, the longest unused forgotten for others."""

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from tf_finetune.classification.load import load_classifier
from tf_finetune.classification.reader import Reader, make_reader
from tf_finetune.errors import UserError
from tf_finetune.formats.decoders import load_decoder
from tf_finetune.formats.families import decoder_config
from tf_finetune.formats.language_models import read_language_model
from tf_finetune.generation.dialogue_format import DialogueFormat
from tf_finetune.generation.memory import GIB, free_memory
from tf_finetune.generation.slots import Slots
from tf_finetune.generation.tuned import has_adapter, load_tuned, read_tuned_adapter
from tf_finetune.models.decoding_weights import COPIED_BYTES
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.server.models import ServedModel
from tf_finetune.training.checkpoints import load_step
from tf_finetune.training.stored_weights import count_weights


@dataclass(frozen=True)
class LanguageModel:
    """A language model that answers.

    Attributes:
        slots: Where its answers grow.
        form: How its prompts are written.
        size: The bytes of its weights; of an adapter only those beside its base.
        adapter: The name of its adapter there; None: it has none.
    """

    slots: Slots
    form: DialogueFormat
    size: int
    adapter: str | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to answer."""
        if self.adapter is None:
            return self.slots.is_idle
        return all(reply.ask.adapter != self.adapter for reply in self.slots.at_work)


@dataclass(frozen=True)
class LabelModel:
    """A classifier that answers.

    Attributes:
        read: Reads texts.
        names: Its labels; none: it answers with a number.
        size: The bytes of its weights.
        is_idle: Always: it answers at once, and lives on while it does.
    """

    read: Reader
    names: Sequence[str]
    size: int
    is_idle: bool = True


Model = LanguageModel | LabelModel


class Loaded:
    """The models in memory."""

    def __init__(
        self, limit: int | None = None, rows: int = 16, longest: int | None = None
    ) -> None:
        """Loads nothing yet.

        Args:
            limit: The most bytes that the weights of all models take; None: half of the memory that
                is free.
            rows: The most prompts that a model answers at once.
            longest: The most tokens of a prompt with its answer; None: as many as each model was
                made for.
        """
        free = free_memory()
        self._limit = limit or (free // 2 if free else None)
        self._rows, self._longest = rows, longest
        # The one that was asked for last comes last.
        self._models: dict[str, Model] = {}

    @property
    def names(self) -> list[str]:
        """What is in memory: handles, and folders of runs with their steps."""
        return list(self._models)

    def find(self, model: ServedModel) -> Model:
        """Returns a model, and loads it if need be.

        Raises:
            UserError: It cannot be loaded, or is larger than the limit.
        """
        run = str(model.model_dir) if model.model_dir else None
        key = model.handle if run is None else f"{run} {model.step or ''}".strip()
        if model.kind == "classifier":
            if run is None:
                raise UserError(f"{model.name} is an encoder: it answers once it was fine-tuned.")
            checkpoints = ModelDir(run).checkpoints
            # Its weights are trained, and kept, in float32.
            self._reserve(key, model.name, lambda: 4 * count_weights(checkpoints, model.step))
            return self._get(key, lambda: _classifier(run, model.step))
        if run is None or not has_adapter(run):
            self._reserve(key, model.handle, lambda: _size_of(model.handle))
            return self._get(key, lambda: self._language_model(model.handle, run, model.step))
        self._reserve(model.handle, model.handle, lambda: _size_of(model.handle))
        base = self._get(model.handle, lambda: self._language_model(model.handle, None, None))
        assert isinstance(base, LanguageModel)
        found = self._get(key, lambda: _adapted(base, run, model.step, key))
        # A base is forgotten after its adapters.
        self._models[model.handle] = self._models.pop(model.handle)
        return found

    def forget(self, slots: Slots) -> None:
        """Forgets a base and its adapters."""
        self._models = {
            key: model
            for key, model in self._models.items()
            if not (isinstance(model, LanguageModel) and model.slots is slots)
        }
        gc.collect()  # Traced programs refer to themselves.

    def _get(self, key: str, load: Callable[[], Model]) -> Model:
        """Returns a model as the one that was asked for last."""
        found = self._models.pop(key, None) or load()
        self._models[key] = found
        self._make_room(0, key)
        return found

    def _reserve(self, key: str, name: str, count: Callable[[], int]) -> None:
        """Makes room for a model before it is loaded.

        Raises:
            UserError: It is larger than the limit.
        """
        if key in self._models or self._limit is None:
            return
        size = count()
        if size > self._limit:
            raise UserError(
                f"{name} takes {size / GIB:.2f} GiB of memory, more than --model_memory_limit, "
                f"{self._limit / GIB:.2f} GiB. Raise it, or serve a smaller model."
            )
        self._make_room(size, key)

    def _make_room(self, size: int, kept: str) -> None:
        """Forgets models that nobody uses, the longest unused first, as far as need be."""
        for key, model in list(self._models.items()):
            total = sum(other.size for other in self._models.values())
            if self._limit is None or total + size <= self._limit:
                return
            if key == kept or not model.is_idle:
                continue
            if isinstance(model, LabelModel):
                del self._models[key]
                gc.collect()
            elif model.adapter is not None:
                del self._models[key]
                model.slots.adapters.remove(key)
            elif not any(
                isinstance(other, LanguageModel) and other.slots is model.slots and other.adapter
                for other in self._models.values()
            ):
                self.forget(model.slots)

    def _language_model(self, handle: str, run: str | None, step: int | None) -> LanguageModel:
        if run is None:
            decoder = load_decoder(handle)
            form = DialogueFormat(decoder.chat)
        else:
            decoder, form = load_tuned(run, step)
        slots = Slots(decoder, self._rows, self._longest)
        return LanguageModel(slots, form, _size(decoder.config.num_weights))


def _adapted(base: LanguageModel, run: str, step: int | None, name: str) -> LanguageModel:
    """Puts the adapter of a run beside its base."""
    stacks, form = read_tuned_adapter(run, base.slots.decoder, step)
    base.slots.adapters.add(name, stacks)
    return LanguageModel(base.slots, form, stacks.size, name)


def _classifier(run: str, step: int | None) -> LabelModel:
    classifier = load_classifier(run)
    if step is not None:
        load_step(classifier.model, ModelDir(run).checkpoints, step)
    variables = classifier.model.variables
    size = sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in variables)
    return LabelModel(make_reader(classifier), classifier.problem.label_names, size)


def _size_of(handle: str) -> int:
    """Returns what a language model will take, from its configuration."""
    files = read_language_model(handle)
    return _size(decoder_config(files.config, files.handle).num_weights)


def _size(num_weights: int) -> int:
    """Returns the bytes of a language model's weights, copies for decoding included."""
    each = tf.as_dtype(keras.config.dtype_policy().compute_dtype).size
    size = num_weights * each
    return 2 * size if size <= COPIED_BYTES else size
