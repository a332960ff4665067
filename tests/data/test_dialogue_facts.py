"""Facts and report of dialogues, against slow counts and by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.data.dialogue_files import assistant, load, system, user, write
from tf_finetune.data.conversations import Completion, Conversation, Preference
from tf_finetune.data.dialogue_facts import dialogue_facts, token_facts
from tf_finetune.data.dialogue_repeats import describe_dialogue_repeats
from tf_finetune.data.dialogue_report import dialogue_report, token_report
from tf_finetune.data.dialogues import DialogueData
from tf_finetune.data.marked import marked_example
from tf_finetune.errors import UserError


def test_facts_by_hand(tmp_path: Path) -> None:
    train = [
        {"messages": [system("s"), user("a"), assistant("b"), user(""), assistant("c", weight=0)]},
        {"messages": [user("long" * 5), assistant("b")]},
    ]
    test = [{"messages": [user("a")]}, {"messages": [user("b"), assistant("")]}]
    path = write(tmp_path / "b.jsonl", test)
    facts = dialogue_facts(load(tmp_path, train, test_file=str(path)))
    assert json.loads(json.dumps(facts)) == facts
    assert facts["splits"] == {
        "train": {
            "forms": ["messages"],
            "rows": 2,
            "turns": 7,
            "most_turns": 5,
            "roles": {"user": 3, "assistant": 3, "system": 1},
            "trained_turns": 2,
            "without_answer": 0,
            "empty_answers": 0,
            "empty_turns": 1,
            "characters": 25,
            "longest": {"characters": 21, "location": f"{tmp_path / 'a.jsonl'}:2"},
        },
        "test": {
            "forms": ["messages"],
            "rows": 2,
            "turns": 3,
            "most_turns": 2,
            "roles": {"user": 2, "assistant": 1},
            "trained_turns": 1,
            "without_answer": 1,
            "empty_answers": 1,
            "empty_turns": 1,
            "characters": 2,
            "longest": {"characters": 1, "location": f"{path}:1"},
        },
    }
    report = dialogue_report(facts)
    assert "Turns of train: user 3, assistant 3, system 1." in report
    assert "1 turn of train holds no text." in report
    assert "1 row of test has an empty answer." in report
    assert "No row occurs twice." in report
    assert "notice: 1 row of test without an answer" in report


def test_facts_of_texts_and_preferences() -> None:
    texts = [
        Completion("ab", "c", "f:1"),
        Completion("", "text", "f:2"),
        Completion("a", None, "f:3"),
    ]
    pairs = [Preference((user("a"),), (assistant("bc"),), (assistant("def"),), (), "g:1")]
    facts = dialogue_facts(DialogueData(texts, pairs, None))
    train, validation = facts["splits"]["train"], facts["splits"]["validation"]
    assert (train["turns"], train["trained_turns"], train["without_answer"]) == (0, 2, 1)
    assert (train["characters"], train["longest"]["location"]) == (8, "f:2")
    assert (validation["turns"], validation["characters"]) == (3, 4)
    assert dialogue_report(facts)


def test_repeats_equal_a_slow_count() -> None:
    random = np.random.default_rng(0)
    words = [form for n in range(12) for form in (f"w{n}", f"W{n}.")]

    def made(split: str, size: int) -> list[Conversation]:
        return [
            Conversation((user(words[a]), assistant(words[b])), (False, True), (), f"{split}:{row}")
            for row, (a, b) in enumerate(random.integers(0, len(words), (size, 2)))
        ]

    splits = {"train": made("train", 60), "validation": made("validation", 40)}
    told = describe_dialogue_repeats(splits)

    def texts(example: Conversation, plain: bool) -> tuple[str, str]:
        both = [message["content"] for message in example.messages]
        return tuple(text.strip(".").lower() if plain else text for text in both)  # type: ignore[return-value]

    def kind(one: Conversation, other: Conversation) -> str:
        if texts(one, False) == texts(other, False):
            return "equal"
        if texts(one, True) == texts(other, True):
            return "alike"
        return "same_prompt" if texts(one, True)[0] == texts(other, True)[0] else ""

    def slow(ones: list[Conversation], others: list[Conversation]) -> dict[str, list[list[str]]]:
        pairs: dict[str, list[list[str]]] = {"equal": [], "alike": [], "same_prompt": []}
        for place, other in enumerate(others):
            before = ones[:place] if ones is others else ones
            for wanted, found in pairs.items():
                first = next((one for one in before if kind(one, other) == wanted), None)
                if first is not None:
                    found.append([first.location, other.location])
                    break
        return pairs

    for split, examples in splits.items():
        expected = slow(examples, examples)
        for name, pairs in expected.items():
            assert told["within"][split][name] == {"rows": len(pairs), "pairs": pairs} and pairs
    (across,) = told["across"]
    for name, pairs in slow(splits["train"], splits["validation"]).items():
        assert across[name] == {"rows": len(pairs), "pairs": pairs} and pairs


def test_the_report_of_repeated_rows() -> None:
    train = [Completion("a", "b", "/d/t:1"), Completion("a", "b", "/d/t:2")]
    test = [
        Completion("A!", "B", "/d/e:1"),
        Completion("a", "c", "/d/e:2"),
        Completion("a", "b", "/d/e:3"),
    ]
    report = dialogue_report(dialogue_facts(DialogueData(train, None, test, notices=["n\x1b"] * 9)))
    assert "1 row of train (50.0%) equals an earlier row (t:1 and t:2)." in report
    assert "1 row of test (33.3%) equals a row of train (t:1 and e:3)." in report
    assert "1 row of test (33.3%) equals a row of train but for case" in report
    assert "1 row of test (33.3%) has the prompt of a row of train, and another answer" in report
    assert report.count("notice: n\\x1b") == 8 and "... 1 more: --data_report" in report


def test_token_facts() -> None:
    lengths = np.arange(1, 101)
    dropped = lengths > 95
    facts = token_facts(lengths, np.where(dropped, 0, 2), lengths > 80, dropped, 80)
    assert (
        json.loads(json.dumps(facts))
        == facts
        == {
            "max_seq_length": 80,
            "rows": 100,
            "median": 50.5,
            "percentile_90": pytest.approx(90.1),
            "percentile_99": pytest.approx(99.01),
            "longest": 100,
            "tokens": 5050,
            "answer_tokens": 190,
            "cut_rows": 20,
            "dropped_rows": 5,
        }
    )
    report = token_report({"train": facts, "test": facts})
    assert "cut at 80" in report and "20 (20.0%)" in report and "5 (5.0%)" in report


def test_most_rows_must_keep_an_answer() -> None:
    lengths = np.arange(1, 201)
    zeros = np.zeros(200, int)
    token_facts(lengths, zeros, lengths > 180, lengths > 180, 180)
    with pytest.raises(UserError, match=r"179: 21 of 200 rows .* --max_seq_length=199 keeps 99 %"):
        token_facts(lengths, zeros, lengths > 179, lengths > 179, 179)
    assert np.mean(lengths <= 199) >= 0.99 > np.mean(lengths <= 197)


def test_no_rows() -> None:
    nothing = np.zeros(0, int)
    facts = token_facts(nothing, nothing, nothing > 0, nothing > 0, 8)
    assert facts["rows"] == facts["tokens"] == 0
    assert token_report({"test": facts})


def test_what_is_learnt_is_marked() -> None:
    pieces = [("<s>", False), ("user\n", False), ("An", True), (" answer", True), ("\x1b[2J", True)]
    assert marked_example(pieces, colour=False) == "<s>user\n[[An answer\\x1b[2J]]"
    assert marked_example(pieces, colour=True) == "<s>user\n\x1b[32mAn answer\\x1b[2J\x1b[0m"
    assert marked_example([], colour=True) == ""
    two = [("a", True), ("b", False), ("c", True)]
    assert marked_example(two, colour=False) == "[[a]]b[[c]]"
