"""Language models in Hugging Face's format: `config.json`, weights, tokenizer, chat template."""

import re
from pathlib import Path

from tf_finetune.formats.chat_files import read_chat_template, read_tokens
from tf_finetune.formats.decoder_tokenizers import read_tokenizer
from tf_finetune.formats.families import decoder_config
from tf_finetune.formats.handles import read_object
from tf_finetune.formats.language_model import LanguageModelFiles, stop_ids
from tf_finetune.formats.tensors import open_tensors

# Tensors that are computed from the configuration, which old checkpoints hold.
_COMPUTED = re.compile(r"rotary_emb\.inv_freq$|\.attn\.(masked_)?bias$")
# The parts of a decoder without its head.
_PARTS = ("wte.", "wpe.", "h.", "ln_f.", "embed_tokens.", "layers.", "norm.")


def read_hugging_face(handle: str, directory: Path) -> LanguageModelFiles:
    """Opens a language model in Hugging Face's format.

    Args:
        handle: The handle, as the user wrote it.
        directory: Contains `config.json`, `model.safetensors` or `pytorch_model.bin` (each may be
            in parts, with an index), `tokenizer.json`, and what else comes with them.

    Returns:
        The model; its weights are read one by one.

    Raises:
        UserError: A file is missing or damaged, or the model is none that can be read.
    """
    config = read_object(directory / "config.json")
    sizes = decoder_config(config, handle)
    tokenizer = read_tokenizer(directory, config["model_type"])
    tokens = read_tokens(directory)
    file = directory / "generation_config.json"
    generation = read_object(file) if file.is_file() else {}
    eos = generation.get("eos_token_id")
    first = "transformer." if config["model_type"] == "gpt2" else "model."
    tied = getattr(sizes, "tie_embeddings", True)
    stored = open_tensors(directory)
    tensors = {own: load for name, load in stored.items() if (own := _name(name, first, tied))}
    return LanguageModelFiles(
        handle=handle,
        config=config,
        names=frozenset(tensors),
        load=lambda name: tensors[name](),
        tokenizer=tokenizer,
        chat_template=read_chat_template(directory),
        tokens=tokens,
        stop_ids=stop_ids(tokenizer, tokens, config.get("eos_token_id") if eos is None else eos),
        directory=directory,
    )


def _name(stored: str, first: str, tied: bool) -> str | None:
    """Returns the name that the causal language model's tensor has; None: no part of it.

    A checkpoint that was saved without its head has names without the first part.
    """
    if _COMPUTED.search(stored) or (stored == "lm_head.weight" and tied):
        return None
    if stored.startswith(first) or stored == "lm_head.weight":
        return stored
    return first + stored if stored.startswith(_PARTS) else None
