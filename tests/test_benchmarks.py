import json

import numpy as np
import pytest

from benchmarks.flops import NUM_LAYERS, training_flops
from benchmarks.run import add_shares, main, medians, table
from benchmarks.work import _read
from tf_finetune import load_encoder


def test_flops_are_six_times_the_products_weights_for_one_token(minilm_dir):
    """One token attends to itself alone: attention adds 4 h a layer, three times."""
    encoder = load_encoder(str(minilm_dir))
    kernels = [
        weight
        for layer in encoder.network.layers
        for weight in layer.trainable_variables
        if weight.path.endswith("kernel")
    ]
    weights = sum(int(np.prod(kernel.shape)) for kernel in kernels)
    width = kernels[0].shape[0]
    expected = 6 * weights + 3 * NUM_LAYERS * 4 * width
    assert training_flops(np.array([1])) == expected
    assert training_flops(np.array([1, 1])) == 2 * expected


def test_table_compares_ours_with_the_others_of_the_mode():
    rounds = {
        "ours": [{"seconds": 1.0}, {"seconds": 2.0}, {"seconds": 9.0}],
        "hf": [{"seconds": 4.0}, {"seconds": 4.0}, {"seconds": 5.0}],
        "ceilings": [{"float32": 1.0}] * 3,
    }
    assert medians(rounds["ours"]) == {"seconds": 2.0}
    lines = table(rounds).splitlines()
    assert lines[2] == "| ours | seconds | 2 | 1 to 9 |  |"
    assert lines[3] == "| hf | seconds | 4 | 4 to 5 | 0.50 |"
    assert lines[4] == "| ceilings | float32 | 1 | 1 to 1 |  |"


def test_every_training_is_credited_with_the_arithmetic_that_ours_counts():
    def training(rate, flops=0.0):
        return {"steady_examples_per_second": rate, "flops_per_example": flops}

    found = {
        "hf": [training(2.0), training(3.0)],
        "ours": [training(4.0, 10.0), training(5.0, 10.0)],
        "ceilings": [{"bfloat16": 80.0}, {"bfloat16": 120.0}],
        "hf_start": [{"start_to_first_step_seconds": 1.0}],
    }
    add_shares(found)
    assert [one["flops_per_second"] for one in found["hf"]] == [20, 30]
    assert [one["share_of_bfloat16_ceiling"] for one in found["ours"]] == [0.4, 0.5]
    assert found["hf_start"] == [{"start_to_first_step_seconds": 1.0}]


def test_a_quote_in_a_tsv_is_an_ordinary_character(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text('a\tlabel\n"one\t0\ntwo"\t1\n', encoding="utf-8")
    assert _read(path) == [{"a": '"one', "label": "0"}, {"a": 'two"', "label": "1"}]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "names", ["ours,ceilings", "ours_wrapped,ours_start,ours_predict,ours_latency,ours_pipeline"]
)
def test_ours_runs_from_one_command(names, tmp_path, monkeypatch):
    """The peers need PyTorch, which the tests do not install; ours and the ceilings run here."""
    # Of a real model computing takes longer than compiling.
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    folder = tmp_path / "data" / "chatterbot"
    folder.mkdir(parents=True)
    rows = [f"{word} {i}\t{word}" for i in range(20) for word in ("good", "bad")]
    for part in ("train", "test"):
        (folder / f"{part}.tsv").write_text("\n".join(["text\ttopic", *rows]) + "\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    flags = [f"--data_dir={tmp_path / 'data'}", "--tasks=chatterbot", f"--contenders={names}"]
    assert main([*flags, "--rounds=1", "--output=results.json"]) == 0
    found = json.loads((tmp_path / "results.json").read_text("utf-8"))["results"]["chatterbot"]
    assert sorted(found) == sorted(names.split(","))
    if "ours" in found:
        assert found["ours"][0]["accuracy"] > 0.4
    assert all(value > 0 for rounds in found.values() for value in rounds[0].values() if value)
