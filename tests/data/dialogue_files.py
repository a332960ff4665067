"""Writes rows into files and reads them as examples, for the tests of dialogues."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tf_finetune.data.chat_config import ChatDataConfig
from tf_finetune.data.conversations import Example
from tf_finetune.data.dialogues import DialogueData, load_dialogues
from tf_finetune.runs.config import DataConfig


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **others: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **others}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load(folder: Path, rows: Sequence[Any], method: Any = "sft", **flags: Any) -> DialogueData:
    """Reads rows of training; flags of `ChatDataConfig` go there, the others to `DataConfig`."""
    names = ChatDataConfig.__dataclass_fields__
    chat = ChatDataConfig(**{name: flags.pop(name) for name in names if name in flags})
    others: dict[str, Any] = {name: flags.pop(name) for name in ["is_trained"] if name in flags}
    path = write(folder / "a.jsonl", rows)
    return load_dialogues(DataConfig(train_file=str(path), **flags), chat, method, **others)


def read(folder: Path, row: Any, method: Any = "sft", **flags: Any) -> Example:
    """Reads a single row of training."""
    data = load(folder, [row], method, **flags)
    assert data.train is not None
    (example,) = data.train
    return example
