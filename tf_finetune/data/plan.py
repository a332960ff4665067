"""Plans the rows and the lengths of batches.

A plan is a numpy table of row numbers, and its random order depends on the seed alone: a training
can resume at any step, and workers agree without communication.
"""

from collections.abc import Sequence

import numpy as np

# Batches are sorted by length within this many batches, as in Hugging Face's LengthGroupedSampler:
# enough rows to find neighbours of equal length, few enough to keep the order random.
GROUP_BATCHES = 50
# The cost of a further length, in tokens: XLA compiles the kernels of models/fused.py for each. For
# a training this takes 0.7 s on 2 cores, in which 6 layers of 384 train 3,000 tokens. BERT-base
# trains 450: there the constant is too high, and costs some seconds of padding per training. For an
# evaluation it takes 0.3 s, or 6,500 tokens, but every further evaluation pads again.
NEW_LENGTH_TOKENS = 3072
EVAL_NEW_LENGTH_TOKENS = 2048


def count_steps(num_examples: int, batch_size: int, num_epochs: float = 1.0) -> int:
    """Returns the optimizer steps of `num_epochs` passes; partial batches and steps count whole."""
    return int(np.ceil(num_epochs * -(-num_examples // batch_size)))


def plan_training(lengths: np.ndarray, batch_size: int, num_steps: int, seed: int) -> np.ndarray:
    """Chooses the rows of every batch of a training.

    Args:
        lengths: int [n], the length of each row.
        batch_size: Rows per batch.
        num_steps: Batches.
        seed: Decides the order; epoch e uses the generator seeded with (seed, e).

    Returns:
        int32 [num_steps, batch_size] row numbers, -1 where a batch is filled up.
    """
    epochs: list[np.ndarray] = []
    planned = 0
    while planned < num_steps:
        random = np.random.default_rng((seed, len(epochs)))
        rows = random.permutation(len(lengths))
        size = GROUP_BATCHES * batch_size
        groups = [rows[start : start + size] for start in range(0, len(rows), size)]
        ordered = [group[np.argsort(-lengths[group], kind="stable")] for group in groups]
        batches = cut_rows(np.concatenate(ordered), batch_size)
        epochs.append(random.permutation(batches))
        planned += len(batches)
    return np.concatenate(epochs)[:num_steps]


def choose_buckets(
    longest: np.ndarray, batch_size: int, max_seq_length: int, new_length_tokens: int
) -> tuple[int, ...]:
    """Chooses the lengths that batches are padded to, at the least cost.

    Padding costs its tokens, and each length `new_length_tokens`: so many batches of nearly the
    same length get a length of their own, a few long ones share one.

    Args:
        longest: int [batches], the tokens of the longest row of each batch.
        batch_size: Rows per batch.
        max_seq_length: No length is longer.
        new_length_tokens: The price of a length, in tokens.

    Returns:
        Multiples of 4 or `max_seq_length`, in ascending order.
    """
    rounded = np.minimum(-(-longest // 4) * 4, max_seq_length)
    lengths, counts = np.unique(rounded, return_counts=True)
    batches = np.concatenate([[0], np.cumsum(counts)])
    # The least cost of the batches up to each length, if it is chosen, and the choice before it.
    costs, previous = [0], [-1]
    for number, length in enumerate(lengths):
        tokens = (batches[number + 1] - batches[: number + 1]) * length * batch_size
        totals = np.array(costs) + tokens + new_length_tokens
        previous.append(int(np.argmin(totals)))
        costs.append(int(totals.min()))
    chosen = []
    number = len(lengths)
    while number > 0:
        chosen.append(int(lengths[number - 1]))
        number = previous[number]
    return tuple(reversed(chosen))


def xla_buckets(max_seq_length: int) -> tuple[int, ...]:
    """Returns six lengths at most, for XLA, which compiles the whole step for each."""
    rounded = (max_seq_length * part // 64 * 8 for part in (1, 2, 3, 4, 6))
    return (*sorted({n for n in rounded if 8 <= n < max_seq_length}), max_seq_length)


def cut_rows(rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Cuts rows into int32 [batches, batch_size], -1 after the last row."""
    filled = np.full(-(-len(rows) // batch_size) * batch_size, -1, np.int32)
    filled[: len(rows)] = rows
    return filled.reshape(-1, batch_size)


def longest_rows(lengths: np.ndarray, plan: np.ndarray) -> np.ndarray:
    """Returns the tokens of the longest row of each batch, int [batches]."""
    return np.where(plan >= 0, lengths[plan], 0).max(axis=1)


def bucket_table(buckets: Sequence[int], longest: int) -> np.ndarray:
    """Returns the bucket of each length: int32 [longest + 1], indexed by the length itself."""
    if longest > max(buckets):
        raise ValueError(f"A row of {longest} tokens is longer than the buckets {buckets}.")
    return np.array(
        [min(b for b in buckets if b >= length) for length in range(longest + 1)], np.int32
    )
