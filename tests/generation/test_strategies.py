"""The loss is a mean over the answer tokens of the whole batch, however it is divided."""

from pathlib import Path

import numpy as np
import pytest

from tests.generation import sft
from tests.programs import Program, start_workers
from tests.thorough import mostly


def train(strategy: str, slices: int, lora_rank: int, folder: Path) -> list[dict[str, np.ndarray]]:
    """Runs the program, as two workers if that is the strategy, and returns what each has left."""
    folder.mkdir()
    arguments = [strategy, str(slices), str(lora_rank), str(folder)]
    if strategy == "multi_worker":
        programs = start_workers(sft.__name__, arguments, folder)
    else:
        programs = [Program(sft.__name__, arguments, folder / "log")]
    for program in programs:
        program.finish()
    return [dict(np.load(path)) for path in sorted(folder.glob("result*.npz"))]


@pytest.mark.slow
@pytest.mark.parametrize("lora_rank", mostly(4, others=[0]))
def test_slices_replicas_and_workers_agree(lora_rank, tmp_path):
    (one,) = train("one_device", 1, lora_rank, tmp_path / "one")
    assert np.isfinite(one["losses"]).all() and one["losses"][-1] < one["losses"][0]
    others = train("one_device", 4, lora_rank, tmp_path / "slices")
    others += train("mirrored", 1, lora_rank, tmp_path / "two")
    others += train("multi_worker", 1, lora_rank, tmp_path / "workers")
    assert len(others) == 4
    for other in others:
        np.testing.assert_array_equal(other["counts"], one["counts"])
        np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-5)
        np.testing.assert_allclose(other["metrics"], one["metrics"], atol=1e-5)
        for name in (name for name in one if "|" in name):
            np.testing.assert_allclose(other[name], one[name], atol=1e-4, err_msg=name)
