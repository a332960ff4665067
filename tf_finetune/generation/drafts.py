"""Guesses what an answer goes on with, from the texts before it."""

from collections.abc import Sequence

# How many tokens have to be the same as before; the longest that are decide.
NGRAMS = (3, 2, 1)
# The most tokens that a step reads of a row, and of all rows.
MOST_TOKENS, MOST_ROWS = 8, 64
# What a step that reads guesses costs more than one that does not, in parts of that: always, and
# for each token more.
STEP_COST, TOKEN_COST = 1 / 2, 1 / 128
# How fast older guesses are forgotten, and how often guesses that did not pay are tried again.
DECAY, TRY_AGAIN = 0.25, 16
# The most n-grams that are remembered, some 30 MB.
MOST_NGRAMS = 2**17


class Drafts:
    """What an answer may go on with: what followed the same tokens in any text so far.

    A step of the decoder that reads some guessed tokens besides the last one takes little longer
    than a step for that one alone, and chooses the same tokens as several such steps, as far as the
    guesses are right (prompt lookup decoding; Saxena, 2023). Answers to the same task are alike, so
    all prompts and answers are remembered.

    Whether it pays is judged by how many guesses were right, never by the clock: a run that is
    repeated takes the same steps.
    """

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], tuple[list[int], int]] = {}
        self._right = 2.0  # Of a row's guesses in a step, on average; at first they are tried.
        self._skipped = 0

    def learn(self, ids: list[int], start: int) -> None:
        """Remembers what follows what in a text, which may grow.

        Args:
            ids: The text.
            start: The first token that is new.
        """
        if len(self._after) > MOST_NGRAMS:
            self._after.clear()
        for place in range(start, len(ids)):
            for size in NGRAMS:
                if size <= place:
                    self._after[tuple(ids[place - size : place])] = ids, place

    def guess(self, texts: Sequence[list[int]], limits: Sequence[int]) -> list[list[int]]:
        """Returns what each text may go on with; nothing, where that does not pay.

        Args:
            texts: The tokens of each.
            limits: The most tokens of each that are of use.
        """
        most = self.most_tokens(len(texts)) - 1
        guesses = [
            self._guess(ids, min(most, limit)) for ids, limit in zip(texts, limits, strict=True)
        ]
        if self._right < STEP_COST + most * len(texts) * TOKEN_COST and any(guesses):
            self._skipped = (self._skipped + 1) % TRY_AGAIN
            if self._skipped:
                return [[] for _ in texts]
        return guesses

    def judge(self, right: Sequence[int]) -> None:
        """Learns how many guesses were right in each row of a step that read some."""
        self._right += DECAY * (sum(right) / len(right) - self._right)

    @staticmethod
    def most_tokens(batch: int) -> int:
        """Returns how many tokens of a row a step reads where something was guessed."""
        return max(1, min(MOST_TOKENS, MOST_ROWS // batch))

    def _guess(self, ids: list[int], most: int) -> list[int]:
        for size in NGRAMS if most > 0 else ():
            if found := self._after.get(tuple(ids[-size:])):
                text, place = found
                return text[place : place + most]
        return []
