"""Runs beside each other."""

import json
import random
from pathlib import Path

import pytest
from scipy import stats

from tf_finetune.experiments.compare import main
from tf_finetune.runs.model_dir import ModelDir

TRAIN = [("a good film", "good"), ("a bad film", "bad")]
ROWS = 60


def rows(right: int, seed: int = 0):
    """Rows of which so many are said right; which ones hangs on the seed."""
    chosen = {*random.Random(seed).sample(range(ROWS), right)}
    found = []
    for row in range(ROWS):
        label = ("good", "bad")[row % 2]
        said = label if row in chosen else ("bad", "good")[row % 2]
        found.append((f"film {row}", label, {said: 0.8, {"good": "bad"}.get(said, "good"): 0.2}))
    return found


def evaluated(model_dir: ModelDir, validation: float | None, right: int, seconds: float = 9.0):
    """Writes a run's metrics.json."""
    test = {"examples": ROWS, "accuracy": right / ROWS, "micro_f1": right / ROWS, "per_class": {}}
    parts = {"train": {"seconds": seconds, "steps": 3}, "test": test}
    if validation is not None:
        parts["eval"] = {"accuracy": validation, "roc_auc": None, "loss": 1 - validation}
    Path(model_dir.metrics).write_text(json.dumps(parts))
    return str(model_dir)


@pytest.fixture
def compared(tmp_path, capsys):
    """Returns what compares folders: the JSON, and what is printed."""

    def compare(*arguments):
        assert main([*arguments, f"--output_dir={tmp_path}/told"]) == 0
        shown = capsys.readouterr().out
        return json.loads((tmp_path / "told" / "compare.json").read_text()), shown

    return compare


def test_the_best_is_that_of_validation_and_tests_are_paired(make_run, compared, tmp_path):
    first, second = rows(50, seed=1), rows(40, seed=2)
    one = evaluated(make_run(TRAIN, first, name="one", learning_rate=1e-5), 0.7, 50)
    two = evaluated(make_run(TRAIN, second, name="two", learning_rate=2e-5), 0.8, 40, seconds=3.0)
    table, shown = compared(one, two)
    assert table["flags"] == ["learning_rate"] and table["chosen_by"] == "eval_accuracy"
    assert [run["model_dir"] for run in table["runs"]] == [two, one] and table["best"] == two
    assert (
        table["command"] == f"python run_classifier.py --flagfile={two}/train.cfg --model_dir=<new>"
    )
    assert "test_micro_f1" not in table["columns"] and table["warning"] == ""
    (low, high) = table["runs"][1]["scores"]["test_accuracy"]["interval"]
    expected = stats.binomtest(50, ROWS).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert table["runs"][0]["scores"]["eval_accuracy"] == {"value": 0.8, "interval": None}
    against = table["runs"][1]["against_best"]
    assert against["difference"] == pytest.approx(10 / ROWS) and against["split"] == "test"
    right = [[max(s, key=s.get) == label for _, label, s in part] for part in (first, second)]
    gained, lost = (
        sum(a and not b for a, b in zip(*pair, strict=True)) for pair in (right, right[::-1])
    )
    assert against["p_value"] == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)
    assert table["runs"][0]["against_best"] is None
    lines = shown.splitlines()
    assert lines[0].split()[:2] == ["run", "--learning_rate"] and lines[1].split()[0] == two
    page = (tmp_path / "told" / "compare.html").read_text()
    assert f"The best of 2 runs is {two}" in page and "<script" not in page

    by_time, _ = compared(one, two, "--sort=seconds")
    assert [run["model_dir"] for run in by_time["runs"]] == [two, one]
    by_rate, _ = compared(two, one, "--sort=learning_rate")
    assert [run["flags"]["learning_rate"] for run in by_rate["runs"]] == [1e-5, 2e-5]
    by_test, _ = compared(two, one, "--sort=test_accuracy")
    assert by_test["best"] == two and by_test["runs"][0]["model_dir"] == one


def test_seeds_are_summed_up(make_run, compared):
    folders = [
        evaluated(make_run(TRAIN, name=f"run-{rate}-{seed}", seed=seed, learning_rate=rate), v, 30)
        for seed, rate, v in ((1, 1e-5, 0.5), (2, 1e-5, 0.7), (3, 1e-5, 0.6), (1, 2e-5, 0.9))
    ]
    table, shown = compared(*folders)
    (group,) = table["seeds"]
    assert group["runs"] == 3 and group["flags"] == {"learning_rate": 1e-5}
    assert group["scores"]["eval_accuracy"]["mean"] == pytest.approx(0.6)
    assert group["scores"]["eval_accuracy"]["deviation"] == pytest.approx(0.1)
    assert "0.6000 ± 0.1000" in shown


def test_a_choice_by_test_rows_is_warned_of(make_run, compared):
    one = evaluated(make_run(TRAIN, rows(50), name="one"), None, 50)
    two = evaluated(make_run(TRAIN, rows(40), name="two", seed=7), 0.9, 40)
    table, shown = compared(two, one)
    assert table["best"] == one and table["chosen_by"] == "test_accuracy"
    assert "chosen by the test rows" in table["warning"] and "warning: Not all" in shown


def test_other_rows_are_not_paired(make_run, compared):
    one = evaluated(make_run(TRAIN, rows(50), name="one"), 0.8, 50)
    two = evaluated(make_run(TRAIN, rows(40)[:-1], name="two", seed=7), 0.9, 40)
    table, _ = compared(one, two)
    assert [run["against_best"] for run in table["runs"]] == [None, None]


def test_what_cannot_be_compared_is_named(make_run, tmp_path, capsys):
    one = evaluated(make_run(TRAIN, rows(50), name="one"), 0.8, 50)
    for arguments, complaint in (
        ([one, f"{tmp_path}/nothing"], "nothing holds no run"),
        ([one, str(make_run(TRAIN, name="new"))], "new holds a run that was not evaluated"),
        ([one, "--sort=bleu"], "--sort=bleu: no such column. There are eval_accuracy"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert complaint in error and "Traceback" not in error
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert not Path("compare.json").exists()
