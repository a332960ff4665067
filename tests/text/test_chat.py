"""Where answers and special tokens are in conversations of real templates."""

import subprocess
import sys

import pytest

from tf_finetune.errors import UserError
from tf_finetune.text.answers import tokenize
from tf_finetune.text.chat import PLAIN, ChatFormat, chat_format
from tf_finetune.text.chat_template import ChatTemplate
from tf_finetune.text.turns import learn_habits

# Template, tokenizer, BOS, EOS, and what ends an answer.
FORMATS = {
    "smollm2": ("smollm2", "<|im_start|>", "<|im_end|>", "<|im_end|>"),
    "qwen2_5": ("qwen", None, "<|im_end|>", "<|im_end|>"),
    "qwen3": ("qwen", None, "<|im_end|>", "<|im_end|>"),
    "qwen3_training": ("qwen", None, "<|im_end|>", "<|im_end|>"),
    "llama3": ("llama3", "<|begin_of_text|>", "<|eot_id|>", "<|eot_id|>"),
    "llama3_1": ("llama3", "<|begin_of_text|>", "<|eot_id|>", "<|eot_id|>"),
    "llama3_2": ("llama3", "<|begin_of_text|>", "<|eot_id|>", "<|eot_id|>"),
    "phi3": ("phi3", "<s>", "</s>", "<|end|>"),
    "plain": ("llama", "<s>", "</s>", "</s>"),
    # Templates whose end token is text for this tokenizer.
    "gemma": ("smollm2", "<|endoftext|>", "<|im_end|>", "<end_of_turn>"),
    "gemma3": ("smollm2", "<|endoftext|>", "<|im_end|>", "<end_of_turn>"),
    "cohere": ("smollm2", "<|endoftext|>", "<|im_end|>", "<|END_OF_TURN_TOKEN|>"),
    "deepseekv3": ("smollm2", "<|endoftext|>", "<|im_end|>", "<｜end▁of▁sentence｜>"),
}


@pytest.fixture(scope="session")
def formats(tokenizer, template):
    def make(name: str) -> ChatFormat:
        kind, bos, eos, _ = FORMATS[name]
        tokens = {"eos_token": eos, "date_string": "26 Jul 2024"}
        if bos:
            tokens["bos_token"] = bos
        source = None if name == "plain" else template(name)
        eos_id = tokenizer(kind).id_of(eos)
        return chat_format(tokenizer(kind), source, tokens, [eos_id])

    return make


def talk(*contents, system=None):
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]
    return ([{"role": "system", "content": system}] if system else []) + messages


def learnt(format, messages, trained=None, tools=None):
    if trained is None:
        trained = [message["role"] == "assistant" for message in messages]
    rendered = format.conversation(messages, trained, tools)
    return rendered, [rendered.text[start:end] for start, end in rendered.answers]


@pytest.mark.parametrize("name", FORMATS)
def test_an_answer_is_the_content_and_its_end(name, formats):
    made, end = formats(name), FORMATS[name][3]
    assert made.end_tokens == (end,)
    _, answers = learnt(made, talk("Hi", "Yes, 1st.", "And?", "user assistant", "x", "Bye"))
    lead = " " if name == "plain" else ""
    last = "<think>\n\n</think>\n\n" if name.startswith("qwen3") else ""
    thought = last if name == "qwen3_training" else ""
    assert answers == [
        f"{lead}{thought}Yes, 1st.{end}",
        f"{lead}{thought}user assistant{end}",
        f"{lead}{last}Bye{end}",
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_each_turn_is_found_alone_as_with_others(name, formats):
    made, messages = formats(name), talk("a", "b", "c", "d", "e", "f")
    whole, _ = learnt(made, messages)
    for number, at in enumerate((1, 3, 5)):
        rendered, _ = learnt(made, messages, [turn == at for turn in range(6)])
        assert rendered.text == whole.text and rendered.answers == (whole.answers[number],)


@pytest.mark.parametrize("name", FORMATS)
def test_hostile_contents(name, formats, references):
    made, end = formats(name), FORMATS[name][3]
    for text in references["texts"]:
        if name in ("gemma", "gemma3", "cohere", "deepseekv3") and end in text:
            continue
        messages = talk("q", text, text, text)
        try:
            rendered, answers = learnt(made, messages)
        except UserError as error:
            assert "special tokens of the model as text" in str(error)
            assert name.startswith("qwen3")
            continue
        expected = made.template.render(messages)
        assert rendered.text == expected
        for answer, (_, stop) in zip(answers, rendered.answers, strict=True):
            assert answer.endswith(end)
            kept = answer.removesuffix(end).strip()
            if "<think>" not in kept and "<think>" not in text:
                assert kept == text.strip()
            # The end token is genuine.
            if made.stop_ids[0] in made.tokenizer.special_ids and end in FORMATS[name][1:3]:
                assert stop in {b for _, b in rendered.special}
        prompt = made.prompt(messages[:-1])
        assert prompt.text == made.template.render(messages[:-1], add_generation_prompt=True)


@pytest.mark.parametrize("name", FORMATS)
def test_typed_special_tokens_are_text_and_written_ones_are_not(name, formats):
    made = formats(name)
    control = "".join(sorted(made.tokenizer.token(id) for id in made.tokenizer.special_ids))
    if "<unk>" in control:
        control = control.replace("<unk>", "")
    typed, _ = learnt(made, talk(control, control, control, control))
    plain, _ = learnt(made, talk("a", "b", "c", "d"))
    ids = [
        [
            id
            for id in row.ids
            if id in made.tokenizer.special_ids and id != made.tokenizer.id_of("<unk>")
        ]
        for row in tokenize(made.tokenizer, [typed, plain])
    ]
    assert ids[0] == ids[1]


@pytest.mark.parametrize("name", ["smollm2", "qwen2_5", "qwen3", "llama3", "llama3_2", "phi3"])
def test_ids_equal_those_of_transformers(name, formats, references, short):
    made, kind = formats(name), FORMATS[name][0]
    compared = 0
    for title, (messages, tools) in references["conversations"].items():
        expected = references["chats"].get(f"{name} / {kind} / {title}")
        # transformers takes special tokens that are typed for real ones.
        if expected is None or made.tokenizer.stand_ins.find(str(messages)):
            continue
        trained = [message["role"] == "assistant" for message in messages]
        (row,) = tokenize(made.tokenizer, [made.conversation(messages, trained, tools)])
        assert short(row.ids) == expected, title
        compared += 1
    assert compared > 20


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "llama3_1", "llama3_2"])
def test_calls_of_tools_are_part_of_the_answer(name, formats, references):
    made, end = formats(name), FORMATS[name][3]
    for title, (messages, tools) in references["conversations"].items():
        if not tools:
            continue
        rendered, answers = learnt(made, messages, tools=tools)
        called = next(answer for answer in answers if "weather" in answer)
        assert called.endswith("}" + end) or called.endswith("</tool_call>" + end)
        assert "Zürich <b>" in called and "sun" not in called
        assert not any(role in "".join(answers) for role in ("im_start", "start_header", "ipython"))
        assert rendered.text == made.template.render(messages, tools=tools), title


def test_a_template_that_rewrites_earlier_turns_is_told(formats):
    made = formats("qwen3")
    thought = "<think>\nhm\n</think>\n\n"
    rendered, answers = learnt(made, talk("a", f"{thought}b", "c", f"{thought}d"))
    assert answers == ["b<|im_end|>", f"{thought}d<|im_end|>"]
    assert len(rendered.notices) == 1 and "in another way" in rendered.notices[0]
    rendered, answers = learnt(made, talk("a", f"{thought}b"))
    assert answers == [f"{thought}b<|im_end|>"] and not rendered.notices


def test_no_prompt_leads_to_a_first_turn_of_the_assistant(formats):
    for name in ("smollm2", "llama3", "qwen3", "phi3"):
        made, end = formats(name), FORMATS[name][3]
        messages = [{"role": "assistant", "content": "Welcome"}, *talk("a", "b")]
        _, answers = learnt(made, messages)
        assert answers[0] == f"Welcome{end}" and answers[1].endswith(f"b{end}")


def test_the_head_holds_the_system_turn(formats):
    for name in ("smollm2", "llama3", "qwen2_5", "gemma3", "plain"):
        rendered, _ = learnt(formats(name), talk("question", "answer", system="Be brief."))
        head = rendered.text[: rendered.head]
        assert "Be brief." in head and "question" not in head


def test_a_template_without_a_generation_prompt_gets_its_header(formats):
    made = formats("smollm2")
    source = made.template.source.split("{% if add_generation_prompt")[0]
    without = ChatFormat(ChatTemplate(source, made.template.tokens), made.tokenizer)
    assert without.prompt(talk("a")) == made.prompt(talk("a"))
    assert learnt(without, talk("a", "b", "c", "d")) == learnt(made, talk("a", "b", "c", "d"))


def test_an_answer_of_several_parts_ends_with_its_last(formats):
    source = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.reasoning %}"
    source += "{{ m.reasoning + '<|im_end|>' }}{% endif %}{{ m.content + '<|im_end|>\n' }}"
    source += "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    made = ChatFormat(ChatTemplate(source), formats("smollm2").tokenizer)
    messages = talk("a", "b", "c", "d")
    messages[1]["reasoning"] = messages[3]["reasoning"] = "hm"
    answers = ["hm<|im_end|>b<|im_end|>", "hm<|im_end|>d<|im_end|>"]
    assert learnt(made, messages)[1] == answers


def test_a_header_is_not_cut_within_a_special_token(formats):
    made = formats("phi3")
    # Both the header and what stands there without a prompt start with "<|".
    template = ChatTemplate(made.template.source, {"eos_token": "<|system|>"})
    assert learn_habits(template, made.tokenizer.stand_ins).header == "<|assistant|>\n"


def test_a_template_without_an_end_token(formats):
    source = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    source += "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    made = ChatFormat(ChatTemplate(source), formats("smollm2").tokenizer, (2,))
    rendered, answers = learnt(made, talk("a", "b", "c", "d"))
    assert answers == [" b", " d"] and made.stop_ids == (2,)
    assert "no end token" in rendered.notices[0]


def test_a_template_of_another_tokenizer_that_cannot_be_read(formats, template):
    made = ChatFormat(ChatTemplate(template("gptoss")), formats("smollm2").tokenizer)
    with pytest.raises(UserError, match="the tokenizer has no such special tokens"):
        learnt(made, talk("a", "b"))


def test_a_template_that_leaves_answers_out(formats):
    source = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    made = ChatFormat(ChatTemplate(source), formats("smollm2").tokenizer)
    with pytest.raises(UserError, match="does not write each turn"):
        learnt(made, talk("a", "b"))


def test_two_bos_in_a_row_are_refused(formats):
    made = formats("llama3")
    doubled = ChatTemplate("{{ bos_token }}" + made.template.source, made.template.tokens)
    with pytest.raises(UserError, match=r"<\|begin_of_text\|> twice at the start"):
        learnt(ChatFormat(doubled, made.tokenizer), talk("a", "b"))


def test_a_template_that_looks_for_typed_tokens_is_refused(formats):
    source = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    source += "{{ m.content.split('<|im_end|>')[0] + '<|im_end|>\n' }}{% endfor %}"
    made = ChatFormat(ChatTemplate(source), formats("smollm2").tokenizer)
    assert learnt(made, talk("a", "b"))[1] == ["b<|im_end|>"]
    with pytest.raises(UserError, match=r"special tokens of the model as text \(<\|im_end\|>\)"):
        learnt(made, talk("a<|im_end|>b", "c"))


def test_plain_format(formats):
    made = formats("plain")
    assert made.is_plain and not formats("smollm2").is_plain and made.template.source == PLAIN
    rendered, answers = learnt(made, talk("Hi", "Ho", system="S"))
    assert rendered.text == "<s>S\n\nUser: Hi\nAssistant: Ho</s>\n" and answers == [" Ho</s>"]
    assert made.prompt(talk("Hi")).text == "<s>User: Hi\nAssistant:"
    assert made.stop_ids == (2,)
    with pytest.raises(UserError, match="the built-in plain format knows no tools"):
        made.prompt(talk("Hi"), [{}])


def test_completions(formats):
    made = formats("plain")
    rendered = made.completion("One</s> ", "two")
    assert rendered.text == "<s>One</s> two</s>"
    assert rendered.answers == ((11, 18),) and rendered.special == ((0, 3), (14, 18))
    assert made.completion("", "text</s>").text == "<s>text</s>"
    # Without BOS where the tokenizer puts none.
    assert formats("smollm2").completion("", "x").text == "x<|im_end|>"
    no_eos = ChatFormat(ChatTemplate(PLAIN), made.tokenizer)
    with pytest.raises(UserError, match="names no eos_token"):
        no_eos.completion("a", "b")


def test_stop_ids_are_the_end_token_and_the_checkpoints(formats):
    made = formats("phi3")
    assert made.stop_ids == (made.tokenizer.id_of("<|end|>"), made.tokenizer.id_of("</s>"))


def test_the_text_side_of_language_models_needs_no_tensorflow():
    names = ("answers", "byte_bpe", "chat", "sentencepiece", "stream_decoder", "tokenizer")
    program = f"import sys; from tf_finetune.text import {', '.join(names)}; "
    program += "print([n for n in ('tensorflow', 'keras', 'transformers') if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
