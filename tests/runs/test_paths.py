"""`~` in every path, wherever it is given; bytes that are no UTF-8."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tf_finetune import load_classifier, load_encoder
from tf_finetune.classification.config import Config, EncoderConfig
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import load_data
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig, RunConfig
from tf_finetune.runs.flags import parse_flags
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.paths import expand_path, expand_paths
from tf_finetune.runs.settings import from_record, settings, values_of

REPOSITORY = Path(__file__).resolve().parents[2]
ROWS = "text\tlabel\n" + "a good film\tgood\na bad film\tbad\n" * 8
# What the command line gives for the name "café" in Latin-1.
NOT_UTF8 = os.fsdecode(b"caf\xe9")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with data, and an empty current folder."""
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(tmp_path / "here")
    (folder / "train.tsv").write_text(ROWS)
    return folder


def parse(*arguments: str) -> Config:
    flags = parse_flags(Config, ["x", *arguments])
    assert flags is not None
    return flags[0]


def test_every_flag_that_is_a_path_expands_it(home):
    names = {field.name: field.metadata["path"] for *_, field in settings(Config)}
    paths = [name for name, kind in names.items() if kind]
    assert {name for name in names if name.endswith(("_dir", "_file", "_from"))} <= set(paths)
    assert {"encoder", "preprocessor"} < set(paths)
    config = parse(*(f"--{name}=~/{name}" for name in paths))
    assert values_of(config, paths) == {name: f"{home}/{name}" for name in paths}


def test_lists_and_globs(home):
    for given, expected in {
        "~/a.tsv,~/b.tsv": "{0}/a.tsv,{0}/b.tsv",
        "~/a.tsv, ~/b*.tsv": "{0}/a.tsv, {0}/b*.tsv",
        "c.tsv,~/*/[ab].tsv": "c.tsv,{0}/*/[ab].tsv",
        "~": "{0}",
        "a~,b/~/c~d": "a~,b/~/c~d",
        "gs://bucket/~/a": "gs://bucket/~/a",
    }.items():
        assert expand_paths(given, "x") == expected.format(home)
        assert parse(f"--train_file={given}").data.train_file == expected.format(home)


def test_the_home_of_a_user(home):
    import pwd

    user = pwd.getpwuid(os.getuid())
    assert parse(f"--model_dir=~{user.pw_name}/x").run.model_dir == f"{user.pw_dir}/x"
    with pytest.raises(UserError, match=r"^--model_dir=~nobody_here/x: .* no user nobody_here\."):
        parse("--model_dir=~nobody_here/x")
    with pytest.raises(UserError, match=r"is written \./~b\.tsv"):
        parse("--train_file=a.tsv,~b.tsv")


def test_a_name_that_begins_with_a_tilde(home):
    Path("~x").mkdir()
    assert parse("--model_dir=./~x").run.model_dir == "./~x"
    Path("~$a,~b.tsv").write_text(ROWS)  # Whole, it is a file that is there.
    assert parse("--train_file=~$a,~b.tsv").data.train_file == "~$a,~b.tsv"
    assert not Path("~").exists()


def test_a_flagfile_and_the_paths_in_it(home):
    (home / "run.cfg").write_text("--model_dir=~/out\n--flagfile=~/more.cfg\n")
    (home / "more.cfg").write_text("--train_file=~/train.tsv\n")
    for flags in (["--flagfile=~/run.cfg"], ["--flagfile", "~/run.cfg"]):
        config = parse(*flags)
        assert config.run.model_dir == f"{home}/out"
        assert config.data.train_file == f"{home}/train.tsv"


def test_from_python(home, tiny_bert_dir):
    assert ModelDir("~/out").path == f"{home}/out"
    assert ModelDir(Path("~/out")).config == f"{home}/out/config.json"  # type: ignore[arg-type]
    data = load_data(DataConfig(train_file="~/train.tsv"), LabelConfig())
    assert data.train is not None and len(data.train) == 16
    assert EncoderConfig(encoder="~/bert").encoder == f"{home}/bert"
    assert RunConfig(model_dir=Path("~")).model_dir == str(home)  # type: ignore[arg-type]
    # A record of before, as of another machine's user, is read for this one.
    record = {"run": {"model_dir": "~/out"}}
    assert from_record(Config, record).run.model_dir == f"{home}/out"


def test_an_encoder_a_model_and_an_export_in_the_home_folder(home, tiny_bert_dir):
    from tf_finetune import Problem, build_classifier

    (home / "bert").symlink_to(tiny_bert_dir)
    problem = Problem("single_label", ("text",), ("bad", "good"))
    classifier = build_classifier(load_encoder("~/bert"), problem, max_seq_length=8)
    classifier.save("~/saved")
    recorded = json.loads((home / "saved" / "config.json").read_text())
    assert recorded["encoder"]["encoder"] == f"{home}/bert"
    assert recorded["run"]["model_dir"] == f"{home}/saved"
    expected = classifier.predict(["a film"]).logits
    assert (load_classifier("~/saved").predict(["a film"]).logits == expected).all()
    classifier.export("~/export")
    assert (home / "export" / "saved_model.pb").is_file()
    assert os.listdir() == []


def test_the_other_commands(home, capsys):
    from tf_finetune.experiments.compare import main as compare
    from tf_finetune.formats.convert import main as convert

    (home / "run").mkdir()
    (home / "run" / "file").touch()
    assert compare(["~/run"]) == 2
    assert f"{home}/run holds no run" in capsys.readouterr().err
    assert compare(["~nobody_here/run"]) == 2
    assert convert(["--hf_dir=~/bert", "--output_dir=~/run"]) == 2  # It is not empty.


@pytest.mark.parametrize(
    "name",
    [field.name for *_, field in settings(Config) if field.metadata["path"]]
    + ["label_column", "label_names", "head"],
)
def test_a_value_that_is_not_utf8_is_refused_with_its_bytes(name):
    with pytest.raises(UserError, match=rf"^--{name}=/tmp/caf\\xe9/x: bytes that are not UTF-8"):
        parse(f"--{name}=/tmp/{NOT_UTF8}/x")


def test_bytes_that_are_not_utf8_from_python(tmp_path):
    for path in (f"{tmp_path}/{NOT_UTF8}", Path(tmp_path, NOT_UTF8), f"{tmp_path}/\ud800"):
        with pytest.raises(UserError, match=r"not UTF-8, in which .* Rename the file or folder"):
            ModelDir(path)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=r"train_file=.*not UTF-8"):
            DataConfig(train_file=path)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=r"--encoder=.*not UTF-8"):
            load_encoder(str(path))
        with pytest.raises(UserError, match="not UTF-8"):
            expand_path(path, "x")


def test_a_flagfile_may_have_any_name(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.cfg"
    with open(path, "w") as file:
        file.write("--seed=3\n")
    assert parse(f"--flagfile={os.fsdecode(path)}").runtime.seed == 3


def test_the_command_refuses_it_before_tensorflow(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.csv"
    with open(path, "w") as file:
        file.write(ROWS)
    program = [sys.executable, "-X", "importtime", str(REPOSITORY / "run_classifier.py")]
    flags = ["--do_train", "--model_dir=out", b"--train_file=" + path]
    done = subprocess.run([*program, *flags], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 2 and b"tensorflow" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(b"error: --train_file=/")
    assert b"caf\\xe9.csv: bytes that are not UTF-8" in done.stderr
    assert not (tmp_path / "out").exists()
