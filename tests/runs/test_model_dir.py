import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from tf_finetune.classification.config import Config
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig, RunConfig
from tf_finetune.runs.flags import parse_flags
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.settings import replaced

LEARNT = {"problem_type": "single_label", "text_columns": ["text"], "label_names": ["no", "yes"]}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return replaced(
        Config(), model_dir=str(tmp_path), train_file="a.tsv", label_names=("a,b", "c"), max_steps=3
    )


def no_differences(learnt: dict) -> list[str]:
    assert learnt == LEARNT
    return []


def test_names_of_its_files(tmp_path):
    model_dir = ModelDir(f"{tmp_path}/out")
    assert str(model_dir) == f"{tmp_path}/out"
    names = ("config", "checkpoints", "metrics", "predictions", "predictions_jsonl", "export")
    names += ("encoder", "log", "adapter", "saved_model")
    assert [os.path.relpath(getattr(model_dir, name), str(model_dir)) for name in names] == [
        *("config.json", "checkpoints", "metrics.json", "predictions.tsv", "predictions.jsonl"),
        *("export", "encoder", "log.jsonl", "adapter", "saved_model"),
    ]
    assert model_dir.export_of(None) == model_dir.export
    assert model_dir.export_of(12) == f"{tmp_path}/out/export/12"


def test_what_was_saved_is_loaded(tmp_path, config):
    model_dir = ModelDir(str(tmp_path))
    # No command has made a model without training: none repeats it.
    model_dir.save(replaced(config, do_train=False), LEARNT, {})
    assert os.listdir(tmp_path) == ["config.json"]
    config = replaced(config, do_train=True)
    model_dir.save(replaced(config, overwrite=True), LEARNT, {"labels.txt": "no\nyes\n"})
    # Repeating the run must not replace anything by itself.
    assert model_dir.load(Config) == (config, LEARNT)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "labels.txt", "train.cfg"]
    assert (tmp_path / "labels.txt").read_text() == "no\nyes\n"
    flags = parse_flags(Config, ["x", f"--flagfile={tmp_path}/train.cfg"])
    assert flags is not None and flags[0] == config
    header = (tmp_path / "train.cfg").read_text().splitlines()[0]
    assert header.startswith("# Repeats this run: python run_classifier.py --flagfile=")


def test_a_model_of_an_earlier_version_is_loaded(tmp_path):
    record = {
        "data": {"label_names": ["a", "b"], "max_seq_length": 64, "class_weights": "none"},
        "model": {"encoder": "package:x", "head": "mlp"},
        "train": {"learning_rate": 0.001, "num_train_epochs": 2.0},
        "runtime": {"model_dir": "out", "seed": 7, "do_train": True},
        "problem": LEARNT,
    }
    (tmp_path / "config.json").write_text(json.dumps(record))
    config, learnt = ModelDir(str(tmp_path)).load(Config)
    assert learnt == LEARNT
    assert config == replaced(
        Config(),
        hidden_act="gelu_new",
        label_names=("a", "b"),
        max_seq_length=64,
        encoder="package:x",
        head="mlp",
        learning_rate=0.001,
        num_train_epochs=2.0,
        model_dir="out",
        seed=7,
        do_train=True,
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", "null", "{}", "\xff", '{"problem": 3}', '{"problem": ["a"]}'),
        *('{"problem": {}, "data": 3}', '{"problem": {}, "data": {"max_seq_length": "x"}}'),
        '{"problem": {}, "optimizer": {"learning_rate": -1}}',
    ],
)
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.json is damaged: .*Train again with --overwrite"):
        ModelDir(str(tmp_path)).load(Config)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(UserError, match=rf"^{tmp_path} holds no model: .*an earlier run"):
        ModelDir(str(tmp_path)).load(Config)


def test_a_free_folder(tmp_path, config):
    (tmp_path / "data.tsv").write_text("")
    ModelDir(str(tmp_path)).check_free(config, no_differences)
    ModelDir(f"{tmp_path}/new").check_free(config, no_differences)


@pytest.mark.parametrize("name", ["config.json", "train", "log.jsonl", "export"])
def test_files_that_no_run_has_made_are_left_alone(tmp_path, config, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=rf"holds {name}, but not of a run of ours"):
        ModelDir(str(tmp_path)).check_free(replaced(config, overwrite=True), no_differences)


def test_the_same_training_goes_on_and_another_one_does_not(tmp_path, config):
    model_dir = ModelDir(str(tmp_path))
    model_dir.save(config, LEARNT, {})
    other = replaced(config, learning_rate=1.0, seed=1, do_eval=True, test_file="b.tsv")
    # Nothing was trained yet.
    model_dir.check_free(other, no_differences)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-1.index").write_text("")
    model_dir.check_free(replaced(config, do_eval=True, test_file="b.tsv"), no_differences)
    with pytest.raises(UserError, match="another run's model") as caught:
        model_dir.check_free(other, no_differences)
    lines = str(caught.value).splitlines()[1:-1]
    assert lines == ["  --learning_rate: 5e-05 there, 1.0 now", "  --seed: 42 there, 1 now"]
    remedy = str(caught.value).splitlines()[-1]
    assert f"--init_from={tmp_path} --model_dir=<new>" in remedy and "--overwrite" in remedy
    with pytest.raises(UserError, match="\n  other labels\n"):
        model_dir.check_free(config, lambda learnt: ["  other labels"])
    model_dir.check_free(replaced(other, overwrite=True), lambda learnt: ["  other labels"])


def test_a_program_without_init_from_does_not_name_it(tmp_path, config):
    @dataclass(frozen=True)
    class Other:
        program: ClassVar[str] = "run_other.py"
        data: DataConfig = DataConfig()
        run: RunConfig = RunConfig()

    other = Other(run=RunConfig(model_dir=str(tmp_path)))
    ModelDir(str(tmp_path)).save(other, LEARNT, {})
    (tmp_path / "export").mkdir()
    with pytest.raises(UserError, match="--overwrite to replace") as caught:
        ModelDir(str(tmp_path)).check_free(replaced(other, max_seq_length=3), no_differences)
    assert "init_from" not in str(caught.value)


def test_an_export_alone_is_a_model_too(tmp_path, config):
    ModelDir(str(tmp_path)).save(config, LEARNT, {})
    (tmp_path / "export").mkdir()
    with pytest.raises(UserError, match="--max_steps: 3 there, 4 now"):
        ModelDir(str(tmp_path)).check_free(replaced(config, max_steps=4), no_differences)


def test_overwriting_removes_what_runs_have_written_and_nothing_else(tmp_path, config):
    own = ("checkpoints/step-3.index", "train/events.out.tfevents.1", "export/saved_model.pb")
    others = ("checkpoints/notes.txt", "train/data.tsv", "encoder/mine.txt")
    for name in (*own, *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    results = ("log.jsonl", "metrics.json", "predictions.tsv", "predictions.jsonl", "labels.txt")
    for name in (*results, "mine.txt"):
        (tmp_path / name).write_text("old")
    model_dir = ModelDir(str(tmp_path))
    model_dir.save(config, LEARNT, {})
    assert (tmp_path / "metrics.json").read_text() == "old"
    model_dir.save(replaced(config, overwrite=True), LEARNT, {})
    kept = ["checkpoints", "config.json", "encoder", "mine.txt", "train"]
    assert [name for name in sorted(os.listdir(tmp_path)) if name != "train.cfg"] == kept
    assert os.listdir(tmp_path / "train") == ["data.tsv"]
    assert os.listdir(tmp_path / "checkpoints") == ["notes.txt"]
    (tmp_path / "checkpoints/notes.txt").rename(tmp_path / "checkpoints/best-2.index")
    model_dir.save(replaced(config, overwrite=True), LEARNT, {})
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("there", "version", "complaint"),
    [
        ([], None, None),
        ([], 3, None),
        (["saved_model.pb", "model.keras"], None, None),
        (["3/saved_model.pb"], 3, None),
        (["3/saved_model.pb", "20/saved_model.pb"], 4, None),
        (["3/saved_model.pb", "20/saved_model.pb"], None, r"versions 3, 20, .*_version=21\)"),
        (["0007/saved_model.pb"], None, r"the versions 7, .*_version=8\)"),
        (["saved_model.pb"], 1, "holds a SavedModel without a version"),
        (["notes.txt"], None, "holds notes.txt and no saved_model.pb"),
        (["notes.txt"], 1, None),
        (["1/notes.txt"], 1, "export/1 holds notes.txt and no saved_model.pb"),
        ([".1.abcd1234/saved_model.pb"], None, None),  # Left behind by a killed run.
    ],
)
def test_an_export_removes_nothing_but_what_it_replaces(tmp_path, there, version, complaint):
    model_dir = ModelDir(str(tmp_path))
    for name in there:
        (tmp_path / "export" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "export" / name).touch()
    model_dir.check_export(RunConfig())  # No export.
    run = RunConfig(do_export=True, export_version=version)
    if complaint:
        with pytest.raises(UserError, match=complaint):
            model_dir.check_export(run)
        # To replace the model does not replace its versions.
        again = replaced(Config(run=run), do_train=True, overwrite=True).run
        if there != ["saved_model.pb"]:
            with pytest.raises(UserError, match=complaint):
                model_dir.check_export(again)
        else:
            model_dir.check_export(again)
    else:
        model_dir.check_export(run)


# What each folder of a generator's export holds first of all.
MARKS = {
    "export": "generation_config.json",
    "adapter": "adapter_config.json",
    "saved_model": "saved_model.pb",
}


@pytest.mark.parametrize("name", MARKS)
def test_a_generators_exports_remove_nothing_but_earlier_ones(tmp_path, config, name):
    model_dir, run = ModelDir(str(tmp_path)), RunConfig(do_export=True)
    model_dir.check_exports(run)
    (tmp_path / name).mkdir()
    model_dir.check_exports(run)
    (tmp_path / name / "notes.txt").touch()
    with pytest.raises(UserError, match=f"{name} holds notes.txt and no {MARKS[name]}"):
        model_dir.check_exports(run)
    model_dir.check_exports(RunConfig())
    again = replaced(config, do_train=True, do_export=True, overwrite=True)
    with pytest.raises(UserError, match=r"holds notes\.txt"):
        model_dir.check_exports(again.run)
    model_dir.save(again, LEARNT, {})
    assert (tmp_path / name / "notes.txt").exists()
    (tmp_path / name / MARKS[name]).touch()
    model_dir.check_exports(run)
    model_dir.check_exports(again.run)
    model_dir.save(again, LEARNT, {})
    assert not (tmp_path / name).exists()


def test_a_classifiers_export_may_go_with_its_model_but_is_no_generators(tmp_path, config):
    model_dir = ModelDir(str(tmp_path))
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "saved_model.pb").touch()
    with pytest.raises(UserError, match=r"saved_model\.pb and no generation_config\.json"):
        model_dir.check_exports(RunConfig(do_export=True))
    model_dir.check_exports(RunConfig(do_export=True, do_train=True, overwrite=True))


@pytest.mark.parametrize("name", MARKS)
def test_leftovers_of_a_killed_export_are_removed(tmp_path, name):
    """One was killed while it made all, another between moving the old one away and the new in."""
    (tmp_path / ".export.abcd1234" / "adapter").mkdir(parents=True)
    (tmp_path / f".{name}.old.abcd1234" / name).mkdir(parents=True)
    ModelDir(str(tmp_path)).remove_leftovers()
    assert os.listdir(tmp_path) == [name]


def test_versions_outlive_the_model_of_their_run(tmp_path, config):
    (tmp_path / "export" / "3").mkdir(parents=True)
    (tmp_path / "metrics.json").touch()
    ModelDir(str(tmp_path)).save(replaced(config, overwrite=True), LEARNT, {})
    assert (tmp_path / "export" / "3").is_dir() and not (tmp_path / "metrics.json").exists()


def test_an_export_version_goes_with_an_export():
    with pytest.raises(UserError, match="--export_version is a part of --do_export"):
        RunConfig(export_version=1)
    for version in (0, -1, 2**63):
        with pytest.raises(UserError, match=f"--export_version={version}: must be >= 1"):
            RunConfig(do_export=True, export_version=version)


def test_results_are_added_to_earlier_ones(tmp_path, capsys):
    model_dir = ModelDir(str(tmp_path))
    model_dir.save_metrics({"train": {"steps": 1}, "eval": {"loss": 1.0}})
    model_dir.save_metrics({"eval": {"loss": 0.5}})
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    versions = metrics.pop("versions")
    assert metrics == {"train": {"steps": 1}, "eval": {"loss": 0.5}}
    assert {"tf_finetune", "python", "tensorflow", "keras"} <= set(versions)
    for damaged in ("{", "[1]", "3"):
        (tmp_path / "metrics.json").write_text(damaged)
        model_dir.save_metrics({"test": {"loss": 2.0}})
        assert "metrics.json is damaged; it is written anew" in capsys.readouterr().err
        assert set(json.loads((tmp_path / "metrics.json").read_text())) == {"test", "versions"}
    with pytest.raises(ValueError):
        model_dir.save_metrics({"test": {"loss": float("nan")}})
