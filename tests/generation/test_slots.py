"""Prompts that are answered together get the answers that each gets alone."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.generation.conftest import MODELS, logits_after
from tests.thorough import mostly
from tf_finetune.errors import UserError
from tf_finetune.formats.decoders import load_decoder
from tf_finetune.generation import reading
from tf_finetune.generation import slots as slots_module
from tf_finetune.generation.answer_settings import AnswerSettings
from tf_finetune.generation.config import Config, DecoderConfig
from tf_finetune.generation.decode import Decoding
from tf_finetune.generation.generator import build_generator
from tf_finetune.generation.load import load_generator
from tf_finetune.generation.record import save_record
from tf_finetune.generation.replies import Ask, Reply
from tf_finetune.generation.sampling import uniforms
from tf_finetune.generation.sampling_config import SamplingConfig
from tf_finetune.generation.slots import Slots
from tf_finetune.generation.tuned import has_adapter, load_tuned, read_tuned_adapter
from tf_finetune.models.lora import Lora
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.settings import replaced
from tf_finetune.training.checkpoints import save_weights

GREEDY = AnswerSettings(temperature=0)
# A small window, layers without RoPE, learned positions.
KINDS = ("mistral", "smollm3", "gpt2")


def make_prompts(count: int, longest: int = 40) -> list[list[int]]:
    chosen = random.Random(0)
    lengths = [chosen.randrange(1, longest) for _ in range(count)]
    return [[chosen.randrange(4, 100) for _ in range(length)] for length in lengths]


def answer_in_company(slots: Slots, asks: list[Ask], seed: int = 0) -> list[Reply]:
    """Lets prompts join at random steps, and others, which are dropped, between them."""
    chosen, replies, strangers = random.Random(seed), [], []
    left = list(asks)
    while left or not slots.is_idle:
        for _ in range(chosen.randrange(4)):
            if left:
                replies.append(slots.add(left.pop(0)))
        if left and chosen.random() < 0.3:
            prompt = [chosen.randrange(4, 100)] * chosen.randrange(1, 50)
            strangers.append(
                slots.add(Ask(prompt, (), 9, settings=AnswerSettings(temperature=1.5)))
            )
        if strangers and chosen.random() < 0.3:
            slots.drop(strangers.pop(chosen.randrange(len(strangers))))
        slots.step()
    return replies


def said(reply: Reply) -> tuple[str, int, str]:
    return reply.answer.text, len(reply.tokens), reply.answer.reason


def ids_of(reply: Reply) -> list[int]:
    return [token.id for token in reply.tokens]


@pytest.fixture(scope="module")
def slots() -> Slots:
    return Slots(load_decoder(str(MODELS / "llama")), rows=5)


def alone(slots: Slots, ask: Ask) -> Reply:
    reply = slots.add(ask)
    while not slots.is_idle:
        slots.step()
    return reply


@pytest.mark.parametrize("kind", mostly(*KINDS[1:], others=KINDS[:1]))
def test_greedy_answers_are_those_of_a_generator_in_any_company(kind, monkeypatch):
    monkeypatch.setattr(slots_module, "CHUNK", 24)  # Some prompts are read in two parts.
    decoder = load_decoder(str(MODELS / kind))
    prompts = make_prompts(24)
    config = SamplingConfig(max_new_tokens=20)
    decoding = Decoding(decoder)
    expected = [decoding.answer([prompt], config)[0] for prompt in prompts]
    slots = Slots(decoder, rows=6)
    stops = decoder.chat.stop_ids
    replies = answer_in_company(slots, [Ask(p, stops, 20, settings=GREEDY) for p in prompts])
    assert list(map(said, replies)) == [(a.text, a.tokens, a.finish_reason) for a in expected]


def test_what_is_drawn_depends_on_the_request_alone(slots):
    asks = [
        Ask(
            prompt,
            slots.decoder.chat.stop_ids,
            12,
            settings=AnswerSettings(
                temperature=(0.7, 1.3, 0)[number % 3],
                top_p=(1.0, 0.6)[number % 2],
                seed=number % 4,
                frequency_penalty=(0.0, 0.5)[number % 7 == 0],
            ),
            number=number % 5,
            tells=number % 6 == 0,
        )
        for number, prompt in enumerate(make_prompts(20))
    ]
    replies = answer_in_company(slots, asks, seed=1)
    for ask, reply in zip(asks, replies, strict=True):
        assert ids_of(reply) == ids_of(alone(slots, ask))
    one = Ask([5, 6, 7], (), 12, settings=AnswerSettings(seed=3))
    assert ids_of(alone(slots, one)) == ids_of(alone(slots, one))
    others = (
        Ask([5, 6, 7], (), 12, settings=AnswerSettings(seed=4)),
        Ask([5, 6, 7], (), 12, settings=AnswerSettings(seed=3), number=1),
    )
    for other in others:
        assert ids_of(alone(slots, other)) != ids_of(alone(slots, one))


@pytest.mark.parametrize("temperature", [0, 0.8])
@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_tokens_are_chosen_by_openais_definition(slots, temperature, top_p):
    prompt, count = [40, 41, 42, 43], 16
    ask = Ask(
        prompt,
        (),
        count,
        settings=AnswerSettings(temperature, top_p, 2, 1.0, 0.7, {50: 2.0}),
        tells=True,
    )
    reply = alone(slots, ask)
    drawn, ids = uniforms(2, np.array([0]), count)[0], []
    for place, token in enumerate(reply.tokens):
        logits = logits_after(slots.decoder, prompt + ids)
        counts = np.bincount(ids, minlength=len(logits))
        changed = logits - 0.7 * counts - 1.0 * (counts > 0)
        changed[50] += 2.0
        logprobs = logits - np.log(np.exp(logits).sum())
        np.testing.assert_allclose(token.logprob, logprobs[token.id], atol=1e-4)
        assert [id for id, _ in token.top] == np.argsort(-logprobs)[:20].tolist()
        np.testing.assert_allclose([p for _, p in token.top], -np.sort(-logprobs)[:20], atol=1e-4)
        if temperature == 0:
            assert token.id == changed.argmax()
        else:
            probabilities = np.exp(changed / temperature)
            probabilities /= probabilities.sum()
            order = np.argsort(-probabilities)
            before = np.cumsum(probabilities[order]) - probabilities[order]
            probabilities[order[before >= top_p]] = 0
            total = np.cumsum(probabilities)
            assert token.id == np.searchsorted(total, drawn[place] * total[-1], side="right")
        ids.append(token.id)
    assert len(ids) == count


def test_an_answer_ends_at_a_stop_text_that_several_tokens_make(slots):
    prompt = [40, 41, 42, 43, 44]
    whole = alone(slots, Ask(prompt, (), 30, settings=GREEDY)).answer.text
    stop = whole[8:11]
    reply = slots.add(Ask(prompt, (), 30, settings=AnswerSettings(temperature=0, stop=(stop,))))
    parts = []
    while not slots.is_idle:
        slots.step()
        parts.append(reply.answer.part())
    assert "".join(parts) == whole[: whole.find(stop)]
    assert reply.answer.reason == "stop" and len(reply.tokens) < 30


def test_memory_grows_with_its_rows_and_is_given_back(slots):
    assert slots.size == 0
    replies = [slots.add(Ask([5, 6], (), 100, settings=GREEDY)) for _ in range(8)]
    sizes = []
    for _ in range(70):
        slots.step()
        sizes.append(slots.size)
    assert 2 * sizes[0] == sizes[-1] == max(sizes)  # The room of two blocks in place of one.
    for reply in replies[:4]:
        slots.drop(reply)
    slots.step()
    assert slots.size == max(sizes)  # Those that waited have their rows.
    for reply in replies[5:]:
        slots.drop(reply)
    assert slots.size == max(sizes) / 5
    slots.drop(replies[4])
    assert slots.size == 0 and slots.is_idle


def test_room_is_given_back_when_a_long_answer_has_ended(slots, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK", 16)
    long = slots.add(Ask([5] * 60, (), 60, settings=GREEDY))
    for _ in range(30):
        slots.step()
    short = slots.add(Ask([5, 6], (), 100, settings=GREEDY))
    slots.step()
    size = slots.size
    slots.drop(long)
    assert 0 < slots.size < size
    expected = alone(Slots(slots.decoder), Ask([5, 6], (), 100, settings=GREEDY))
    while not slots.is_idle:
        slots.step()
    assert ids_of(short) == ids_of(expected)


def test_a_prompt_of_several_answers_is_read_once(slots, monkeypatch):
    shapes, read = [], slots.programs.read_prompts
    monkeypatch.setattr(
        slots.programs,
        "read_prompts",
        lambda ids, *more: shapes.append(ids.shape) or read(ids, *more),
    )
    asks = [
        Ask([5, 6, 7], (), 6, settings=AnswerSettings(seed=1), number=number) for number in range(4)
    ]
    replies = [slots.add(ask) for ask in [*asks, Ask([8, 9], (), 6)]]
    while not slots.is_idle:
        slots.step()
    assert shapes == [(2, 3)]
    for ask, reply in zip(asks, replies, strict=False):
        assert ids_of(reply) == ids_of(alone(slots, ask))


def test_who_asks_for_many_answers_takes_turns_with_others(slots):
    """Of five rows one asker gets four at most, and others the next that is free."""
    asks = {name: Ask([5, 6], (), 30, settings=GREEDY, asker=name) for name in "abc"}
    many = [slots.add(asks["a"]) for _ in range(20)]
    for _ in range(2):
        slots.step()
    assert [len(reply.tokens) for reply in many[:5]] == [2, 2, 2, 2, 0]
    # A free row is nobody's: who comes later has it at once.
    late = slots.add(asks["b"])
    slots.step()
    assert len(late.tokens) == 1
    others = [slots.add(asks["c"]) for _ in range(20)]
    while not late.answer.reason:
        slots.step()
    # Those of the first asker that had rows have ended, and both share the rows.
    for _ in range(3):
        slots.step()
    begun = [sum(0 < len(r.tokens) < 30 for r in group) for group in (many, others)]
    assert begun == [3, 2]
    while not slots.is_idle:
        slots.step()
    expected = ids_of(alone(slots, asks["a"]))
    assert all(ids_of(reply) == expected for reply in [*many, late, *others])


def test_first_tokens_come_before_the_second_and_steps_take_turns(slots):
    first = slots.add(Ask([5, 6], (), 9, settings=GREEDY))
    assert slots.step() == [first] and len(first.tokens) == 1
    others = [slots.add(Ask([7] * (number + 1), (), 9, settings=GREEDY)) for number in range(3)]
    assert slots.step() == [first] and len(first.tokens) == 2
    assert slots.step() == others and [len(reply.tokens) for reply in others] == [1] * 3
    for count in range(2, 4):
        assert set(slots.step()) == {first, *others} and len(others[0].tokens) == count
    while not slots.is_idle:
        slots.step()


def test_three_programs_serve_any_number_of_rows(slots):
    asks = [Ask(prompt, (), 10, settings=GREEDY) for prompt in make_prompts(40)]
    answer_in_company(slots, asks)
    assert len(slots.programs) == 3  # For prompts, for steps, and to move rows.


def test_a_prompt_that_leaves_no_room_is_refused(slots):
    with pytest.raises(UserError, match="empty"):
        slots.add(Ask([], (), 5))
    with pytest.raises(UserError, match=r"3 tokens .* 10,000"):
        slots.add(Ask([1, 2, 3], (), 10000))
    assert slots.is_idle


def save_run(path: Path, lora: Lora | None, seed: int) -> str:
    """Writes the model directory of a run that has changed its base at random."""
    base = str(MODELS / "llama")
    decoder = load_decoder(base, lora=lora, trainable=True, seed=seed)
    chosen = np.random.default_rng(seed)
    for variable in decoder.network.trainable_variables:
        old = 0 if lora else tf.convert_to_tensor(variable).numpy()
        variable.assign(old + chosen.normal(0, 0.1, variable.shape))
    more: dict[str, Any] = {"lora_rank": 0}
    if lora:
        more = {"lora_rank": lora.rank, "lora_alpha": lora.alpha, "lora_targets": lora.targets}
    config = replaced(Config(), model=base, model_dir=str(path), train_file="a.jsonl", **more)
    save_record(ModelDir(str(path)), config, None, {})
    generator = build_generator(decoder, DecoderConfig(model=base))
    save_weights(generator.model, ModelDir(str(path)).checkpoints)
    return str(path)


def test_adapters_of_a_base_answer_side_by_side_as_each_does_alone(tmp_path):
    base = load_decoder(str(MODELS / "llama"))
    slots = Slots(base, rows=6)
    kinds = [Lora(3, 6.0), Lora(5, 5.0, targets=("q_proj", "down_proj"))]
    prompts = make_prompts(18)
    config = SamplingConfig(max_new_tokens=12)
    expected = {}
    folders = [save_run(tmp_path / str(n), lora, n) for n, lora in enumerate(kinds)]
    for name, folder in zip("ab", folders, strict=True):
        assert has_adapter(folder)
        stacks, form = read_tuned_adapter(folder, base)
        slots.adapters.add(name, stacks)
        generator = load_generator(folder)
        assert form.chat.template.source == generator.decoder.chat.template.source
        expected[name] = generator.decoding
    expected[None] = Decoding(base)
    names = [("a", "b", None)[number % 3] for number in range(len(prompts))]
    asks = [
        Ask(prompt, base.chat.stop_ids, 12, name, settings=GREEDY)
        for prompt, name in zip(prompts, names, strict=True)
    ]
    for reply in answer_in_company(slots, asks):
        answer = expected[reply.ask.adapter].answer([reply.ask.prompt], config)[0]
        assert said(reply) == (answer.text, answer.tokens, answer.finish_reason)


def test_a_run_of_all_weights_is_loaded_whole(tmp_path):
    folder = save_run(tmp_path / "all", None, 3)
    assert not has_adapter(folder)
    decoder, _ = load_tuned(folder)
    (answer,) = load_generator(folder).decoding.answer([[5, 6, 7]], SamplingConfig(12))
    ask = Ask([5, 6, 7], decoder.chat.stop_ids, 12, settings=GREEDY)
    assert said(alone(Slots(decoder), ask))[0] == answer.text


def test_an_adapter_of_another_base_is_refused(tmp_path):
    folder = save_run(tmp_path / "one", Lora(3, 6.0), 1)
    other = load_decoder(str(MODELS / "qwen3"))
    with pytest.raises(UserError, match=r"is not for .*qwen3"):
        read_tuned_adapter(folder, other)
