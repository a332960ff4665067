"""Conversations as text, with the places of answers and special tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tf_finetune.errors import UserError
from tf_finetune.text.chat_template import Call, ChatTemplate, Message
from tf_finetune.text.stand_ins import Span
from tf_finetune.text.tokenizer import Tokenizer
from tf_finetune.text.turns import Habits, Turns, find_turns, learn_habits

# For models without a template: plain text, roles as words, the model's own EOS after an answer.
PLAIN = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if tools or message['tool_calls'] %}"
    "{{ raise_exception('the built-in plain format knows no tools') }}{% endif %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% else %}{{ message['role'] | capitalize + ': ' + message['content'] }}"
    "{{ (eos_token if message['role'] == 'assistant' else '') + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

Tools = Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class Rendered:
    """A text for the model; all spans are characters of it, end exclusive.

    Attributes:
        text: The text, special tokens as they are written.
        answers: What is trained: whole turns of the assistant, each with its end token, without
            the role before it.
        special: The special tokens that the template wrote. Others are what somebody typed.
        head: Characters at the start that stay when a prompt is cut: BOS and the system turn.
        notices: What the reader of a report should know, in plain sentences.
    """

    text: str
    answers: tuple[Span, ...]
    special: tuple[Span, ...]
    head: int = 0
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChatFormat:
    """A chat template together with the tokenizer that reads its text.

    Attributes:
        template: The checkpoint's, or one of `PLAIN`.
        tokenizer: The checkpoint's.
        eos_ids: The tokens that end an answer by the checkpoint's configuration.
    """

    template: ChatTemplate
    tokenizer: Tokenizer
    eos_ids: tuple[int, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether this is the built-in format for models without a template."""
        return self.template.source == PLAIN

    @cached_property
    def end_tokens(self) -> tuple[str, ...]:
        """What the template writes after an answer and generation stops at, e.g. `<|im_end|>`.

        Text where no special token is written; nothing where the template writes neither.

        Raises:
            UserError: The template cannot write a question and its answer.
        """
        return self._habits.ends

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids at which generation stops: of `end_tokens`, and those of the checkpoint."""
        ends = [self.tokenizer.id_of(token) for token in self.end_tokens]
        return tuple(dict.fromkeys([*(id for id in ends if id is not None), *self.eos_ids]))

    def conversation(
        self, messages: Sequence[Message], trained: Sequence[bool], tools: Tools | None = None
    ) -> Rendered:
        """Writes a conversation and finds its trained turns.

        Each is what the text has more than the prompt before it, up to its end token; see
        `text/turns.py`. Nothing is searched for in token ids.

        Args:
            messages: The turns, as the template takes them.
            trained: For each message whether it is trained; only the assistant's may be.
            tools: JSON schemas of the tools that the model may call.

        Returns:
            The text and its spans.

        Raises:
            UserError: The template refuses the conversation or leaves out a trained turn.
        """
        return self._rendered(messages, tools, [at for at, is_one in enumerate(trained) if is_one])

    def prompt(self, messages: Sequence[Message], tools: Tools | None = None) -> Rendered:
        """Writes a conversation up to the header of the answer to come.

        Raises:
            UserError: The template refuses the conversation.
        """
        return self._rendered(messages, tools, None)

    def completion(self, prompt: str, completion: str) -> Rendered:
        """Joins two plain texts: BOS if the tokenizer puts it, prompt, completion, EOS.

        Args:
            prompt: What is not trained; may be empty.
            completion: What is trained. If it ends with EOS as text, it gets no second one.

        Returns:
            The text and its spans.

        Raises:
            UserError: The checkpoint names no EOS token.
        """
        eos = self.template.tokens.get("eos_token")
        if not eos:
            raise UserError(
                "the checkpoint names no eos_token (tokenizer_config.json), so that a completion "
                "cannot be taught to end. Add it there."
            )
        bos = "".join(map(self.tokenizer.token, self.tokenizer.prefix_ids))
        start = len(bos) + len(prompt)
        text = bos + prompt + completion.removesuffix(eos) + eos
        special = [*self.tokenizer.stand_ins.find(bos), (len(text) - len(eos), len(text))]
        return Rendered(text, ((start, len(text)),), tuple(special), head=len(bos))

    @cached_property
    def _habits(self) -> Habits:
        return learn_habits(self.template, self.tokenizer.stand_ins)

    def _rendered(
        self, messages: Sequence[Message], tools: Tools | None, trained: Sequence[int] | None
    ) -> Rendered:
        """Writes a conversation; trained: None for the prompt of an answer to come."""
        stand_ins = self.tokenizer.stand_ins
        # What somebody typed is no special token: the template gets stand-ins in its place.
        turns = Turns(self.template, stand_ins, stand_ins.hide(messages), stand_ins.hide(tools))
        found = find_turns(turns, trained, self._habits)
        special = stand_ins.find(found.text)
        text = stand_ins.reveal(found.text)
        if (turns.messages, turns.tools) != (list(messages), tools and list(tools)):
            self._check_hidden(Call(messages, tools, trained is None), text)
        self._check_bos(text, special)
        return Rendered(text, found.answers, tuple(special), found.head, found.notices)

    def _check_hidden(self, call: Call, text: str) -> None:
        (plain,) = self.template.render_all([call])
        if isinstance(plain, UserError):
            raise plain
        if plain != text:
            raise UserError(
                "the conversation contains special tokens of the model as text "
                f"({', '.join(sorted(self._typed(call)))}), and the chat template treats a turn "
                "with them in another way. Take them out of the conversation."
            )

    def _typed(self, call: Call) -> set[str]:
        written = repr([call.messages, call.tools])
        return {written[start:end] for start, end in self.tokenizer.stand_ins.find(written)}

    def _check_bos(self, text: str, special: Sequence[Span]) -> None:
        bos = self.template.tokens.get("bos_token")
        if bos and [text[start:end] for start, end in special[:2]] == [bos, bos]:
            (_, first_end), (second_start, _) = special[:2]
            if first_end == second_start:
                raise UserError(
                    f"the chat template writes the token {bos} twice at the start. Remove one "
                    "from the template, and give it with --chat_template=<file>."
                )


def chat_format(
    tokenizer: Tokenizer,
    source: str | None,
    tokens: Mapping[str, str],
    eos_ids: Sequence[int] = (),
) -> ChatFormat:
    """Returns the format of a checkpoint.

    Args:
        tokenizer: The checkpoint's.
        source: Its chat template; None: it has none, and gets the built-in plain one.
        tokens: Its special tokens by name: `bos_token`, `eos_token`, ...
        eos_ids: The tokens that end an answer by its configuration.
    """
    if source is None:
        bos = "".join(map(tokenizer.token, tokenizer.prefix_ids))
        source, tokens = PLAIN, {**tokens, "bos_token": bos}
    return ChatFormat(ChatTemplate(source, tokens), tokenizer, tuple(eos_ids))
