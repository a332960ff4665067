"""The benchmark of encoders; that of transformers runs where PyTorch is installed."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks import encoders, run
from benchmarks.encoder_step import LABELS, Clock, Steps
from benchmarks.encoders import MODEL_TYPES, table
from benchmarks.kerashub_encoder import make_model
from benchmarks.ours import measure_training
from benchmarks.ours_encoder import train
from benchmarks.work import Rows, Work
from tf_finetune.formats.encoder_families import FAMILIES, find_family, read_arguments

CHECKPOINTS = Path(__file__).parent / "formats" / "encoders"


@pytest.fixture
def steps(request, tmp_path) -> Steps:
    """Steps of a tiny checkpoint of an architecture."""
    directory = tmp_path / request.param
    shutil.copytree(CHECKPOINTS / request.param, directory)
    (directory / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n", "utf-8")
    return Steps(directory, batch_size=4, length=8, num_steps=2)


def num_parameters(directory: Path) -> int:
    """Those of a checkpoint with three labels, if it had two."""
    tensors = load_file(directory / "model.safetensors").values()
    return sum(tensor.size for tensor in tensors) - (16 + 1)


@pytest.mark.parametrize("steps", ["mpnet"], indirect=True)
def test_batches_are_equal_in_every_process_and_padded_in_the_second_half(steps):
    batches, again = list(steps.batches()), list(steps.batches())
    assert len(batches) == steps.total == 5
    for batch, same in zip(batches, again, strict=True):
        np.testing.assert_array_equal(batch.ids, same.ids)
        assert batch.ids.shape == batch.mask.shape == (4, 8) and len(batch.labels) == 4
        assert batch.ids.dtype == batch.mask.dtype == batch.labels.dtype == np.int32
        assert batch.ids.max() < steps.config["vocab_size"]
        # No word has the id of MPNet's padding.
        np.testing.assert_array_equal(batch.ids == 1, batch.mask == 0)
        assert set(batch.labels) <= set(range(len(LABELS)))
    assert [bool(batch.mask.all()) for batch in batches] == [True] * 3 + [False] * 2
    assert not np.array_equal(batches[0].ids, batches[1].ids)


@pytest.mark.parametrize("steps", ["distilbert"], indirect=True)
def test_rates_leave_the_first_step_out_and_part_at_the_padded_ones(steps, monkeypatch, capsys):
    ends = iter([100.0, 100.5, 102.0, 102.25, 103.0])
    monkeypatch.setattr("time.time", lambda: next(ends))
    clock = Clock()
    with pytest.raises(ValueError, match="0 steps were done, not 5"):
        clock.report(steps, 7, 0.5)
    for _ in range(steps.total):
        clock.step()
    clock.report(steps, 7, 0.5)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["steps_per_second"], found["padded_steps_per_second"]) == (1, 2)
    assert (found["parameters"], found["loss"]) == (7, 0.5)


# With token types and without.
@pytest.mark.parametrize("steps", ["albert", "distilbert"], indirect=True)
def test_ours_trains_all_of_the_checkpoint(steps, capsys):
    train(steps)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["parameters"] == num_parameters(steps.directory)
    assert math.isfinite(found["loss"])
    assert all(value > 0 for value in found.values())


@pytest.mark.parametrize("kind", ["albert", "bert"])
def test_kerashub_trains_a_network_of_the_same_size(kind):
    config = json.loads((CHECKPOINTS / kind / "config.json").read_text("utf-8"))
    model = make_model(config)
    assert model.count_params() == num_parameters(CHECKPOINTS / kind)
    assert model.output_shape == (None, len(LABELS))


@pytest.mark.parametrize("kind", [name for name in MODEL_TYPES if name in FAMILIES])
def test_transformers_trains_a_network_of_the_same_size(kind):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from benchmarks.encoder_checkpoint import make_config

    config = make_config(kind, "small")
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    content, file = config.to_dict(), Path("config.json")
    family = find_family(content, file)
    network = family.network(**read_arguments(family, content, file), initializer="zeros")
    network.build()
    base = getattr(model, model.base_model_prefix)
    assert network.count_params() == base.num_parameters()


def test_table_compares_each_contender_with_ours():
    def result(rate: float, memory: float) -> dict[str, float]:
        rates = {"steps_per_second": rate, "padded_steps_per_second": 2 * rate}
        rest = {"start_to_first_step_seconds": 8.0, "parameters": 1234.0, "loss": 1.0}
        return {**rates, **rest, "peak_memory_mib": memory}

    found = {
        "bert": {"ours": [result(3, 900), result(5, 900), result(9, 900)]},
        "mpnet": {"ours": [result(3, 900)], "transformers": [result(2, 1000)]},
    }
    lines = table(found).splitlines()[2:]
    assert lines[0] == "| bert | ours | 5 | 10 | 8 | 900 | 1,234 |"
    assert lines[2] == (
        "| mpnet | transformers | 2 (1.50) | 4 (1.50) | 8 (1.00) | 1,000 (0.90) | 1,234 |"
    )


def test_what_cannot_be_measured_is_said(capsys):
    with pytest.raises(SystemExit):
        encoders.main(["--model_types=bert,gpt2"])
    assert "gpt2 is none of bert, roberta" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run.main(["--encoder=folder", "--contenders=ours,kerashub"])
    assert "kerashub is none of ours, hf_best" in capsys.readouterr().err


def test_ours_trains_another_encoder_than_the_default(tiny_bert_dir, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.ours.MAX_SEQ_LENGTH", 16)
    rows = Rows((["good film", "bad film"] * 8,), [0, 1] * 8)
    names = ("bad", "good")
    measure_training(Work("films", rows, rows, names, 1, 1, str(tiny_bert_dir)), "lifted")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["examples_per_second"] > 0 and 0 <= found["accuracy"] <= 1
    # They would be the default encoder's.
    assert found["flops_per_example"] == 0
