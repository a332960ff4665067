"""What there is in prompts and conversations, and what may be wrong with it, as a JSON object."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_finetune.data.conversations import (
    Completion,
    Conversation,
    Example,
    Message,
    num_characters,
    turns,
)
from tf_finetune.data.dialogue_repeats import describe_dialogue_repeats
from tf_finetune.data.dialogues import DialogueData
from tf_finetune.errors import UserError

# With more of the rows without an answer after cutting, a training is not begun.
MOST_DROPPED = 0.1


def dialogue_facts(data: DialogueData) -> dict[str, Any]:
    """Describes all splits: rows, turns, roles, empty answers, lengths, repeated rows.

    Returns:
        A JSON object:

        - `train_is_sample`: whether `train` is a sample of rows that are streamed;
        - `splits`: for each `forms`, `rows`, `turns` (0 of texts), `most_turns`, `roles` (turns of
          each), `trained_turns`, `without_answer` (rows that can only be predicted),
          `empty_answers`, `empty_turns` (of all roles), `characters` (in all), `longest`
          (`characters` and `location`);
        - `repeats`: see `describe_dialogue_repeats`;
        - `notices`: of `DialogueData`.
    """
    return {
        "train_is_sample": data.stream is not None,
        "splits": {
            split: {"forms": list(data.forms.get(split, ())), **_describe(examples)}
            for split, examples in data.splits.items()
        },
        "repeats": describe_dialogue_repeats(data.splits),
        "notices": list(data.notices),
    }


def token_facts(
    full_lengths: np.ndarray,
    answer_tokens: np.ndarray,
    cut: np.ndarray,
    dropped: np.ndarray,
    max_seq_length: int,
) -> dict[str, Any]:
    """Describes how long the rows of a split are in tokens.

    Args:
        full_lengths: int [n], the tokens of each row before it is cut.
        answer_tokens: int [n], the tokens of each row that are learnt; 0 of those dropped.
        cut: bool [n], whether tokens of the row are lost.
        dropped: bool [n], whether the row is left out, since no token of its answer is left.
        max_seq_length: Where rows are cut.

    Returns:
        A JSON object: `max_seq_length`, `rows`, `median`, `percentile_90`, `percentile_99` and
        `longest` of the full lengths, `tokens` and `answer_tokens` in all, `cut_rows`,
        `dropped_rows`.

    Raises:
        UserError: More than a tenth of the rows is dropped.
    """
    rows, num_dropped = len(full_lengths), int(np.count_nonzero(dropped))
    marks = np.percentile(full_lengths, (50, 90, 99, 100)) if rows else np.zeros(4)
    if num_dropped > MOST_DROPPED * rows:
        enough = int(np.percentile(full_lengths, 99, method="higher"))
        raise UserError(
            f"--max_seq_length={max_seq_length}: {num_dropped:,} of {rows:,} rows "
            f"({num_dropped / rows:.0%}) are so long that nothing of their answer is left. "
            f"--max_seq_length={enough} keeps 99 % of the rows whole; the longest has "
            f"{int(marks[-1]):,} tokens."
        )
    names = ("median", "percentile_90", "percentile_99", "longest")
    return {
        "max_seq_length": max_seq_length,
        "rows": rows,
        **dict(zip(names, marks.tolist(), strict=True)),
        "tokens": int(np.sum(full_lengths, dtype=np.int64)),
        "answer_tokens": int(np.sum(answer_tokens, dtype=np.int64)),
        "cut_rows": int(np.count_nonzero(cut)),
        "dropped_rows": num_dropped,
    }


def _describe(examples: Sequence[Example]) -> dict[str, Any]:
    roles: Counter[str] = Counter()
    num_turns, trained = [0], 0
    empty_turns = empty_answers = 0
    sizes = [num_characters(example) for example in examples]
    for example in examples:
        messages = turns(example)
        num_turns.append(len(messages))
        roles.update(message["role"] for message in messages)
        empty_turns += sum(map(_is_empty, messages))
        if isinstance(example, Conversation):
            trained += sum(example.trained)
            empty_answers += example.answer is not None and _is_empty(example.answer)
        elif isinstance(example, Completion):
            trained += example.has_answer
    longest = int(np.argmax(sizes)) if sizes else None
    return {
        "rows": len(examples),
        "turns": sum(num_turns),
        "most_turns": max(num_turns),
        "roles": dict(roles.most_common()),
        "trained_turns": trained,
        "without_answer": sum(not example.has_answer for example in examples),
        "empty_answers": empty_answers,
        "empty_turns": empty_turns,
        "characters": sum(sizes),
        "longest": None
        if longest is None
        else {"characters": sizes[longest], "location": examples[longest].location},
    }


def _is_empty(turn: Message) -> bool:
    return not turn["content"].strip() and not turn.get("tool_calls")
