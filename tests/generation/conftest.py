"""A tiny language model, and conversations for it."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

MODELS = Path(__file__).resolve().parents[1] / "formats" / "language_models"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@pytest.fixture(scope="session")
def tiny_llama() -> Path:
    """A random llama of 3 layers and width 32, a byte a token, with a chat template."""
    return MODELS / "llama"


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    """Writes rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def day_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Makes conversations to learn: the day after a day, in lines of different lengths."""
    chosen = random.Random(seed)
    rows = []
    for _ in range(count):
        day = chosen.randrange(7)
        question = f"{'after ' * chosen.randrange(1, 4)}{DAYS[day]}?"
        answer = DAYS[(day + 1) % 7]
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        rows.append({"messages": messages})
    return rows
