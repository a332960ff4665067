"""Which tokens are trained, and what is left of a row at every length."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_finetune.text.answers import Row, tokenize, truncate
from tf_finetune.text.chat import Rendered, chat_format


@pytest.fixture(scope="session")
def format(tokenizer, template):
    def make(name, kind):
        tokens = {"bos_token": tokenizer(kind).token(1), "eos_token": tokenizer(kind).token(2)}
        return chat_format(tokenizer(kind), template(name), tokens)

    return make


CASES = [
    ("smollm2", "smollm2", "<|im_end|>"),
    ("llama3", "llama3", "<|eot_id|>"),
    ("phi3", "phi3", "<|end|>"),
    ("qwen3", "qwen", "<|im_end|>"),
]
contents = st.text(st.sampled_from("ab \n🙂é<|im_end|>"), max_size=12)


@pytest.mark.parametrize(("name", "kind", "end"), CASES)
@settings(max_examples=25, deadline=None)
@given(texts=st.lists(contents, min_size=2, max_size=6), system=st.booleans())
def test_at_every_length(name, kind, end, texts, system, format):
    made = format(name, kind)
    roles = ["user", "assistant"] * 3
    messages = [
        {"role": role, "content": text}
        for role, text in zip(roles, texts[: len(texts) // 2 * 2], strict=False)
    ]
    if system:
        messages.insert(0, {"role": "system", "content": "S"})
    trained = [message["role"] == "assistant" for message in messages]
    rendered = made.conversation(messages, trained)
    (row,) = tokenize(made.tokenizer, [rendered])
    end_id, special = made.tokenizer.id_of(end), made.tokenizer.special_ids
    assert len(row.answers) == len(rendered.answers) == len(messages) // 2
    for start, stop in row.answers:
        # The end token is the last, and the only special one: no role header.
        assert row.ids[stop - 1] == end_id
        assert not special.intersection(row.ids[start : stop - 1])
    first = row.answers[0][0]
    for length in range(1, len(row.ids) + 2):
        cut = truncate(row, length)
        if cut is None:
            assert length <= row.head + 1 or length <= 2
            continue
        assert len(cut.ids) == min(length, len(row.ids))
        dropped = min(row.answers[0][1], len(row.ids)) and first - cut.answers[0][0]
        # The head, then one part of the row without a gap.
        assert cut.ids[: row.head] == row.ids[: row.head][: len(cut.ids)]
        rest = cut.ids[row.head :]
        assert rest == row.ids[row.head + dropped :][: len(rest)]
        whole = [(start + dropped, stop + dropped) for start, stop in cut.answers]
        for (start, stop), (true_start, true_stop) in zip(whole, row.answers, strict=False):
            assert start == true_start and stop <= true_stop
            assert (row.ids[stop - 1] == end_id) == (stop == true_stop)
        # An answer that is cut leaves the prompt a quarter of the room.
        if row.answers[0][1] > length:
            kept = first - row.head - dropped
            assert whole[0][1] == row.answers[0][1] or kept <= (length - row.head) // 4
        assert sum(cut.trained) == sum(stop - start for start, stop in cut.answers)
        shown = [target for target in cut.targets if target >= 0]
        starts = [start for start, _ in cut.answers]
        assert len(shown) == sum(cut.trained) - (0 in starts)


def test_targets_are_the_next_tokens():
    row = Row([5, 6, 7, 8], ((2, 4),))
    assert row.trained == [False, False, True, True] and row.targets == [-1, 7, 8]


def test_the_token_over_the_border_is_trained(tokenizer):
    made = tokenizer("smollm2")
    rendered = Rendered("the capi", ((6, 8),), ())
    text = "hello wor" + "ld"
    (row,) = tokenize(made, [Rendered(text, ((9, 11),), ())])
    assert [made.token(id) for id in row.ids[slice(*row.answers[0])]] == ["Ġworld"]
    (row,) = tokenize(made, [rendered])
    assert row.trained[-1]


def test_bytes_of_one_character_are_trained_together(tokenizer):
    made = tokenizer("llama")
    (row,) = tokenize(made, [Rendered("a🙂", ((1, 2),), ())])
    assert [made.token(id) for id in row.ids][-4:] == ["<0xF0>", "<0x9F>", "<0x99>", "<0x82>"]
    assert row.trained[-4:] == [True] * 4 and not any(row.trained[:-4])


def test_the_space_that_a_tokenizer_puts_before_an_answer_is_trained(tokenizer):
    made = tokenizer("legacy")
    (row,) = tokenize(made, [Rendered("a<s>The", ((4, 7),), ((1, 4),))])
    assert [made.token(id) for id in row.ids[slice(*row.answers[0])]] == ["▁", "The"]


def test_a_header_that_takes_the_answers_spaces_along_is_not_trained(format):
    made = format("phi3", "phi3")
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "  \n b"}]
    (row,) = tokenize(made.tokenizer, [made.conversation(messages, [False, True])])
    tokens = [made.tokenizer.token(id) for id in row.ids[slice(*row.answers[0])]]
    assert tokens[-1] == "<|end|>" and "<|assistant|>" not in tokens


def test_a_prompt_is_cut_from_its_left_and_keeps_the_system_turn(format):
    made = format("smollm2", "smollm2")
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one two three four five six seven"},
    ]
    (row,) = tokenize(made.tokenizer, [made.prompt(messages)])
    cut = truncate(row, len(row.ids) - 4)
    assert made.tokenizer.decode(cut.ids, skip_special_tokens=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n five six seven<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert truncate(row, row.head) is None


@pytest.mark.parametrize("length", [3, 10])
def test_a_row_without_a_token_to_learn_is_none(length):
    assert truncate(Row([1] * length, ((0, 1),), 0), 5) is None
    assert truncate(Row([1] * 20, ((8, 20),), 8), 8) is None
    assert truncate(Row([1] * 20, ((8, 20),), 8), 9).answers == ((8, 9),)


def test_an_answer_that_does_not_fit_shares_the_room_with_its_prompt():
    row = Row(list(range(20)), ((10, 20),), 2)
    assert truncate(row, 10) == Row([0, 1, 8, 9, 10, 11, 12, 13, 14, 15], ((4, 10),), 2)
    # One that fits costs the prompt no more than it needs.
    assert truncate(row, 18) == Row([0, 1, *range(4, 20)], ((8, 18),), 2)
