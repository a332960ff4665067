import json
import subprocess
import sys


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tf_finetune.experiments.compare", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_means_over_runs(tmp_path):
    for seed, accuracy in ((1, 0.5), (2, 1.0)):
        folder = tmp_path / f"run-{seed}"
        folder.mkdir()
        metrics = {
            "test": {"examples": 9, "accuracy": accuracy, "roc_auc": None, "per_class": {}},
            "eval": {"accuracy": 0.0},
            "train": {"examples_per_second": 10.0 * seed},
        }
        (folder / "metrics.json").write_text(json.dumps(metrics))
    done = run(tmp_path / "run-1", tmp_path / "run-2")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines == [
        ["accuracy", "mean", "0.7500", "0.5000", "1.0000"],
        ["examples_per_second", "mean", "15.0000", "10.0000", "20.0000"],
    ]


def test_a_folder_without_results_is_named(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 2 and str(tmp_path) in done.stderr
    assert run().returncode == 2
