"""Prompts of the base model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_finetune.errors import UserError
from tf_finetune.generation.answers import Messages
from tf_finetune.generation.few_shot import choose_examples, with_examples, with_instruction

SYSTEM = {"role": "system", "content": "You are a bank."}
ASKED = {"role": "user", "content": "My balance?"}
TOOL = {"role": "tool", "content": "{}", "name": "check"}


def turns(name: str) -> Messages:
    return ({"role": "user", "content": f"{name}?"}, {"role": "assistant", "content": f"{name}!"})


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ((ASKED,), ({"role": "system", "content": "As JSON."}, ASKED)),
        (
            (SYSTEM, ASKED, TOOL),
            ({"role": "system", "content": "You are a bank.\n\nAs JSON."}, ASKED, TOOL),
        ),
        ("Q: a\nA:", "As JSON.\n\nQ: a\nA:"),
    ],
)
def test_the_instruction_ends_the_system_turn(
    prompt: Messages | str, expected: Messages | str
) -> None:
    assert with_instruction(prompt, "As JSON.") == expected


def test_examples_are_earlier_turns_after_the_one_system_turn() -> None:
    examples = [turns("a"), (SYSTEM, *turns("b"))]
    assert with_examples((SYSTEM, ASKED), examples) == (SYSTEM, *turns("a"), *turns("b"), ASKED)
    assert with_examples((ASKED,), examples) == (*turns("a"), *turns("b"), ASKED)
    assert with_examples((ASKED,), []) == (ASKED,)
    assert with_examples("Q: c\nA:", ["Q: a\nA: x", "Q: b\nA: y"]) == (
        "Q: a\nA: x\n\nQ: b\nA: y\n\nQ: c\nA:"
    )


def test_prompts_given_are_not_changed() -> None:
    prompt = (dict(SYSTEM), dict(ASKED))
    with_instruction(with_examples(prompt, [turns("a")]), "As JSON.")
    assert prompt == (SYSTEM, ASKED)


@given(st.integers(0, 8), st.integers(0, 3))
def test_examples_are_different_rows_and_the_same_for_a_seed(count: int, seed: int) -> None:
    rows = [str(row) for row in range(8)]
    chosen = choose_examples(rows, count, seed)
    assert len(set(chosen)) == count and set(chosen) <= set(rows)
    assert chosen == choose_examples(rows, count, seed)


def test_seeds_choose_other_rows() -> None:
    rows = [str(row) for row in range(1_000)]
    assert choose_examples(rows, 5, seed=1) != choose_examples(rows, 5, seed=2)


def test_too_few_rows_are_an_error() -> None:
    with pytest.raises(UserError, match="shown 3 examples, but there are only 2 training rows"):
        choose_examples(["a", "b"], 3, seed=0)
