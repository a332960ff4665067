"""Answers inquiries with the models in memory; all of it runs in the engine's thread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras

from tf_finetune.errors import UserError
from tf_finetune.generation.dialogue_format import DialogueFormat
from tf_finetune.generation.replies import Ask, Reply, Token
from tf_finetune.generation.slots import Slots
from tf_finetune.runtime.hardware import choose_precision, compile_unseen
from tf_finetune.server.engine import Call, Inquiry, Piece, Prompt, Stream, TokenText, as_told
from tf_finetune.server.failures import ApiError
from tf_finetune.server.labelling import label, texts_of
from tf_finetune.server.loaded import LabelModel, LanguageModel, Loaded, Model
from tf_finetune.server.loading import Loading
from tf_finetune.text.token_bytes import token_bytes
from tf_finetune.text.tokenizer import Tokenizer


@dataclass
class _Answer:
    """An answer and who reads it.

    Attributes:
        stream: The reader's.
        index: Its number there.
        slots: Where it grows.
        told: How many of its tokens have been told.
    """

    stream: Stream
    index: int
    slots: Slots
    told: int = 0


class Answering:
    """Takes inquiries and answers them step by step."""

    def __init__(self, loaded: Loaded, call: Call, precision: str = "auto") -> None:
        """Sets Keras' dtype policy for this thread.

        Args:
            loaded: The models.
            call: Has a function called in this thread, soon.
            precision: See `choose_precision`.
        """
        keras.config.set_dtype_policy(choose_precision(precision)[0])
        compile_unseen()
        self._loaded = loaded
        self._loading = Loading(loaded, call, self._take)
        self._answers: dict[Reply, _Answer] = {}
        self._texts: dict[Stream, tuple[LabelModel, list[str]]] = {}

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to answer."""
        return not (self._answers or self._texts)

    def begin(self, stream: Stream) -> None:
        """Takes an inquiry: its prompts wait for its model, or for the next step."""
        if stream.is_closed:
            return
        if model := self._loaded.get(stream.inquiry.model):
            self._take(model, stream)
        else:
            self._loading.add(stream)

    def close(self) -> None:
        """Waits until nothing is loaded any more."""
        self._loading.close()

    def drop(self, stream: Stream) -> None:
        """Forgets the answers that a reader does not wait for any more."""
        self._loading.drop(stream)
        self._texts.pop(stream, None)
        for reply, answer in list(self._answers.items()):
            if answer.stream is stream:
                answer.slots.drop(reply)
                del self._answers[reply]

    def step(self) -> None:
        """Gives each model that answers a step, and the readers what is new."""
        self._label()
        for slots in list({id(one.slots): one.slots for one in self._answers.values()}.values()):
            try:
                changed = slots.step()
            except Exception as error:  # Such as too little memory.
                self._fail(slots, as_told(error))
                continue
            for reply in changed:
                self._tell(reply, slots.decoder.tokenizer)

    def _take(self, model: Model, stream: Stream) -> None:
        """Lets the prompts of an inquiry wait for the next step."""
        try:
            if isinstance(model, LabelModel):
                self._texts[stream] = model, texts_of(stream.inquiry.prompts)
            else:
                self._generate(model, stream)
        except ApiError as error:
            self.drop(stream)
            stream.fail(error)
        except Exception as error:
            self.drop(stream)
            stream.fail(as_told(error))

    def _label(self) -> None:
        """Answers those who asked classifiers since the last step."""
        waiting, self._texts = self._texts, {}
        for model in {id(model): model for model, _ in waiting.values()}.values():
            asked = [
                (stream, texts) for stream, (other, texts) in waiting.items() if other is model
            ]
            try:
                label(model, asked)
            except Exception as error:
                told = as_told(error)
                for stream, _ in asked:
                    stream.fail(told)

    def _generate(self, model: LanguageModel, stream: Stream) -> None:
        inquiry, slots = stream.inquiry, model.slots
        prompts = [_ids(prompt, model.form) for prompt in inquiry.prompts]
        asks = [
            _ask(stream, model, prompt, number) for prompt in prompts for number in range(inquiry.n)
        ]
        try:
            for ask in asks:
                slots.check(ask)
        except UserError as error:
            param = "prompt" if isinstance(inquiry.prompts[0], str) else "messages"
            raise ApiError(400, str(error), param, "context_length_exceeded") from None
        stream.begun(sum(map(len, prompts)))
        for index, ask in enumerate(asks):
            self._answers[slots.add(ask)] = _Answer(stream, index, slots)

    def _tell(self, reply: Reply, tokenizer: Tokenizer) -> None:
        answer = self._answers[reply]
        text, reason = reply.answer.part(), reply.answer.reason
        if text or reason:
            # The end token is no part of the text.
            new = [
                token for token in reply.tokens[answer.told :] if token.id not in reply.ask.stop_ids
            ]
            told = tuple(_told(token, answer.stream.inquiry, tokenizer) for token in new)
            answer.told = len(reply.tokens)
            count = len(reply.tokens)
            answer.stream.push(
                Piece(answer.index, text, told if reply.ask.tells else (), reason, count)
            )
        if reason:
            del self._answers[reply]

    def _fail(self, slots: Slots, error: Exception) -> None:
        """Gives up the answers of a model, which is loaded anew when it is asked for."""
        self._loaded.forget(slots)
        for stream in {a.stream for a in self._answers.values() if a.slots is slots}:
            stream.fail(error)
        self._answers = {r: a for r, a in self._answers.items() if a.slots is not slots}


def _ids(prompt: Prompt, form: DialogueFormat) -> list[int]:
    """Returns the token ids of a prompt."""
    if isinstance(prompt, str):
        return form.prompt_ids(prompt)
    if prompt and isinstance(prompt[0], Mapping):
        return form.prompt_ids(tuple(prompt))  # type: ignore[arg-type]
    ids = [id for id in prompt if isinstance(id, int)]
    size = form.chat.tokenizer.vocab_size
    if strange := [id for id in ids if not 0 <= id < size]:
        raise UserError(
            f"prompt: {strange[0]} is no token; the model has those of 0 to {size - 1}."
        )
    return ids


def _ask(stream: Stream, model: LanguageModel, prompt: Sequence[int], number: int) -> Ask:
    inquiry = stream.inquiry
    tokenizer = model.form.chat.tokenizer
    bias = inquiry.settings.logit_bias
    if strange := [id for id in bias if not 0 <= id < tokenizer.vocab_size]:
        raise UserError(
            f"logit_bias: {strange[0]} is no token; the model has those of 0 to "
            f"{tokenizer.vocab_size - 1}."
        )
    most = inquiry.max_tokens
    return Ask(
        prompt,
        model.form.chat.stop_ids,
        model.slots.longest - len(prompt) if most is None else most,
        model.adapter,
        inquiry.settings,
        number,
        tells=inquiry.logprobs is not None,
        asker=stream,
    )


def _told(token: Token, inquiry: Inquiry, tokenizer: Tokenizer) -> TokenText:
    top = token.top[: inquiry.logprobs or 0]
    return TokenText(
        token_bytes(tokenizer, token.id),
        token.logprob or 0.0,
        tuple((token_bytes(tokenizer, id), logprob) for id, logprob in top),
    )
