"""Generators of earlier runs, and new ones to train."""

import dataclasses

import keras

from tf_finetune.formats.decoder import Decoder
from tf_finetune.formats.decoders import build_decoder, load_decoder
from tf_finetune.formats.families import decoder_config
from tf_finetune.formats.language_models import read_language_model
from tf_finetune.formats.peft import assign_adapter, read_adapter
from tf_finetune.generation.config import Config
from tf_finetune.generation.generator import PLAIN, Generator, build_generator
from tf_finetune.generation.memory import check_memory, free_memory
from tf_finetune.generation.record import load_record
from tf_finetune.models.decoding_weights import COPIED_BYTES
from tf_finetune.models.lora import make_lora
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.settings import replaced
from tf_finetune.runtime.hardware import Runtime
from tf_finetune.text.chat_template import read_chat_template
from tf_finetune.training.checkpoints import load_weights


def load_generator(model_dir: str, *, runtime: Runtime | None = None) -> Generator:
    """Loads the generator of an earlier run, with its best weights, else the last.

    Args:
        model_dir: The run's folder.
        runtime: The one to make the model under; None: the current strategy.

    Raises:
        UserError: There is no model, it is damaged, or its base is not found.
    """
    directory = ModelDir(model_dir)
    config, template = load_record(directory)
    return restore_generator(directory, config, template, runtime or Runtime())[0]


def restore_generator(
    model_dir: ModelDir, config: Config, template: str | None, runtime: Runtime
) -> tuple[Generator, str]:
    """Makes the generator of a run and loads its weights.

    Args:
        model_dir: The run's folder.
        config: Its configuration.
        template: The source of the template that it was trained with; None: the checkpoint's.
        runtime: The one to make the model under.

    Returns:
        The generator, and the path of the checkpoint.

    Raises:
        UserError: The base or the checkpoint cannot be used.
    """
    generator = _make(config, template, runtime)
    return generator, load_weights(generator.model, model_dir.checkpoints, runtime.workers)


def make_generator(config: Config, runtime: Runtime) -> Generator:
    """Makes the generator to train: from the base, an adapter, or an earlier run."""
    settings = config.decoder
    if not settings.init_from:
        template = None
        if settings.chat_template not in (None, PLAIN):
            template = read_chat_template(settings.chat_template)
        return _make(config, template, runtime)
    source = ModelDir(settings.init_from)
    earlier, template = load_record(source)
    earlier = replaced(
        earlier,
        init_from=None,
        adapter=None,
        method=settings.method,
        beta=settings.beta,
        packing=settings.packing,
        gradient_checkpointing=settings.gradient_checkpointing,
        max_seq_length=config.data.max_seq_length,
    )
    generator, path = restore_generator(source, earlier, template, runtime)
    print(f"init_from  {path}")
    return dataclasses.replace(generator, config=settings)


def only_answers(config: Config) -> bool:
    """Whether a run does nothing but answer, with a decoder whose kernels are sure to be copied.

    See `DecodingWeights`; whether it computes in half precision is not known yet.
    """
    run = config.run
    if run.do_train or run.do_eval or run.do_export:
        return False
    if not (run.do_predict or config.chatting.interactive):
        return False
    files = read_language_model(config.decoder.model or "")
    return 4 * decoder_config(files.config, files.handle).num_weights <= COPIED_BYTES


def base_generator(config: Config, runtime: Runtime) -> Generator:
    """Makes a generator of a model as it is, to talk to."""
    decoder = load_decoder(config.decoder.model or "", trainable=False, lora=None)
    return build_generator(decoder, config.decoder, runtime=runtime)


def _make(config: Config, template: str | None, runtime: Runtime) -> Generator:
    settings = config.decoder
    found = read_adapter(settings.adapter) if settings.adapter else None
    lora = found.lora if found else make_lora(config.lora)
    files = read_language_model(settings.model or "")
    check_memory(
        files.handle,
        decoder_config(files.config, files.handle).num_weights,
        keras.config.dtype_policy().compute_dtype,
        trains_all=lora is None,
        available=free_memory(),
    )
    if template is not None:
        files = dataclasses.replace(files, chat_template=template)
    with runtime.scope():
        decoder = build_decoder(
            files,
            trainable=True,
            lora=lora,
            gradient_checkpointing=settings.gradient_checkpointing,
            seed=config.runtime.seed,
        )
        if found:
            assign_adapter(found, decoder.network.adapters, settings.adapter or "")
        return build_generator(
            decoder, settings, max_seq_length=config.data.max_seq_length, runtime=runtime
        )


def template_of(decoder: Decoder) -> str | None:
    """Returns the source of a decoder's template; None: it is the built-in one."""
    return None if decoder.chat.is_plain else decoder.chat.template.source
