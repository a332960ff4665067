"""Some answers as text, for the terminal and for TensorBoard."""

from collections.abc import Mapping, Sequence

from tf_finetune.data.wording import escaped
from tf_finetune.generation.answers import Answer, Question

# The most characters of a prompt or an answer.
WIDTH = 400


def fixed_rows(count: int, rows: int = 3) -> list[int]:
    """Returns the same few of `count` rows each time, from all parts of the file."""
    return [place * count // rows for place in range(rows)] if count > rows else list(range(count))


def sample_text(question: Question, answers: Mapping[str, str]) -> str:
    r"""Lays out a row: where it stands, its prompt, its reference and the answers to it.

    Args:
        question: The row.
        answers: The texts of the answers, by what the answer is called.

    Returns:
        A line for each, cut where it is long. Line ends within texts are written as `\n`.
    """
    parts = {"prompt": question.text}
    if question.reference is not None:
        parts["reference"] = question.reference
    parts |= answers
    width = max(map(len, parts))
    lines = [f"  {name.ljust(width)}  {_cut(escaped(text))}" for name, text in parts.items()]
    return "\n".join([escaped(question.location), *lines])


def progress_text(step: int, questions: Sequence[Question], answers: Sequence[Answer]) -> str:
    """Lays out the answers that a model gives to fixed prompts while it is trained."""
    rows = [
        sample_text(question, {f"answer ({answer.finish_reason}, {answer.tokens})": answer.text})
        for question, answer in zip(questions, answers, strict=True)
    ]
    return "\n".join([f"step {step:,}, answers (why they ended, tokens):", *rows])


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}... ({len(text):,} characters)"
