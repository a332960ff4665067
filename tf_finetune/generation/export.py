"""Exports a generator: a model in Hugging Face's format, its adapter, and a SavedModel."""

import dataclasses
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from keras import ops

from tf_finetune.files import is_remote, make_dirs, replaced_directory
from tf_finetune.formats.decoder import Decoder
from tf_finetune.formats.decoders import load_decoder
from tf_finetune.formats.huggingface_writer import write_model
from tf_finetune.formats.language_model import LanguageModelFiles
from tf_finetune.formats.peft import write_adapter
from tf_finetune.generation.cards import make_card
from tf_finetune.generation.generator import Generator
from tf_finetune.generation.merge import kernels_are_transposed, merged_tensors, stored_dtype
from tf_finetune.generation.merge_check import (
    MergeCheck,
    check_merged,
    float32_on_cpu,
    probe_rows,
)
from tf_finetune.generation.prepare import Request
from tf_finetune.generation.saved_model import write_saved_model
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.text.chat import PLAIN

# The folders in a model directory, named as its properties are.
MERGED, ADAPTER, SAVED_MODEL = "export", "adapter", "saved_model"
CARD = "README.md"
# The text side of a model: transformers and vLLM look for it beside an adapter too.
_TEXT_SIDE = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"),
    *("tokenizer.model", "added_tokens.json", "vocab.json", "merges.txt"),
)


def export(generator: Generator, request: Request) -> None:
    """Writes all exports of a run, in place of earlier ones once all are made.

    Args:
        generator: The model.
        request: Of the run, which has a model directory. Logits are compared on its rows, if it
            has some.

    Raises:
        UserError: An export is not what was trained, or cannot be written.
    """
    model_dir = request.model_dir
    assert model_dir
    cards = {
        name: make_card(generator, request, adapter=name == ADAPTER) for name in (MERGED, ADAPTER)
    }
    with _staging(model_dir) as folder:
        check = write_exports(folder, generator, probe_rows(generator, request.data), cards)
        print(f"merged     {check}")
        if check.warning:
            print(f"warning: {check.warning}", file=sys.stderr)
        for made in sorted(folder.iterdir()):
            target = getattr(model_dir, made.name)
            with replaced_directory(target) as empty:
                os.replace(made, empty)
            print(f"exported to {target}")
    model_dir.save_metrics({"export": check.to_json()})


def write_exports(
    folder: Path,
    generator: Generator,
    rows: Sequence[Sequence[int]],
    cards: Mapping[str, bytes],
) -> MergeCheck:
    """Writes `export`, `saved_model` and, where there are adapters, `adapter`.

    Args:
        folder: Where to write these.
        generator: The model.
        rows: Token ids, some rows on which logits are compared.
        cards: The content of README.md in `export` and in `adapter`.

    Returns:
        How far the merged model is from the trained one.

    Raises:
        UserError: An export is not what was trained, or cannot be written.
    """
    check, merged = write_merged(folder / MERGED, generator, rows, cards[MERGED])
    if generator.decoder.network.adapters:
        text_side = [folder / MERGED / name for name in _TEXT_SIDE]
        others = {file.name: file.read_bytes() for file in text_side if file.is_file()}
        _write_adapter(folder / ADAPTER, generator.decoder, others | {CARD: cards[ADAPTER]})
    write_saved_model(folder / SAVED_MODEL, merged, rows)
    return check


def write_merged(
    directory: Path, generator: Generator, rows: Sequence[Sequence[int]], card: bytes
) -> tuple[MergeCheck, Decoder]:
    """Writes a generator as a directory in Hugging Face's format, and reads it again.

    The adapters are merged into the weights, which have the base's dtype (float32 where the base is
    quantised). All other files are the base's, but for the chat template, if training had another
    one, and stop ids that the base does not list.

    Args:
        directory: Where to write.
        generator: The model.
        rows: Token ids, some rows on which logits are compared.
        card: The content of README.md.

    Returns:
        How far the directory's model is from the trained one, and that model, in float32.

    Raises:
        UserError: It is not what was trained, or cannot be written.
    """
    decoder = generator.decoder
    files = dataclasses.replace(decoder.files, chat_template=_chat_template(generator))
    dtype = stored_dtype(files)
    write_model(
        directory,
        files,
        merged_tensors(decoder),
        dtype=dtype,
        # The base's first: then its generation_config.json stays as it is, if they are all in it.
        stop_ids=tuple(dict.fromkeys([*files.stop_ids, *decoder.chat.stop_ids])),
        others={CARD: card},
    )
    with float32_on_cpu():
        merged = load_decoder(str(directory))
    check = check_merged(decoder, merged, rows, dtype)
    check.check()
    return check, merged


def _write_adapter(directory: Path, decoder: Decoder, others: Mapping[str, bytes]) -> None:
    network = decoder.network
    factors = {
        module: (ops.convert_to_numpy(a), ops.convert_to_numpy(b))
        for module, (a, b) in network.adapters.items()
    }
    write_adapter(
        directory,
        network.lora,
        factors,
        base=base_name(decoder.files),
        transposed=kernels_are_transposed(decoder),
        others=others,
    )


@contextmanager
def _staging(model_dir: ModelDir) -> Iterator[Path]:
    """Yields a folder whose content can be moved into the model directory.

    `ModelDir.remove_leftovers` knows it by its name.
    """
    place = None if is_remote(model_dir.path) else model_dir.path
    if place:
        make_dirs(place)
    with tempfile.TemporaryDirectory(prefix=f".{MERGED}.", dir=place) as folder:
        yield Path(folder)


def _chat_template(generator: Generator) -> str | None:
    """Returns the source of the template that training used, as transformers can run it."""
    chat = generator.decoder.chat
    if not chat.is_plain:
        return chat.template.source
    if generator.is_raw:
        return None
    # transformers would write the tokenizer's BOS, though the model was not trained with it.
    return PLAIN.replace("{{ bos_token }}", chat.template.tokens["bos_token"])


def base_name(files: LanguageModelFiles) -> str:
    """Returns how PEFT names the base: as the Hub does, or by its folder."""
    name = files.handle.removeprefix("hf://")
    if name != files.handle:
        return name.partition("@")[0]
    if files.directory is None or is_remote(files.handle):
        return files.handle
    return str(files.directory)
