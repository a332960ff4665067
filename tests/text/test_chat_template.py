"""Templates against Hugging Face transformers, and those that must not run on."""

import json
import os

import pytest

from tf_finetune.errors import UserError
from tf_finetune.text.chat_template import Call, ChatTemplate, read_chat_template

HI = [{"role": "user", "content": "hi"}]
NAMES = (
    *("smollm2", "llama3", "llama3_1", "llama3_2", "qwen2_5", "qwen3", "qwen3_training"),
    *("gemma", "gemma3", "phi3", "deepseekv3", "cohere", "lfm2_v2", "glm4moe"),
)


@pytest.mark.parametrize("name", NAMES)
def test_renderings_equal_those_of_transformers(name, template, references, short):
    made = ChatTemplate(template(name), references["tokens"])
    refused = 0
    for title, (messages, tools) in references["conversations"].items():
        for kind in ("whole", "prompt"):
            expected = references["renderings"][f"{name} / {title} / {kind}"]
            (found,) = made.render_all([Call(messages, tools, kind == "prompt")])
            if isinstance(expected, dict):
                refused += 1
                assert isinstance(found, UserError), title
                if "'" not in expected["error"]:  # Python's own errors are worded otherwise.
                    assert expected["error"] in str(found)
            else:
                assert not isinstance(found, UserError), (title, found)
                assert short(found) == expected, title
    assert refused <= 30


def test_a_template_refuses_in_its_own_words(template):
    twice = [*HI, *HI]
    with pytest.raises(UserError, match="Conversation roles must alternate user/assistant"):
        ChatTemplate(template("gemma"), {"bos_token": ""}).render(twice)
    with pytest.raises(UserError, match="System role not supported"):
        ChatTemplate(template("gemma")).render([{"role": "system", "content": "x"}])


def test_json_dates_loop_controls_and_generation_blocks():
    source = """
{%- for message in messages %}
{%- if loop.index > 1 %}{% break %}{% endif %}
{%- generation %}{{ message | tojson }}{% endgeneration %}
{%- endfor %}{{ strftime_now('%Y') | length }}{{ [1, 2] | tojson(indent=1) }}
{%- set ns = namespace(a=1) %}{% set ns.a = ns.a + 1 %}{{ ns.a }}"""
    text = ChatTemplate(source).render([{"role": "ü", "content": "<&'\">", "none": None}] * 2)
    assert text == '{"role": "ü", "content": "<&\'\\">"}4[\n 1,\n 2\n]2'


RUNNING_ON = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops without calls": "{% set a = range(99999) | list %}"
    "{% for i in a %}{% for j in a %}{% for k in a %}{% endfor %}{% endfor %}{% endfor %}",
    "counts in C": "{% set x = 9 ** (9 ** 9) %}",
    "counts while compiling": "{{ 9 ** (9 ** 9) }}",
    "macro": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(99) }}",
}
TOO_LARGE = {
    "string": "{{ 'x' * 9999999999 }}",
    "doubling": "{% set ns = namespace(x='xxxxxxxx') %}"
    "{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "padding": "{{ 'x'.ljust(9999999999) }}",
    "format": "{{ '%9999999999d' % 1 }}",
    "output": "{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}",
    "nested list": "{% set ns = namespace(x=[1]) %}"
    "{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "range": "{{ range(99999999) }}",
}
REACHING_OUT = {
    "file": "{% include '/etc/passwd' %}",
    "import": "{% import '/etc/passwd' as x %}",
    "extends": "{% extends '/etc/passwd' %}",
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "subscript": "{{ messages['__class__']['__base__'] }}{{ (''|attr('__class__')).x }}",
    "globals": "{{ raise_exception.__globals__['sys'] }}",
    "namespace": "{{ namespace(__class__=1) }}",
    "format string": "{{ '{0.__class__.__base__}'.format(messages) }}",
    "self": "{{ self.__init__.__globals__ }}",
    "changes": "{{ messages.append(1) }}",
}


@pytest.mark.slow
@pytest.mark.parametrize("source", RUNNING_ON.values(), ids=RUNNING_ON)
def test_a_template_without_end_is_stopped(source):
    used = _children()
    with pytest.raises(UserError, match="takes more than 3 seconds"):
        ChatTemplate(source).render(HI)
    assert _children() - used < 6
    assert ChatTemplate("{{ messages[0].content }}").render(HI) == "hi"


def _children():
    times = os.times()
    return times.children_user + times.children_system


@pytest.mark.parametrize("source", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_template_that_allocates_without_end_is_stopped(source):
    with pytest.raises(UserError, match=r"memory|characters|seconds|OverflowError"):
        ChatTemplate(source).render(HI)
    assert ChatTemplate("{{ messages[0].content }}").render(HI) == "hi"


@pytest.mark.parametrize("source", REACHING_OUT.values(), ids=REACHING_OUT)
def test_a_template_reaches_neither_files_nor_python(source):
    with pytest.raises(UserError, match="the chat template fails"):
        ChatTemplate(source).render(HI)


def test_a_crash_is_survived():
    deep = "[" * 3000 + "]" * 3000
    with pytest.raises(UserError):
        ChatTemplate("{{ " + deep + " }}").render(HI)
    assert ChatTemplate("a").render(HI) == "a"


def test_an_error_stands_in_the_place_of_its_text():
    made = ChatTemplate("{{ raise_exception('no') if tools else 'yes' }}")
    first, second, third = made.render_all([Call(HI), Call(HI, [{}]), Call(HI)])
    assert (first, third) == ("yes", "yes") and "fails: no." in str(second)


def test_a_forked_process_renders_by_itself():
    made = ChatTemplate("{{ messages[0].content }}")
    assert made.render(HI) == "hi"
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, made.render([{"content": "child"}]).encode())
        os._exit(0)
    assert made.render([{"content": "parent"}]) == "parent"
    os.waitpid(child, 0)
    assert os.read(read, 99) == b"child"
    os.close(read)
    os.close(write)


def test_reading_a_file(tmp_path):
    source = "{% for m in messages %}{{ m.content }}{% endfor %}"
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": source}]
    (tmp_path / "a.jinja").write_text(source)
    (tmp_path / "b.json").write_text(json.dumps({"chat_template": source}))
    (tmp_path / "c.json").write_text(json.dumps({"chat_template": named}))
    for name in ("a.jinja", "b.json", "c.json"):
        assert read_chat_template(str(tmp_path / name)) == source


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jinja", "{% for %}", r"a.jinja: the chat template fails: line 1: "),
        ("a.jinja", "x\n{% endfor %}", r"line 2: .*endfor"),
        ("a.jinja", " \n", "is empty"),
        ("a.jinja", b"\xff\xfe", "cannot be read"),
        ("a.json", "{", "no JSON"),
        ("a.json", "[1]", "holds no `chat_template`"),
        ("a.json", '{"chat_template": [{"name": "x", "template": "y"}]}', "named 'default'"),
        ("missing.jinja", None, "cannot be read: .*No such file"),
    ],
)
def test_a_file_without_a_template(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as raised:
        read_chat_template(str(path))
    assert f"--chat_template={path}" in str(raised.value)
