"""Chooses the next tokens of answers, each by its own settings."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_finetune.generation.answer_settings import AnswerSettings
from tf_finetune.generation.replies import Ask, Reply, Token
from tf_finetune.generation.row_sampling import Choices, RowValues, row_sampler

_NOBODY = Ask((), (), 1, settings=AnswerSettings(temperature=0.0))


def choose_tokens(replies: Sequence[Reply | None], logits: tf.Tensor) -> None:
    """Chooses the next token of each answer.

    Args:
        replies: The answers, which get the tokens; None: nobody's row.
        logits: float32 [batch, vocabulary].
    """
    asks = [reply.ask if reply else _NOBODY for reply in replies]
    settings = [ask.settings for ask in asks]
    is_biased = any(one.is_biased for one in settings)
    bias = np.zeros((len(asks), logits.shape[1] if is_biased else 0), np.float32)
    for number, reply in enumerate(replies):
        if reply and reply.bias is not None:
            bias[number] = reply.bias
    sampler = row_sampler(
        logits.shape[1],
        draws=any(one.temperature > 0 for one in settings),
        cuts=any(one.top_p < 1 for one in settings),
        is_biased=is_biased,
        tells=any(ask.tells for ask in asks),
    )
    values = RowValues(
        tf.constant(bias),
        tf.constant([reply.uniform if reply else 0.0 for reply in replies]),
        tf.constant([one.temperature for one in settings], tf.float32),
        tf.constant([one.top_p for one in settings], tf.float32),
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
