"""The models in memory: loaded when they are asked for, the longest unused forgotten for others."""

import gc
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

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
from tf_finetune.models.row_adapters import Stacks
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.server.engine import Failed
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
# What takes long, function by function: each gets called, in any thread, and its result sent back.
Steps: TypeAlias = Generator[Callable[[], Any], Any, Model]


def key_of(model: ServedModel) -> str:
    """Returns what a model is known by: the handle of a base, the folder of a run with its step."""
    if model.model_dir is None:
        return model.handle
    return f"{model.model_dir} {model.step or ''}".strip()


class Loaded:
    """The models in memory. It is not for several threads."""

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
        # Of the model that is being loaded: its bytes, and the base that its adapter is read for.
        self._reserved, self._base = 0, ""

    @property
    def names(self) -> list[str]:
        """What is in memory, by `key_of`."""
        return list(self._models)

    def get(self, model: ServedModel) -> Model | None:
        """Returns a model, as the one that was asked for last; None: it is not in memory."""
        key = key_of(model)
        return self._touch(model, self._models.pop(key)) if key in self._models else None

    def load(self, model: ServedModel) -> Steps:
        """Loads a model, if it is not in memory; one at a time.

        Yields:
            What takes long, and changes nothing that is in use: `get` may be called meanwhile.

        Returns:
            The model, as the one that was asked for last.

        Raises:
            UserError: It cannot be loaded, or is larger than the limit.
        """
        try:
            return self.get(model) or (yield from self._load(model))
        finally:
            self._reserved, self._base = 0, ""

    def _load(self, model: ServedModel) -> Steps:
        run, handle = str(model.model_dir) if model.model_dir else None, model.handle
        if (yield lambda: model.kind) == "classifier":
            if run is None:
                raise UserError(f"{model.name} is an encoder: it answers once it was fine-tuned.")
            checkpoints = ModelDir(run).checkpoints
            # Its weights are trained, and kept, in float32.
            self._reserve(model.name, 4 * (yield partial(count_weights, checkpoints, model.step)))
            return self._keep(model, (yield partial(_classifier, run, model.step)))
        if run is None or not (yield partial(has_adapter, run)):
            self._reserve(handle, (yield partial(_size_of, handle)))
            load = partial(_language_model, handle, run, model.step)
            return self._keep(model, (yield partial(load, self._rows, self._longest)))
        plain = replace(model, model_dir=None, step=None)
        base = yield from self.load(plain)
        assert isinstance(base, LanguageModel)
        self._base = handle
        stacks, form = yield partial(_adapter, run, base.slots, model.step)
        if self._models.get(handle) is not base:
            raise Failed(f"{handle} failed while {model.name} was loaded. Try again.")
        base.slots.adapters.add(key_of(model), stacks)
        adapted = LanguageModel(base.slots, form, stacks.size, key_of(model))
        return self._keep(model, adapted)

    def forget(self, slots: Slots) -> None:
        """Forgets a base and its adapters."""
        self._models = {
            key: model
            for key, model in self._models.items()
            if not (isinstance(model, LanguageModel) and model.slots is slots)
        }
        gc.collect()  # Traced programs refer to themselves.

    def _keep(self, model: ServedModel, found: Model) -> Model:
        """Takes a model that has been loaded into those in memory."""
        self._reserved, self._base = 0, ""
        return self._touch(model, found)

    def _touch(self, model: ServedModel, found: Model) -> Model:
        """Makes a model the one that was asked for last."""
        self._models[key_of(model)] = found
        if isinstance(found, LanguageModel) and found.adapter:
            # A base is forgotten after its adapters.
            self._models[model.handle] = self._models.pop(model.handle)
        self._make_room(key_of(model))
        return found

    def _reserve(self, name: str, size: int) -> None:
        """Makes room for a model before it is loaded.

        Raises:
            UserError: It is larger than the limit.
        """
        if self._limit is not None and size > self._limit:
            raise UserError(
                f"{name} takes {size / GIB:.2f} GiB of memory, more than --model_memory_limit, "
                f"{self._limit / GIB:.2f} GiB. Raise it, or serve a smaller model."
            )
        self._reserved = size
        self._make_room()

    def _make_room(self, kept: str = "") -> None:
        """Forgets models that nobody uses, the longest unused first, as far as need be."""
        for key, model in list(self._models.items()):
            total = self._reserved + sum(other.size for other in self._models.values())
            if self._limit is None or total <= self._limit:
                return
            if key in (kept, self._base) or not model.is_idle:
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


def _language_model(
    handle: str, run: str | None, step: int | None, rows: int, longest: int | None
) -> LanguageModel:
    if run is None:
        decoder = load_decoder(handle)
        form = DialogueFormat(decoder.chat)
    else:
        decoder, form = load_tuned(run, step)
    slots = Slots(decoder, rows, longest)
    slots.programs.trace()
    return LanguageModel(slots, form, _size(decoder.config.num_weights))


def _adapter(run: str, slots: Slots, step: int | None) -> tuple[Stacks, DialogueFormat]:
    """Reads the adapter of a run; its base may answer meanwhile."""
    stacks, form = read_tuned_adapter(run, slots.decoder, step)
    slots.programs.trace(slots.adapters.alone(stacks))
    return stacks, form


def _classifier(run: str, step: int | None) -> LabelModel:
    classifier = load_classifier(run)
    if step is not None:
        load_step(classifier.model, ModelDir(run).checkpoints, step)
    variables = classifier.model.variables
    size = sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in variables)
    read = make_reader(classifier)
    read([""])  # Its program is traced.
    return LabelModel(read, classifier.problem.label_names, size)


def _size_of(handle: str) -> int:
    """Returns what a language model will take, from its configuration."""
    files = read_language_model(handle)
    return _size(decoder_config(files.config, files.handle).num_weights)


def _size(num_weights: int) -> int:
    """Returns the bytes of a language model's weights, copies for decoding included."""
    each = tf.as_dtype(keras.config.dtype_policy().compute_dtype).size
    size = num_weights * each
    return 2 * size if size <= COPIED_BYTES else size
