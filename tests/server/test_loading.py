"""Answers go on while another model is loaded."""

import asyncio
import shutil
import threading
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server extra brings it")

from tests.generation.conftest import MODELS
from tests.generation.test_slots import save_run
from tests.server.conftest import LIMIT
from tests.server.test_loaded import language_model, served
from tf_finetune.errors import UserError
from tf_finetune.formats.decoder import Decoder
from tf_finetune.formats.decoders import load_decoder
from tf_finetune.generation.answer_settings import AnswerSettings
from tf_finetune.generation.generator import build_generator
from tf_finetune.generation.replies import Ask
from tf_finetune.generation.sampling_config import SamplingConfig
from tf_finetune.models.lora import Lora
from tf_finetune.server import loaded as loaded_module
from tf_finetune.server.answering import Answering
from tf_finetune.server.engine import Engine, Failed, Inquiry, Stream
from tf_finetune.server.loaded import LanguageModel, Loaded
from tf_finetune.server.models import ServedModel

COUNT = 12


class Held:
    """A copy of the tiny model, whose load goes on only once it is released."""

    def __init__(self, folder: Path) -> None:
        self.folder = shutil.copytree(MODELS / "llama", folder)
        self.loads: Counter[str] = Counter()
        self.began, self.release = threading.Event(), threading.Event()

    @property
    def model(self) -> ServedModel:
        return ServedModel("held", str(self.folder), None, None, 0, "base")

    def load(self, handle: str) -> Decoder:
        self.loads[handle] += 1
        if handle == str(self.folder):
            self.began.set()
            assert self.release.wait(LIMIT)
        return load_decoder(handle)


@pytest.fixture
def held(tmp_path, monkeypatch) -> Held:
    found = Held(tmp_path / "held")
    monkeypatch.setattr(loaded_module, "load_decoder", found.load)
    return found


@pytest.fixture(scope="module")
def expected() -> str:
    generator = build_generator(load_decoder(str(MODELS / "llama")))
    return generator.answer(["mon"], SamplingConfig(max_new_tokens=COUNT))[0].text


def make_engine(limit: int | None = None) -> Engine:
    return Engine(lambda call: Answering(Loaded(limit), call, "float32"))


def ask(engine: Engine, model: ServedModel) -> Stream:
    settings = AnswerSettings(temperature=0)
    stream = engine.submit(Inquiry(model, ["mon"], 1, COUNT, settings))
    assert stream is not None
    return stream


async def text_of(stream: Stream) -> str:
    await stream.begin()
    text = "".join([piece.text async for piece in stream])
    stream.close()
    return text


def test_answers_go_on_while_a_model_is_loaded_once_for_all_who_wait(held, expected):
    async def talk() -> None:
        engine, tiny = make_engine(), served("llama")
        try:
            assert await text_of(ask(engine, tiny)) == expected
            waiting = [ask(engine, held.model) for _ in range(3)]
            await asyncio.to_thread(held.began.wait, LIMIT)
            for _ in range(2):
                assert await asyncio.wait_for(text_of(ask(engine, tiny)), 60) == expected
            waiting.pop().close()
            waits = asyncio.gather(*map(text_of, waiting))
            held.release.set()
            assert await waits == [expected] * 2
        finally:
            held.release.set()
            await asyncio.to_thread(engine.stop)

    asyncio.run(talk())
    assert held.loads == {str(MODELS / "llama"): 1, str(held.folder): 1}


def test_a_load_that_fails_fails_those_who_wait_for_it_alone(held, expected):
    async def talk() -> None:
        engine = make_engine()
        try:
            first = [ask(engine, held.model) for _ in range(2)]
            behind = ask(engine, served("llama"))
            await asyncio.to_thread(held.began.wait, LIMIT)
            weights = held.folder / "model.safetensors"
            content = weights.read_bytes()
            weights.write_bytes(content[:100])
            held.release.set()
            for stream in first:
                with pytest.raises(UserError, match="is damaged"):
                    await text_of(stream)
                stream.close()
            assert await text_of(behind) == expected
            weights.write_bytes(content)
            assert await text_of(ask(engine, held.model)) == expected
        finally:
            held.release.set()
            await asyncio.to_thread(engine.stop)

    asyncio.run(talk())


def test_nobody_waits_for_a_load_when_the_engine_is_stopped(held):
    async def talk() -> None:
        engine = make_engine()
        streams = [ask(engine, held.model), ask(engine, served("llama"))]
        await asyncio.to_thread(held.began.wait, LIMIT)
        stopping = asyncio.create_task(asyncio.to_thread(engine.stop))
        for stream in streams:
            with pytest.raises(Failed, match="stopped"):
                await asyncio.wait_for(stream.begin(), 60)
        assert not stopping.done()
        held.release.set()
        await stopping

    asyncio.run(talk())


def test_room_stays_reserved_and_the_base_stays_while_a_model_is_loaded(tmp_path):
    run = save_run(tmp_path / "run", Lora(3, 6.0), 0)
    loaded = Loaded()
    first, second = (language_model(loaded, served(kind)) for kind in ("qwen3", "gpt2"))
    loaded._limit = 2 * max(first.size, second.size)
    reply, _ = (model.slots.add(Ask([5, 6], (), 3)) for model in (first, second))
    steps = loaded.load(served("llama", run))
    step = next(steps)
    while loaded._reserved == 0:
        step = steps.send(step())
    assert loaded.names == [str(MODELS / "qwen3"), str(MODELS / "gpt2")]  # Both answer.
    first.slots.drop(reply)
    assert loaded.get(served("gpt2")) is second
    assert loaded.names == [str(MODELS / "gpt2")]
    step = steps.send(step())
    # The base has come, and its adapter is being read.
    loaded._limit = 1
    assert loaded.get(served("gpt2")) is second
    assert loaded.names == [str(MODELS / "llama"), str(MODELS / "gpt2")]
    with pytest.raises(StopIteration) as end:
        steps.send(step())
    assert isinstance(end.value.value, LanguageModel) and end.value.value.adapter == run
