"""Chooses the next tokens of answers, each by its own settings."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_finetune.generation.replies import Ask, Reply, Token
from tf_finetune.generation.row_sampling import Choices, RowValues, row_sampler

_NOBODY = Ask((), (), 1, temperature=0.0)


def choose_tokens(replies: Sequence[Reply | None], logits: tf.Tensor) -> None:
    """Chooses the next token of each answer.

    Args:
        replies: The answers, which get the tokens; None: nobody's row.
        logits: float32 [batch, vocabulary].
    """
    asks = [reply.ask if reply else _NOBODY for reply in replies]
    is_biased = any(ask.is_biased for ask in asks)
    bias = np.zeros((len(asks), logits.shape[1] if is_biased else 0), np.float32)
    for number, reply in enumerate(replies):
        if reply and reply.bias is not None:
            bias[number] = reply.bias
    sampler = row_sampler(
        logits.shape[1],
        draws=any(ask.temperature > 0 for ask in asks),
        cuts=any(ask.top_p < 1 for ask in asks),
        is_biased=is_biased,
        tells=any(ask.tells for ask in asks),
    )
    values = RowValues(
        tf.constant(bias),
        tf.constant([reply.uniform if reply else 0.0 for reply in replies]),
        tf.constant([ask.temperature for ask in asks], tf.float32),
        tf.constant([ask.top_p for ask in asks], tf.float32),
    )
    choices = Choices(*(part.numpy() for part in sampler(logits, values)))
    for number, reply in enumerate(replies):
        if reply:
            reply.push(_token(choices, number, reply.ask.tells))


def _token(choices: Choices, row: int, tells: bool) -> Token:
    id = int(choices.ids[row])
    if not tells:
        return Token(id)
    top = zip(choices.top_ids[row].tolist(), choices.top_logprobs[row].tolist(), strict=True)
    return Token(id, float(choices.logprobs[row]), tuple(top))
