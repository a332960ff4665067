"""What runs have made of a base, read for answering beside it."""

from dataclasses import replace

from tf_finetune.errors import UserError
from tf_finetune.formats.decoder import Decoder
from tf_finetune.formats.peft import read_adapter
from tf_finetune.generation.config import Config
from tf_finetune.generation.dialogue_format import DialogueFormat
from tf_finetune.generation.generator import PLAIN
from tf_finetune.generation.load import load_generator
from tf_finetune.generation.record import load_record
from tf_finetune.models.lora import Lora, make_lora
from tf_finetune.models.row_adapters import Stacks, adapter_shapes, stack_adapter
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.text.chat_template import ChatTemplate
from tf_finetune.training.checkpoints import load_step
from tf_finetune.training.stored_weights import read_weights


def has_adapter(model_dir: str) -> bool:
    """Whether a run has trained an adapter, and not all weights.

    Raises:
        UserError: There is no generator, or it is damaged.
    """
    return _lora(load_record(ModelDir(model_dir))[0]) is not None


def read_tuned_adapter(
    model_dir: str, base: Decoder, step: int | None = None
) -> tuple[Stacks, DialogueFormat]:
    """Reads the adapter of a run without its base.

    Args:
        model_dir: The run's folder.
        base: The run's base.
        step: Of the training; None: the best, else the last.

    Returns:
        The adapter, and how its prompts are written.

    Raises:
        UserError: There is none, it is damaged, or it is for another base.
    """
    config, template = load_record(ModelDir(model_dir))
    lora = _lora(config)
    assert lora is not None
    # The trained variables, then the seeds of dropout.
    values = read_weights(ModelDir(model_dir).checkpoints, step)
    shapes = adapter_shapes(base.network, lora)
    wanted = [shape for pair in shapes.values() for shape in pair]
    if [value.shape for value in values[: len(wanted)]] != wanted:
        raise UserError(
            f"{model_dir}: its adapter is not for {base.handle}: other shapes. It was trained on "
            f"{config.decoder.model}."
        )
    pairs = zip(values[::2], values[1::2], strict=False)
    stacks = stack_adapter(base.network, lora, dict(zip(shapes, pairs, strict=False)))
    chat = base.chat
    if template is not None:
        chat = replace(chat, template=ChatTemplate(template, chat.template.tokens))
    return stacks, DialogueFormat(chat, config.decoder.chat_template == PLAIN)


def load_tuned(model_dir: str, step: int | None = None) -> tuple[Decoder, DialogueFormat]:
    """Loads the model of a run that has trained all weights; see `read_tuned_adapter`."""
    generator = load_generator(model_dir)
    if step is not None:
        load_step(generator.model, ModelDir(model_dir).checkpoints, step)
    return generator.decoder, generator.form


def _lora(config: Config) -> Lora | None:
    adapter = config.decoder.adapter
    return read_adapter(adapter).lora if adapter else make_lora(config.lora)
