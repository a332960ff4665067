"""Models of before the package's modules moved: they load, predict the same and train on."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import run_classifier
from tf_finetune import load_classifier
from tf_finetune.training.checkpoints import find

MADE_BEFORE = Path(__file__).resolve().parents[1] / "made_before"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of them whose record names this folder."""
    shutil.copytree(MADE_BEFORE, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace("{folder}", str(tmp_path)))
    return tmp_path


def predicted(folder: Path) -> tuple[list[str], np.ndarray]:
    """Returns the texts of the file of predictions and their probabilities."""
    with (folder / "model" / "predictions.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    names = ("probability_bad", "probability_good")
    return [row["text"] for row in rows], np.array([[float(r[n]) for n in names] for r in rows])


def test_a_model_directory_predicts_the_same(folder):
    texts, expected = predicted(folder)
    classifier = load_classifier(str(folder / "model"))
    assert classifier.max_seq_length == 24 and classifier.problem.label_names == ("bad", "good")
    np.testing.assert_allclose(classifier.predict(texts).probabilities, expected, atol=1e-5)
    command = ["x", f"--model_dir={folder}/model", "--do_predict", "--precision=float32"]
    assert run_classifier.main(command) == 0
    again, probabilities = predicted(folder)
    assert again == texts
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_a_training_goes_on_from_its_checkpoint(folder):
    """To the same weights, moments and random state at step 40, of the tokens that the texts use.

    It had moments of the others too, which are zero, and weight decay shrank their embeddings.
    """
    path = find(str(folder / "model" / "checkpoints"), "step")[-1]
    reader = tf.train.load_checkpoint(path)
    names = [n for n in reader.get_variable_to_shape_map() if n.endswith("VARIABLE_VALUE")]
    expected = {name: reader.get_tensor(name) for name in names}
    for file in (folder / "model" / "checkpoints").glob("*-40*"):
        file.unlink()
    flags = (MADE_BEFORE / "train.cfg").read_text().replace("{folder}", str(folder))
    (folder / "train.cfg").write_text(flags)
    assert run_classifier.main(["x", f"--flagfile={folder}/train.cfg", "--do_train"]) == 0
    reader = tf.train.load_checkpoint(path)
    assert len(expected) > 30
    (rows_name,) = {n for n in reader.get_variable_to_shape_map() if "VALUE" in n} - set(expected)
    rows = reader.get_tensor(rows_name)
    vocabulary = (123, 16)
    tables = [name for name, value in expected.items() if value.shape == vocabulary]
    assert len(tables) == 3 and 10 < len(rows) < vocabulary[0]
    for name, value in expected.items():
        actual = reader.get_tensor(name)
        if name in tables:
            others = np.setdiff1d(np.arange(len(value)), rows)
            assert name.startswith("model") or not value[others].any()
            value, actual = value[rows], actual[rows] if actual.shape == vocabulary else actual
        np.testing.assert_allclose(actual, value, atol=1e-5, err_msg=name)


def test_model_keras_loads(folder):
    """In a process that imports no more than the README says."""
    program = (
        "import sys, keras, numpy as np\n"
        "import tf_finetune.classification.classifier\n"
        "from tf_finetune import load_classifier\n"
        "model = keras.saving.load_model(sys.argv[1] + '/model.keras')\n"
        "classifier = load_classifier(sys.argv[1] + '/model')\n"
        "ids = np.array([[2, 50, 60, 3]])\n"
        "inputs = {'input_word_ids': ids, 'input_mask': ids * 0 + 1, 'input_type_ids': ids * 0}\n"
        "np.testing.assert_allclose(model(inputs), classifier.model(inputs), atol=1e-5)\n"
        "print(type(model.get_layer('head')).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == "MlpHead"
