"""The README's blocks work as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(
    r"^```(\w*)\n(.*?)^```", (REPOSITORY / "README.md").read_text("utf-8"), re.M | re.S
)


def block(language: str, part: str) -> str:
    (found,) = [text for kind, text in BLOCKS if kind == language and part in text]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_bert_dir):
    """Small files of the names that the README uses, beside the package."""
    path = tmp_path_factory.mktemp("readme")
    rows = [
        f"a good film {i}\tgreat\tyes" if i % 2 else f"a film {i}\tboring\tno" for i in range(16)
    ]
    for name in ("train", "dev", "test", "new"):
        (path / f"{name}.tsv").write_text("\n".join(["sentence1\tsentence2\tlabel", *rows]) + "\n")
    for name in ("run_classifier.py", "tf_finetune", "configs"):
        (path / name).symlink_to(REPOSITORY / name)
    return path


def shell(script: str, folder: Path) -> str:
    # The interpreter of this environment, and few steps: what is tested is that it runs.
    script = script.replace("python ", f"{sys.executable} ")
    script = script.replace("--do_train", "--do_train --num_train_epochs=1 --max_seq_length=16")
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_own_data_serving_and_prediction(folder, tiny_bert_dir):
    shell(block("", "--text_columns=sentence1,sentence2"), folder)
    served = subprocess.run(
        [sys.executable, "-c", block("python", "serving_default")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert served.returncode == 0 and "probabilities" not in served.stderr, served.stderr[-3000:]
    assert "tf.Tensor" in served.stdout
    assert "probabilities" in shell(block("", "saved_model_cli"), folder)
    shell(block("", "--test_file=new.tsv"), folder)
    assert len((folder / "out" / "predictions.tsv").read_text().splitlines()) == 17


@pytest.mark.slow
def test_hub_encoder(folder):
    shell(block("", "formats.convert"), folder)
    assert (folder / "out_hub" / "metrics.json").is_file()


@pytest.mark.slow
def test_python_example(folder):
    done = subprocess.run(
        [sys.executable, "-c", block("python", "build_classifier")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "('good',)" in done.stdout or "('bad',)" in done.stdout
    assert (folder / "export" / "saved_model.pb").is_file()


def test_make_targets_of_the_readme_exist():
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    targets = re.findall(r"^make (\w+)", block("", "make quickstart"), re.M)
    assert targets == ["quickstart", "test"]
    assert all(f"\n{target}: " in makefile for target in targets)
