"""Rendered texts as ids, with the tokens of the answers, cut to a length."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from tf_finetune.text.chat import Rendered
from tf_finetune.text.stand_ins import Span
from tf_finetune.text.tokenizer import Encoding, Tokenizer


@dataclass(frozen=True)
class Row:
    """A text as tokens; all spans are tokens of it, end exclusive.

    Attributes:
        ids: The tokens' ids.
        answers: The trained ones: each answer with its end token. One that straddles the border
            between prompt and answer is trained.
        head: Tokens at the start that stay when the prompt is cut.
    """

    ids: list[int]
    answers: tuple[Span, ...]
    head: int = 0

    @property
    def trained(self) -> list[bool]:
        """For each token whether it is learnt."""
        mask = [False] * len(self.ids)
        for start, end in self.answers:
            mask[start:end] = [True] * (end - start)
        return mask

    @property
    def targets(self) -> list[int]:
        """For each token but the last, the next one's id if that is learnt, else -1."""
        pairs = zip(self.ids[1:], self.trained[1:], strict=True)
        return [id if is_learnt else -1 for id, is_learnt in pairs]


def tokenize(tokenizer: Tokenizer, texts: Sequence[Rendered]) -> list[Row]:
    """Cuts rendered texts into tokens, of any length."""
    encodings = tokenizer.encode_batch(
        [text.text for text in texts], [text.special for text in texts]
    )
    return [
        _row(text, encoding, tokenizer.special_ids)
        for text, encoding in zip(texts, encodings, strict=True)
    ]


def truncate(row: Row, max_length: int) -> Row | None:
    """Cuts a row to a length.

    First the prompt loses tokens from its left, behind the head, until the first answer fits; but a
    quarter of what the head leaves free stays the prompt's, if it is that long. Then the row loses
    what is too long at its end: an answer that is cut there has no end token.

    Args:
        row: Any row. One without answers is a prompt, which is cut from the left only.
        max_length: The most tokens.

    Returns:
        The row, the same if it fits; None: no token of an answer (of a prompt: no token behind the
        head) would be left to learn.
    """
    if len(row.ids) <= max_length:
        return row if row.answers == () or _learns(row) else None
    return _cut(row, min(_surplus(row, max_length)), max_length)


def truncate_pair(chosen: Row, rejected: Row, max_length: int) -> tuple[Row, Row] | None:
    """Cuts two rows of one prompt, from which both lose the same tokens; see `truncate`.

    Args:
        chosen: A row with an answer.
        rejected: A row with the same prompt and another answer.
        max_length: The most tokens of each.

    Returns:
        Both; None: one would have no token of an answer left to learn.
    """
    pair = (chosen, rejected)
    too_many, may_go = zip(*(_surplus(row, max_length) for row in pair), strict=True)
    drop = min(max(too_many), *may_go)
    first, second = (_cut(row, drop, max_length) for row in pair)
    return None if first is None or second is None else (first, second)


def _surplus(row: Row, max_length: int) -> tuple[int, int]:
    """Returns how many tokens the prompt has too many for the answer to fit, and may lose."""
    first, end = row.answers[0] if row.answers else (len(row.ids), len(row.ids))
    kept = 0 if not row.answers else max(0, max_length - row.head) // 4
    return end - max_length, first - row.head - kept


def _cut(row: Row, drop: int, max_length: int) -> Row | None:
    """Takes tokens from the prompt, and then what is too long from the end."""
    drop = max(0, drop)
    ids = (row.ids[: row.head] + row.ids[row.head + drop :])[:max_length]
    answers = tuple(
        (start - drop, min(stop - drop, max_length))
        for start, stop in row.answers
        if start - drop < max_length
    )
    cut = Row(ids, answers, min(row.head, max_length))
    if not row.answers:
        return cut if row.head < max_length else None
    return cut if _learns(cut) else None


def _learns(row: Row) -> bool:
    # The first token of a row is never predicted.
    return any(end > max(start, 1) for start, end in row.answers)


def _row(rendered: Rendered, encoding: Encoding, special_ids: frozenset[int]) -> Row:
    written = [start for start, _ in rendered.special]
    places: list[Span] = []
    for id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        if id in special_ids:
            # Some take the spaces beside them along, which belong to others.
            at = bisect_left(written, start)
            if at < len(written) and written[at] < end:
                start, end = rendered.special[at]
        places.append((start, end))
    answers = [_tokens_of(span, places) for span in rendered.answers]
    head = sum(end <= rendered.head for _, end in places)
    first = min((start for start, end in answers if start < end), default=len(places))
    found = tuple(span for span in answers if span[0] < span[1])
    return Row(encoding.ids, found, min(head, first) if found else head)


def _tokens_of(span: Span, places: Sequence[Span]) -> Span:
    """The tokens that have a part in a span of characters."""
    start, stop = span
    inside = [at for at, (a, b) in enumerate(places) if a < stop and b > start]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)
