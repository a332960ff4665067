"""A tiny language model, and conversations for it."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MODELS = Path(__file__).resolve().parents[1] / "formats" / "language_models"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@pytest.fixture(scope="session")
def tiny_llama() -> Path:
    """A random llama of 3 layers and width 32, a byte a token, with a chat template."""
    return MODELS / "llama"


def logits_after(decoder: Any, ids: Sequence[int]) -> Any:
    """The logits after the last of some tokens, from the network without a memory."""
    return logits_after_all(decoder, [ids])[0]


def logits_after_all(decoder: Any, rows: Sequence[Sequence[int]]) -> Any:
    """The logits after the last token of each row, [rows, vocabulary].

    Padding keeps the shapes few, for each of which kernels are compiled.
    """
    import tensorflow as tf

    network, length = decoder.network, -(-max(map(len, rows)) // 64) * 64
    ids = np.zeros((len(rows), length), np.int32)
    segments = np.zeros_like(ids)
    for row, own in enumerate(rows):
        ids[row, : len(own)], segments[row, : len(own)] = own, 1
    positions = segments * np.arange(length, dtype=np.int32)
    features = {"token_ids": ids, "segments": segments, "positions": positions}
    hidden = network({name: tf.constant(value) for name, value in features.items()}).numpy()
    last = np.stack([hidden[row, len(own) - 1] for row, own in enumerate(rows)])
    return last @ tf.convert_to_tensor(network.head_kernel).numpy().T


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
