import json
import shutil
import subprocess
import sys
from pathlib import Path

import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401 (ops of the preprocessor)

from tf_finetune.errors import UserError
from tf_finetune.formats.convert import export_hub_encoder, main
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.formats.hub_writer import save_hub_encoder

TEXTS = ["The movie is not good.", "a very, very boring plot", "", "naïve film!"]


def test_preprocessor_and_encoder_follow_the_tf_hub_api(
    tiny_hub_dir, tiny_bert_dir, read_bert, bert_forward
):
    preprocessor = tf.saved_model.load(str(tiny_hub_dir / "preprocessor"))
    encoder = tf.saved_model.load(str(tiny_hub_dir / "encoder"))
    inputs = preprocessor.bert_pack_inputs([preprocessor.tokenize(tf.constant(TEXTS))], 32)
    assert set(inputs) == {"input_word_ids", "input_mask", "input_type_ids"}
    assert inputs["input_word_ids"].shape == (4, 32)
    outputs = encoder(inputs)
    pooled, sequence = bert_forward(read_bert(tiny_bert_dir), inputs, heads=2)
    np.testing.assert_allclose(outputs["pooled_output"], pooled, atol=1e-5)
    np.testing.assert_allclose(outputs["default"], pooled, atol=1e-5)
    mask = inputs["input_mask"].numpy().astype(bool)
    np.testing.assert_allclose(outputs["sequence_output"][mask], sequence[mask], atol=1e-5)
    assert len(outputs["encoder_outputs"]) == 2
    assert len(encoder.trainable_variables) == 39


def test_saved_models_carry_vocabulary_and_casing(tiny_hub_dir, tiny_bert_dir):
    encoder = tf.saved_model.load(str(tiny_hub_dir / "encoder"))
    vocabulary_file = encoder.vocab_file.asset_path.numpy().decode()
    assert vocabulary_file.startswith(str(tiny_hub_dir))
    with open(vocabulary_file, encoding="utf-8") as exported:
        assert exported.read() == (tiny_bert_dir / "vocab.txt").read_text(encoding="utf-8")
    assert bool(encoder.do_lower_case.numpy())


def test_preprocessor_gives_the_ids_of_the_directory(tiny_hub_dir, tiny_bert_dir):
    preprocessor = tf.saved_model.load(str(tiny_hub_dir / "preprocessor"))
    segments = [tf.constant(TEXTS), tf.constant(TEXTS[::-1])]
    exported = preprocessor.bert_pack_inputs([preprocessor.tokenize(s) for s in segments], 24)
    ours = load_encoder(str(tiny_bert_dir)).preprocessor
    padded = ours.pad(ours.pack(ours.tokenize(segments), 24), 24)
    for name, value in padded.items():
        np.testing.assert_array_equal(exported[name], value)


def test_fine_tuned_encoder_is_written_back_with_its_new_weights(tiny_bert_dir, tmp_path):
    encoder = load_encoder(str(tiny_bert_dir), dropout=0.25)
    for variable in encoder.network.trainable_variables:
        variable.assign(variable + 0.1)
    save_hub_encoder(encoder, tmp_path / "hub")
    written = load_encoder(str(tmp_path / "hub" / "encoder"), mode="saved_model")
    inputs = encoder.preprocessor([tf.constant(TEXTS)], 32)
    for name, value in encoder.network(inputs).items():
        np.testing.assert_allclose(written.network(inputs)[name], value, atol=1e-5)


def test_wrapped_encoder_is_written_back_with_its_new_weights(tiny_hub_dir, tmp_path):
    encoder = load_encoder(str(tiny_hub_dir / "encoder"), mode="saved_model")
    for variable in encoder.network.trainable_variables:
        variable.assign(variable + 0.1)
    save_hub_encoder(encoder, tmp_path / "hub")
    written = load_encoder(str(tmp_path / "hub" / "encoder"))
    assert written.mode == "native"
    inputs = encoder.preprocessor([tf.constant(TEXTS)], 32)
    pooled = encoder.network(inputs)["pooled_output"]
    np.testing.assert_allclose(written.network(inputs)["pooled_output"], pooled, atol=1e-5)


def test_only_a_bert_is_written(tiny_bert_dir, tmp_path):
    sizes = {"num_layers": 1, "num_heads": 1, "hidden_dim": 4, "intermediate_dim": 4}
    words = (tiny_bert_dir / "vocab.txt").read_text().split()
    models = keras_hub.models
    models.DistilBertBackbone(vocabulary_size=200, **sizes).save_to_preset(str(tmp_path / "in"))
    models.DistilBertTokenizer(words).save_to_preset(str(tmp_path / "in"))
    with pytest.raises(UserError, match="not a DistilBertBackbone"):
        save_hub_encoder(load_encoder(str(tmp_path / "in")), tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def changed(directory: Path, target: Path, file: str, **values) -> str:
    shutil.copytree(directory, target)
    content = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps(content | values))
    return str(target)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"layer_norm_eps": 1e-3}, r"layer norms add 0\.001"),
        ("tokenizer_config.json", {"strip_accents": False}, "strip_accents=False"),
    ],
)
def test_what_the_exporter_cannot_say_is_refused(tiny_bert_dir, tmp_path, file, values, message):
    directory = changed(tiny_bert_dir, tmp_path / "bert", file, **values)
    with pytest.raises(UserError, match=message):
        export_hub_encoder(directory, tmp_path / "hub")


@pytest.mark.parametrize(
    ("hf_dir", "message"),
    [
        ("no/such/dir", "no such directory"),
        ("package:no_such_package", "no Python package"),
    ],
)
def test_bad_input_exits_2_with_a_message(hf_dir, message, tmp_path, capsys):
    assert main([f"--hf_dir={hf_dir}", f"--output_dir={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert hf_dir in error
    assert message in error
    assert not (tmp_path / "out").exists()


def test_directory_in_use_is_not_touched(tiny_bert_dir, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    assert main([f"--hf_dir={tiny_bert_dir}", f"--output_dir={tmp_path}"]) == 2
    assert "is there and not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UserError):
        export_hub_encoder(str(tiny_bert_dir), tmp_path)


def test_command_line_answers_without_tensorflow():
    program = (
        "import runpy, sys; sys.argv[1:] = ['--help']\n"
        "try: runpy.run_module('tf_finetune.formats.convert', run_name='__main__')\n"
        "finally: print('tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--hf_dir" in done.stdout
    assert done.stdout.endswith("False\n")
