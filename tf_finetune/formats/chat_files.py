"""The text side of a model in Hugging Face's format: special tokens, chat template."""

from pathlib import Path
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.formats.handles import read_object
from tf_finetune.formats.weight_parts import check_fetched

# Those that templates may name.
TOKENS = (
    *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
)
_REMEDY = "Copy it from where the model comes from."


def read_tokens(directory: Path) -> dict[str, str]:
    """Reads the special tokens that templates may name, from `tokenizer_config.json`."""
    tokens: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        content = read_object(directory / name) if (directory / name).is_file() else {}
        for key in TOKENS:
            value = content.get(key)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                tokens[key] = value
    return tokens


def read_chat_template(directory: Path) -> str | None:
    """Reads the chat template: that of `chat_template.jinja`, or of `tokenizer_config.json`.

    Raises:
        UserError: A file is damaged.
    """
    file = directory / "chat_template.jinja"
    if file.is_file():
        check_fetched(file)
        try:
            return file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{file} is not text in UTF-8: {error}. {_REMEDY}") from error
    file = directory / "tokenizer_config.json"
    content = read_object(file) if file.is_file() else {}
    return _template(content.get("chat_template"), file)


def _template(value: Any, file: Path) -> str | None:
    """Returns the template of a value that is one, or a list of templates with names."""
    if value is None or isinstance(value, str):
        return value
    try:
        named = {template["name"]: template["template"] for template in value}
        return str(named["default"] if "default" in named else next(iter(named.values())))
    except (TypeError, KeyError, StopIteration):
        raise UserError(
            f"{file} has chat_template={str(value)[:60]}; it must be a text, or a list of objects "
            f"with name and template. {_REMEDY}"
        ) from None
