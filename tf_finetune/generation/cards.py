"""The model cards of a run: what its request, its data and its results say."""

from collections.abc import Mapping
from typing import Any

from tf_finetune.generation.config import Config
from tf_finetune.generation.generator import Generator
from tf_finetune.generation.model_card import card_header, model_card
from tf_finetune.generation.prepare import Request
from tf_finetune.runs.settings import told_settings

# Settings that a card tells even where they have their defaults.
_ALWAYS = (
    *("model", "method", "max_seq_length", "train_batch_size", "learning_rate"),
    *("num_train_epochs", "lora_rank", "lora_alpha"),
)


def make_card(generator: Generator, request: Request, *, adapter: bool) -> bytes:
    """Returns the README.md of an exported model.

    Args:
        generator: The model.
        request: Of its run. The scores are those in the model directory's results.
        adapter: Whether it is of the adapter alone.
    """
    decoder, config = generator.decoder, request.config
    files = decoder.files
    readme = files.directory / "README.md" if files.directory else None
    base_card = None
    if readme and readme.is_file():
        base_card = readme.read_text(encoding="utf-8", errors="replace")
    results = request.model_dir.load_metrics() if request.model_dir else {}
    read = data_rows(request.facts)
    # What it was trained and scored on, not what it answers now.
    data = {**read, **results["data"]} if "data" in results else read or _files(config)
    text = model_card(
        card_header(decoder.handle, base_card, config.decoder.method, adapter=adapter),
        decoder.handle,
        data,
        {**told_settings(config, Config(), _ALWAYS), **_adapters(generator)},
        results.get("comparison"),
        chat=not generator.is_raw,
    )
    return text.encode()


def data_rows(facts: Mapping[str, Any]) -> dict[str, str]:
    """Returns the rows and turns of each split; nothing where no data were read."""
    found = {}
    for split, described in facts["splits"].items() if facts else ():
        sample = " (a sample)" if split == "train" and facts["train_is_sample"] else ""
        found[f"{split} rows{sample}"] = f"{described['rows']:,}"
        if described["turns"]:
            found[f"{split} turns{sample}"] = f"{described['turns']:,}"
    return found


def _files(config: Config) -> dict[str, str]:
    """Returns the names of the files that a run without a record of its rows has read."""
    data = config.data
    named = {
        "data folder": data.data_dir,
        "training file": data.train_file,
        "validation file": data.validation_file,
        "test file": data.test_file,
    }
    return {name: value for name, value in named.items() if value}


def _adapters(generator: Generator) -> dict[str, Any]:
    """Returns the settings of the adapters, which those of --adapter bring along."""
    lora = generator.decoder.network.lora
    if lora is None:
        return {}
    return {"lora_rank": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
