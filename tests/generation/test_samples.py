"""Answers as text."""

from tf_finetune.generation.answers import Answer, Question
from tf_finetune.generation.samples import fixed_rows, progress_text, sample_text

ASKED = ({"role": "system", "content": "Be short."}, {"role": "user", "content": "Why?\nTell."})


def test_fixed_rows_are_from_all_parts() -> None:
    assert fixed_rows(300) == [0, 100, 200]
    assert fixed_rows(3) == [0, 1, 2] and fixed_rows(2) == [0, 1] and fixed_rows(0) == []
    assert all(len(set(fixed_rows(count))) == 3 for count in range(3, 50))


def test_progress_shows_prompts_references_and_answers() -> None:
    text = progress_text(
        1_200,
        [Question(ASKED, "dev.jsonl:4", "Because."), Question("Once upon", "dev.jsonl:5")],
        [Answer("So.", 3, "stop", 0.1), Answer(" a time", 64, "length", 1.0)],
    )
    assert text.splitlines() == [
        "step 1,200, answers (why they ended, tokens):",
        "dev.jsonl:4",
        "  prompt            Why?\\nTell.",
        "  reference         Because.",
        "  answer (stop, 3)  So.",
        "dev.jsonl:5",
        "  prompt               Once upon",
        "  answer (length, 64)   a time",
    ]


def test_a_terminal_obeys_no_answer_and_long_ones_are_cut() -> None:
    text = sample_text(Question("p", "t:1"), {"tuned": "\x1b[2J\r" + "x" * 1_000})
    assert text.endswith("  tuned   \\x1b[2J\\r" + "x" * (400 - 9) + "... (1,009 characters)")


def test_a_message_without_content_is_empty() -> None:
    assert Question(({"role": "assistant", "content": None},), "t:1").text == ""
    assert Question(({"role": "assistant", "tool_calls": []},), "t:1").text == ""
