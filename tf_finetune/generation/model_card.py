"""The README.md of an exported model."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tf_finetune.formats.model_card import hub_name, last_part, read_license, table
from tf_finetune.generation.comparison import comparison_table

_LOAD = {
    "transformers": """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForCausalLM.from_pretrained("{folder}")
""",
    "peft": """\
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoPeftModelForCausalLM.from_pretrained("{folder}")
""",
}
_INPUTS = {
    True: """\
inputs = tokenizer.apply_chat_template(
    [{"role": "user", "content": "..."}],
    add_generation_prompt=True, return_dict=True, return_tensors="pt",
)
""",
    False: 'inputs = tokenizer("...", add_special_tokens=False, return_tensors="pt")\n',
}
_GENERATE = """\
answer = model.generate(**inputs, do_sample=False, max_new_tokens=256)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""
_LIMITS = (
    "The scores hold for rows like those that were tested. On others, and for what the base model "
    "does wrong, this model may be wrong too, fluently: check its answers before you rely on them."
)


def card_header(
    base: str, base_card: str | None, method: str, *, adapter: bool, datasets: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the metadata of a model card, as Hugging Face's Hub reads it.

    Args:
        base: The handle of the base model. Only a model of the Hub (`hf://org/name`) is named as
            `base_model`: others are not known there.
        base_card: The content of the base's README.md; its licence is this model's too.
        method: `sft` or `dpo`.
        adapter: Whether the folder holds a PEFT adapter, not the merged model.
        datasets: Names of data sets on the Hub.
    """
    header: dict[str, Any] = {}
    if name := hub_name(base):
        relation = "adapter" if adapter else "finetune"
        header |= {"base_model": name, "base_model_relation": relation}
    header |= {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["tf-finetune", method, *(["lora"] if adapter else [])],
        **read_license(base_card or ""),
    }
    return header | ({"datasets": list(datasets)} if datasets else {})


def model_card(
    header: Mapping[str, Any],
    base: str,
    data: Mapping[str, Any],
    settings: Mapping[str, Any],
    compared: Mapping[str, Any] | None,
    *,
    chat: bool = True,
) -> str:
    """Writes the README.md of an exported model.

    Args:
        header: From `card_header`.
        base: The handle of the base model.
        data: Facts of the data by name, as `training rows`.
        settings: The flags of the run and their values; of paths only the last part is shown.
        compared: From `compare`; None if nothing was evaluated.
        chat: Whether the model has a chat template.
    """
    library = header["library_name"]
    usage = _LOAD[library].format(folder="<this folder>") + _INPUTS[chat] + _GENERATE
    scores = "Not evaluated."
    if compared is not None:
        scores = f"With 95 % intervals.\n\n```\n{comparison_table(compared)}\n```"
    parts = [
        f"---\n{yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True)}---",
        f"# {last_part(base)}, fine-tuned",
        "## Data",
        table(("", "value"), data),
        "## Settings",
        table(("flag", "value"), {f"--{name}": value for name, value in settings.items()}),
        "## Scores",
        scores,
        "## How to use",
        f"With {library}:\n\n```python\n{usage}```",
        "With tf_finetune:\n\n"
        "```\npython run_generator.py --model=<this folder> --interactive\n```",
        "## Limitations",
        _LIMITS,
    ]
    return "\n\n".join(parts) + "\n"
