"""`load_decoder`: from any kind of handle to a language model with its weights."""

from dataclasses import replace
from typing import Any

import keras

from tf_finetune.errors import UserError
from tf_finetune.formats.decoder import Decoder
from tf_finetune.formats.families import decoder_config
from tf_finetune.formats.language_model import LanguageModelFiles
from tf_finetune.formats.language_models import read_language_model
from tf_finetune.models.gpt2 import GPT2Decoder
from tf_finetune.models.gpt2_config import GPT2Config
from tf_finetune.models.llama import LlamaDecoder
from tf_finetune.models.lora import Lora
from tf_finetune.models.stored_weights import assign_weights
from tf_finetune.text.chat import chat_format


def load_decoder(
    handle: str,
    *,
    trainable: bool = False,
    lora: Lora | None = None,
    chat_template: str | None = None,
    gradient_checkpointing: bool = False,
    seed: int | None = None,
) -> Decoder:
    """Loads a language model. Its dtype policy is Keras' global one at the time of the call.

    Args:
        handle: See `read_language_model`.
        trainable: Whether its weights are trained; with adapters only those are.
        lora: The adapters that it gets, which change nothing until they are trained; None: none.
        chat_template: The source of a jinja template in place of the checkpoint's; None: its own.
        gradient_checkpointing: See `LlamaDecoder`.
        seed: For the adapters.

    Returns:
        The language model.

    Raises:
        UserError: The handle cannot be used, or no layer is a target of the adapters.
    """
    files = read_language_model(handle)
    if chat_template is not None:
        files = replace(files, chat_template=chat_template)
    return build_decoder(
        files,
        trainable=trainable,
        lora=lora,
        gradient_checkpointing=gradient_checkpointing,
        seed=seed,
    )


def build_decoder(
    files: LanguageModelFiles, *, lora: Lora | None = None, **options: Any
) -> Decoder:
    """Makes the network of files that were read, and gives it their weights.

    Args:
        files: The language model's files.
        lora: See `load_decoder`.
        **options: The other options of `load_decoder`.

    Raises:
        UserError: Weights are missing or damaged, or no layer is a target of the adapters.
    """
    config = decoder_config(files.config, files.handle)
    policy = keras.config.dtype_policy()
    if lora is not None or not options.get("trainable"):
        # Weights that nothing trains are kept in the dtype that they are multiplied in.
        policy = keras.DTypePolicy(policy.compute_dtype)
    trainable = options.pop("trainable", False) or lora is not None
    options |= {"lora": lora, "trainable": trainable, "dtype": policy}
    network: GPT2Decoder | LlamaDecoder
    if isinstance(config, GPT2Config):
        network = GPT2Decoder(config, **options)
    else:
        network = LlamaDecoder(config, **options)
    network.build()
    stored = network.stored()
    # Only the weights of linear layers are divided into modules.
    names = [name for part in stored if part.sizes for name in part.names]
    modules = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
    if strange := lora.unmatched(modules) if lora else []:
        ends = sorted({module.rpartition(".")[2] for module in modules})
        raise UserError(
            f"--lora_targets: --model={files.handle} has no linear layer {strange[0]}. Its linear "
            f"layers are {', '.join(ends)}; leave the flag out for all of them."
        )
    expected = [name for part in stored for name in part.names]
    if missing := [name for name in expected if name not in files.names]:
        raise UserError(
            f"--model={files.handle}: its weights lack {missing[0]} ({len(missing)} of "
            f"{len(expected)} tensors that its config.json asks for). Compare its files with the "
            "original's."
        )
    try:
        assign_weights(stored, files.read)
    except ValueError as error:
        raise UserError(
            f"--model={files.handle}: {error}, as its config.json says. Compare its files with the "
            "original's."
        ) from error
    chat = chat_format(files.tokenizer, files.chat_template, files.tokens, files.stop_ids)
    return Decoder(network, config, chat, files)
