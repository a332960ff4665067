"""A second kind of model trains on the hull as it is: one device, two replicas, two workers.

`next_token.py` beside this file is all that it brings: weights of [batch, length], no labels, a
frozen base, its own metrics.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.programs import Program, start_workers
from tests.thorough import mostly
from tests.training import next_token
from tf_finetune.training.checkpoints import find


def train(
    strategy: str, source: str, folder: Path, dropout: str = "0", *stop_at: str
) -> list[dict[str, np.ndarray]]:
    """Runs the program, as two workers if that is the strategy, and returns what each has left."""
    folder.mkdir(exist_ok=True)
    next_token.write_rows(folder / "rows.jsonl")
    module, arguments = next_token.__name__, [strategy, source, str(folder), dropout, *stop_at]
    if strategy == "multi_worker":
        programs = start_workers(module, arguments, folder)
    else:
        programs = [Program(module, arguments, folder / "log")]
    for program in programs:
        program.finish(9 if stop_at else 0)
    return [dict(np.load(path)) for path in sorted(folder.glob("result*.npz"))]


def weights(result: dict[str, np.ndarray]) -> list[str]:
    return [name for name in result if "|" in name]


@pytest.mark.slow
@pytest.mark.parametrize("source", mostly("streamed", others=["planned"]))
def test_one_device_two_replicas_and_two_workers_agree(source, tmp_path):
    (one,) = train("one_device", source, tmp_path / "one")
    others = train("mirrored", source, tmp_path / "two")
    others += train("multi_worker", source, tmp_path / "workers")
    assert len(others) == 3
    assert len(one["losses"]) == next_token.STEPS and one["losses"][-5:].mean() < 3
    for other in others:
        assert other["examples"] == one["examples"] and other["tokens"] == one["tokens"]
    # Of a streamed window each worker takes every other row: other batches of the same rows.
    for other in others if source == "planned" else others[:1]:
        np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-5)
        np.testing.assert_allclose(other["metrics"], one["metrics"], atol=1e-5)
        for name in weights(one):
            np.testing.assert_allclose(other[name], one[name], atol=1e-4, err_msg=name)
    for name in weights(one):  # The two workers hold one model.
        np.testing.assert_array_equal(others[1][name], others[2][name], err_msg=name)
    # 20 steps of 12 are four epochs of 50 rows: an example is a row, however many its targets.
    rows = [json.loads(line) for line in (tmp_path / "one/rows.jsonl").read_text().splitlines()]
    assert int(one["examples"]) == 4 * len(rows)
    assert int(one["tokens"]) == 4 * sum(len(row["ids"]) for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["planned", "streamed"])
def test_it_goes_on_bit_for_bit_and_its_base_is_in_no_checkpoint(source, tmp_path):
    (whole,) = train("one_device", source, tmp_path / "whole", "0.1")
    assert train("one_device", source, tmp_path / "killed", "0.1", "13") == []
    (resumed,) = train("one_device", source, tmp_path / "killed", "0.1")
    assert len(resumed["losses"]) == 10  # From the checkpoint of step 10.
    np.testing.assert_array_equal(resumed["losses"], whole["losses"][10:])
    for name in weights(whole):
        np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)
    path = find(str(tmp_path / "killed" / "model" / "checkpoints"), "step")[-1]
    shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map().values()
    assert [next_token.WIDTH, next_token.WIDTH] in shapes
    assert [next_token.VOCABULARY, next_token.WIDTH] not in shapes
