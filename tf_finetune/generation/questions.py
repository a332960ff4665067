"""The questions that a model is asked, from the examples of a file."""

from collections.abc import Sequence

from tf_finetune.data.conversations import Completion, Conversation, Example, Preference
from tf_finetune.generation.answers import Messages, Question


def make_questions(examples: Sequence[Example], is_raw: bool) -> list[Question]:
    """Makes the question of each example: what stands before its answer.

    Args:
        examples: The examples; of a preference the chosen answer is the right one.
        is_raw: Whether texts are asked as they are, without the chat template.
    """
    return [_question(example, is_raw) for example in examples]


def answered(example: Example, is_raw: bool) -> Messages | str:
    """Returns an example with its answer, to be shown before a question."""
    question = _question(example, is_raw)
    if isinstance(question.prompt, str):
        return question.prompt + (question.reference or "")
    return (*question.prompt, {"role": "assistant", "content": question.reference or ""})


def _question(example: Example, is_raw: bool) -> Question:
    if isinstance(example, Completion | Preference) and not is_raw:
        example = example.as_conversation()
    reference: str | None = None
    if isinstance(example, Completion):
        reference = example.completion
    elif isinstance(example, Conversation):
        reference = example.answer["content"] if example.answer else None
    elif isinstance(example.chosen, str):
        reference = example.chosen
    else:
        reference = example.chosen[-1]["content"]
    return Question(example.prompt, example.location, reference, example.id)
