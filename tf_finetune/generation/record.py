"""What a generator's model directory records beside its settings."""

from collections.abc import Mapping
from typing import Any

from tf_finetune.generation.config import Config
from tf_finetune.runs.model_dir import ModelDir

KIND = "generator"


def learnt_record(chat_template: str | None) -> dict[str, Any]:
    """Returns the record of a generator.

    Args:
        chat_template: The source of the template in use; None: the checkpoint has none.
    """
    return {"kind": KIND, "chat_template": chat_template}


def load_record(model_dir: ModelDir) -> tuple[Config, str | None]:
    """Reads the record of a generator's training.

    Args:
        model_dir: Its folder.

    Returns:
        The configuration, and the source of the template that it was trained with.

    Raises:
        UserError: There is no model, it is damaged, or it is no generator's.
    """
    config, learnt = model_dir.load(Config)
    if learnt.get("kind") != KIND:
        raise model_dir.of_another_program(config.program)
    template = learnt.get("chat_template")
    if not isinstance(template, str | None):
        raise model_dir.damaged(TypeError(f"chat_template is {template!r}"))
    return config, template


def save_record(
    model_dir: ModelDir, config: Config, chat_template: str | None, files: Mapping[str, str]
) -> None:
    """Writes the record of a run; see `ModelDir.save`."""
    model_dir.save(config, learnt_record(chat_template), files)
