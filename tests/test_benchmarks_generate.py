"""The parts of the language models' benchmark that run without the peers."""

import json
import time
from pathlib import Path

import gguf
import numpy as np
import pytest

from benchmarks import language_model
from benchmarks.decoding import (
    BATCHES,
    LONG_PROMPT,
    MAX_NEW_TOKENS,
    PASSES,
    answering_rates,
    decoding_rates,
)
from benchmarks.dialogues import Clock, Dialogues, count_answer_tokens, exact_match, prompt_ids
from benchmarks.generate import BARS, CONTENDERS, ratios, ratios_table
from benchmarks.language_model import gguf_file, read_weights, write_config, write_tokenizer
from benchmarks.ours_generator import _FIRST_STEP
from tf_finetune.training.progress import Progress

PARIS = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = {"role": "assistant", "content": '{"year": "1984"}'}


@pytest.fixture(scope="module")
def text_dir(tmp_path_factory) -> Path:
    """The real checkpoint's directory without its weights."""
    folder = tmp_path_factory.mktemp("smollm2")
    reader = gguf.GGUFReader(gguf_file())
    fields = {name: field.contents() for name, field in reader.fields.items()}
    write_tokenizer(folder, fields)
    write_config(folder, fields)
    return folder


def test_prompts_have_the_ids_that_transformers_gives(text_dir, monkeypatch):
    monkeypatch.setattr(language_model, "MODEL_DIR", text_dir)
    # AutoTokenizer's, of the template's default system turn, the question and the header.
    expected = [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018]
    expected += [411, 407, 19712, 8182, 2, 198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47]
    expected += [2, 198, 1, 520, 9531, 198]
    assert prompt_ids([[*PARIS, ANSWER]]) == [expected]
    assert language_model.encode(["in 2024: <|im_end|>x  é"]) == [
        [254, 216, 34, 32, 34, 36, 42, 216, 2, 104, 216, 26411]
    ]
    # {" year ": Ġ" 1 9 8 4 "} and the end token.
    assert count_answer_tokens([[*PARIS, ANSWER]] * 2) == 2 * 10


def test_config_has_the_checkpoints_numbers(text_dir):
    config = json.loads((text_dir / "config.json").read_text("utf-8"))
    assert (config["rms_norm_eps"], config["rope_theta"], config["head_dim"]) == (1e-5, 1e5, 64)
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (9, 3)
    assert config["eos_token_id"] == 2


def test_query_and_key_rows_come_back_in_their_order(tmp_path):
    """As llama.cpp's converter permutes them: the halves of each head become pairs."""
    random = np.random.default_rng(0)
    heads = {"attn_q": 4, "attn_k": 2}
    stored = {name: random.normal(size=(heads[name] * 8, 5)).astype(np.float32) for name in heads}
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "llama")
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    for name, values in stored.items():
        halves = values.reshape(heads[name], 2, 4, 5)
        writer.add_tensor(f"blk.0.{name}.weight", halves.swapaxes(1, 2).reshape(values.shape))
    writer.add_tensor("output_norm.weight", np.ones(5, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    reader = gguf.GGUFReader(tmp_path / "tiny.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    found = dict(read_weights(reader, fields))
    for name, module in (("attn_q", "q_proj"), ("attn_k", "k_proj")):
        weight = found[f"model.layers.0.self_attn.{module}.weight"]
        np.testing.assert_array_equal(weight, stored[name])
    assert found["model.norm.weight"].tolist() == [1] * 5


def test_steady_rate_leaves_the_first_step_and_its_tokens_out(monkeypatch):
    times = iter([10.0, 12.0, 13.0, 14.0, 15.0])
    clock = Clock()
    monkeypatch.setattr(time, "time", lambda: next(times))
    clock.start()
    for _ in range(3):
        clock.step()
    clock.saved()
    work = Dialogues(Path(), [[]] * 40, [], answer_tokens=400)
    found = clock.training(work, [60, 30, 10])
    assert (found.seconds, found.answer_tokens_per_second) == (4, 100)
    assert found.steady_answer_tokens_per_second == 160 / 2
    assert found.start_to_first_step_seconds == pytest.approx(found.process_seconds - 3)


def test_a_training_of_some_steps_is_credited_with_their_share():
    rows = [[]] * 40  # 3 steps
    assert Dialogues(Path(), rows, [], 300, max_steps=2).trained_tokens == 200
    assert Dialogues(Path(), rows, [], 300, max_steps=9).trained_tokens == 300
    assert Dialogues(Path(), rows, [], 300).trained_tokens == 300


def test_exact_match_leaves_blanks_around_out():
    test = [[{"role": "assistant", "content": text}] for text in ("a", "b ", "c")]
    work = Dialogues(Path(), [], test, 0, num_answered=2)
    assert exact_match([" a\n", "B"], work) == 0.5


def test_decoding_asks_every_contender_for_the_same():
    asked, calls = [], 1 + PASSES
    prompts = [[number] * 30 for number in range(calls * sum(BATCHES))]
    rates = decoding_rates(lambda *call: asked.append(call) or 9, prompts)
    # No prompt comes twice.
    assert [row for batch, _ in asked[:-calls] for row in batch] == prompts
    expected = [(size, MAX_NEW_TOKENS) for size in BATCHES for _ in range(calls)]
    assert [(len(batch), n) for batch, n in asked[:-calls]] == expected
    long_prompts = {tuple(row) for (row,), _ in asked[-calls:]}
    assert {len(row) for row in long_prompts} == {LONG_PROMPT} and len(long_prompts) == calls
    assert all(value > 0 for value in rates.values())


def test_a_tuned_model_is_asked_no_question_twice():
    asked = []
    prompts = [[number] for number in range(272 + 2)]
    rates = answering_rates(lambda rows, size: asked.append((rows, size)) or 7, prompts)
    assert [(len(rows), size) for rows, size in asked] == [(2, 1), (48, 1), (32, 16), (192, 16)]
    assert [row for rows, _ in asked for row in rows] == prompts
    assert set(rates) == {"answers_1_tokens_per_second", "answers_16_tokens_per_second"}


def test_first_step_is_seen_in_the_bar(capfd):
    progress = Progress(7, 7, 0, None)
    before = capfd.readouterr().err.encode()
    scalars = {"loss": 1.0, "learning_rate": 1e-3, "examples_per_second": 3.0}
    progress.steps(1, scalars, first=True)
    after = capfd.readouterr().err.encode()
    progress.close()
    assert not _FIRST_STEP.search(before)
    assert _FIRST_STEP.search(before + after)


def test_bars_name_contenders_of_one_kind():
    for bar in BARS:
        assert len({CONTENDERS[name][1] for name in (bar.ours, *bar.peers)}) == 1


def test_ratios_tell_whether_a_bar_is_reached():
    names = {bar.number for bar in BARS}
    rate, memory = "answer_tokens_per_second", "peak_memory_mib"
    found = {
        "ours_lora": [dict.fromkeys(names, 1.0) | {rate: 40.0, memory: 900.0}] * 3,
        "trl_lora": [dict.fromkeys(names, 1.0) | {rate: 20.0, memory: 600.0}],
        "trl_full": [dict.fromkeys(names, 1.0)],
    }
    lines = {(line["compared"], line["peer"]): line for line in ratios(found)}
    assert {peer for _, peer in lines} == {"trl_lora"}
    faster = lines["LoRA, answer tokens/s", "trl_lora"]
    assert (faster["ratio"], faster["reached"]) == (2, True)
    larger = lines["lora, peak memory, MiB", "trl_lora"]
    assert (larger["ratio"], larger["reached"]) == (1.5, False)
    row = ratios_table([larger]).splitlines()[-1]
    assert row == "| lora, peak memory, MiB | trl_lora | 900 | 600 | 1.50 | <= 1.0 | no |"
