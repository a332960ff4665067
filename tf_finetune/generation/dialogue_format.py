"""`DialogueFormat`: how a language model's examples become texts."""

from dataclasses import dataclass

from tf_finetune.data.conversations import Completion, Conversation, Example, Preference
from tf_finetune.errors import UserError
from tf_finetune.generation.answers import Messages
from tf_finetune.text.chat import ChatFormat, Rendered


@dataclass(frozen=True)
class DialogueFormat:
    """How examples become texts: by the chat template, or as they stand.

    Attributes:
        chat: The model's.
        is_raw: Whether prompts and completions are joined as they are, without the template.
    """

    chat: ChatFormat
    is_raw: bool = False

    def example(self, example: Example) -> Rendered:
        """Writes an example with its answers, a preference with its chosen one.

        Raises:
            UserError: The template refuses it; the message says where it stands.
        """
        try:
            if isinstance(example, Preference):
                example = example.alternatives[0]
            if isinstance(example, Completion):
                chat = example if self.is_raw else example.as_conversation()
                if isinstance(chat, Completion):
                    return self.chat.completion(chat.prompt, chat.completion or "")
                example = chat
            assert isinstance(example, Conversation)
            return self.chat.conversation(example.messages, example.trained, example.tools or None)
        except UserError as error:
            raise UserError(f"{example.location}: {error}") from None

    def prompt_ids(self, prompt: Messages | str) -> list[int]:
        """Returns the token ids of what comes before an answer."""
        if isinstance(prompt, str):
            rendered = self.chat.completion(prompt, "")
            start = rendered.answers[0][0]
            special = [span for span in rendered.special if span[1] <= start]
            return self.chat.tokenizer.encode(rendered.text[:start], special).ids
        rendered = self.chat.prompt(prompt)
        return self.chat.tokenizer.encode(rendered.text, rendered.special).ids

    @property
    def fingerprint(self) -> str:
        """Returns a cache key that only equal formats share."""
        template = self.chat.template
        return " ".join(
            [self.chat.tokenizer.fingerprint(), template.source, str(template.tokens)]
            + ["raw"] * self.is_raw
        )
