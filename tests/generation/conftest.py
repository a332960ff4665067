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


def logits_after(decoder: Any, ids: Sequence[int]) -> Any:
    """The logits after the last of some tokens, from the network without a memory.

    Padding keeps the shapes few, for each of which kernels are compiled.
    """
    import tensorflow as tf

    network, padding = decoder.network, [0] * (-len(ids) % 64)
    hidden = network(
        {
            "token_ids": tf.constant([[*ids, *padding]]),
            "segments": tf.constant([[1] * len(ids) + padding]),
            "positions": tf.constant([[*range(len(ids)), *padding]]),
        }
    )
    return tf.convert_to_tensor(network.head_kernel).numpy() @ hidden[0, len(ids) - 1].numpy()


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
