"""BERTs that were saved without a pooler, as masked language models are."""

import random
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

import run_classifier
from tf_finetune.classification.classifier import build_classifier
from tf_finetune.classification.config import EncoderConfig
from tf_finetune.classification.load import load_classifier
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.formats.convert import export_hub_encoder
from tf_finetune.formats.encoders import load_encoder

PROBLEM = Problem("single_label", ("text",), ("bad", "good"))


@pytest.fixture
def masked_lm_dir(tiny_bert_dir, tmp_path) -> Path:
    """The tiny BERT as transformers saves a BertForMaskedLM."""
    directory = Path(shutil.copytree(tiny_bert_dir, tmp_path / "masked_lm"))
    tensors = load_file(directory / "model.safetensors")
    kept = {f"bert.{name}": value for name, value in tensors.items() if "pooler" not in name}
    kept["bert.embeddings.position_ids"] = np.arange(64)[None]
    kept["cls.predictions.bias"] = np.ones(123, "float32")
    kept["cls.predictions.transform.dense.weight"] = np.ones((16, 16), "float32")
    kept["cls.predictions.transform.LayerNorm.weight"] = np.ones(16, "float32")
    save_file(kept, directory / "model.safetensors")
    return directory


def pooler(directory: Path, seed: int) -> tuple[np.ndarray, np.ndarray]:
    keras.utils.set_random_seed(seed)
    kernel, bias = load_encoder(str(directory)).network.pooler.get_weights()
    return kernel, bias


def test_all_but_the_pooler_is_the_files(masked_lm_dir, tiny_bert_dir):
    encoder, whole = load_encoder(str(masked_lm_dir)), load_encoder(str(tiny_bert_dir))
    assert (encoder.has_new_pooler, whole.has_new_pooler) == (True, False)
    inputs = encoder.preprocessor([tf.constant(["a good film", "bad"])], 16)
    np.testing.assert_array_equal(
        encoder.network(inputs)["sequence_output"], whole.network(inputs)["sequence_output"]
    )


def test_the_pooler_is_berts_initial_one_and_keras_seeds_it(masked_lm_dir):
    kernel, bias = pooler(masked_lm_dir, 1)
    np.testing.assert_array_equal(kernel, pooler(masked_lm_dir, 1)[0])
    assert not np.array_equal(kernel, pooler(masked_lm_dir, 2)[0])
    assert 0.014 < kernel.std() < 0.022 and abs(kernel).max() <= 0.04 and not bias.any()


def test_only_a_missing_pooler_draws_random_numbers(masked_lm_dir, tiny_bert_dir):
    keras.utils.set_random_seed(1)
    first = keras.random.SeedGenerator().state
    keras.utils.set_random_seed(1)
    # What a whole encoder draws first is the seed of its dropout.
    assert (load_encoder(str(tiny_bert_dir)).network.seed_generator.state == first).numpy().all()
    after = random.random()
    keras.utils.set_random_seed(1)
    keras.random.SeedGenerator()
    assert random.random() == after
    keras.utils.set_random_seed(1)
    load_encoder(str(masked_lm_dir))
    assert random.random() != after


def test_half_a_pooler_is_a_damaged_file(masked_lm_dir):
    tensors = load_file(masked_lm_dir / "model.safetensors")
    tensors["bert.pooler.dense.weight"] = np.ones((16, 16), "float32")
    save_file(tensors, masked_lm_dir / "model.safetensors")
    with pytest.raises(UserError, match=r"lack pooler\.dense\.bias \(1 of 39 tensors"):
        load_encoder(str(masked_lm_dir))


@pytest.mark.parametrize("pooling", ["pooled", "cls", "mean", "max"])
def test_the_notice_is_for_those_who_use_it(masked_lm_dir, tiny_bert_dir, capsys, pooling):
    config = EncoderConfig(pooling=pooling)
    for directory in (masked_lm_dir, tiny_bert_dir):
        build_classifier(load_encoder(str(directory)), PROBLEM, config, max_seq_length=16)
        told = "without a pooler" in capsys.readouterr().out
        assert told == (pooling == "pooled" and directory == masked_lm_dir)


def test_a_new_pooler_is_not_frozen(masked_lm_dir):
    def build(**options: str) -> None:
        config = EncoderConfig(**options)
        build_classifier(load_encoder(str(masked_lm_dir)), PROBLEM, config, max_seq_length=16)

    with pytest.raises(UserError, match=r"--freeze=encoder: .* would stay random.*--pooling=mean"):
        build(freeze="encoder")
    build(freeze="encoder", pooling="mean")
    build(freeze="first_2_layers")


@pytest.mark.thorough
def test_a_run_tells_once_and_its_model_has_the_pooler_that_it_learnt(
    masked_lm_dir, tmp_path, capsys
):
    (tmp_path / "rows.tsv").write_text("text\tlabel\ngood\tgood\nbad\tbad\n")
    command = ["x", f"--model_dir={tmp_path}/out", "--max_seq_length=8"]
    train = [f"--encoder={masked_lm_dir}", f"--train_file={tmp_path}/rows.tsv", "--max_steps=3"]
    assert run_classifier.main([*command, *train, "--do_train", "--learning_rate=0.1"]) == 0
    told = "saved without a pooler; --pooling=pooled trains a new one"
    out = capsys.readouterr().out
    assert told in out and "--pooling=mean needs none" in out
    predict = [f"--test_file={tmp_path}/rows.tsv", "--do_predict", "--do_export"]
    assert run_classifier.main([*command[:2], *predict, "--export_encoder"]) == 0
    assert "pooler" not in capsys.readouterr().out
    learnt = load_classifier(f"{tmp_path}/out").encoder.network.pooler.get_weights()[0]
    written = load_encoder(f"{tmp_path}/out/encoder/encoder").network.pooler.get_weights()[0]
    np.testing.assert_allclose(written, learnt)
    assert abs(learnt).max() > 0.04  # It is none that the initializer draws.
    more = [f"--model_dir={tmp_path}/more", f"--init_from={tmp_path}/out", *train[1:]]
    assert run_classifier.main(["x", *more, "--do_train", "--max_seq_length=8"]) == 0
    assert "pooler" not in capsys.readouterr().out


def test_after_a_training_without_it_the_pooler_is_still_new(masked_lm_dir, tmp_path, capsys):
    config = EncoderConfig(pooling="mean")
    encoder = load_encoder(str(masked_lm_dir))
    build_classifier(encoder, PROBLEM, config, max_seq_length=16).save(f"{tmp_path}/out")
    assert load_classifier(f"{tmp_path}/out").encoder.has_new_pooler
    assert "pooler" not in capsys.readouterr().out


@pytest.mark.thorough
def test_it_is_written_in_tf_hubs_format_with_a_notice(masked_lm_dir, tmp_path, capsys):
    export_hub_encoder(str(masked_lm_dir), tmp_path / "hub")
    assert "has no pooler of its own; the pooled_output" in capsys.readouterr().out
    written, encoder = (
        load_encoder(str(path)) for path in (tmp_path / "hub" / "encoder", masked_lm_dir)
    )
    inputs = encoder.preprocessor([tf.constant(["a good film", "bad"])], 16)
    ours, theirs = (e.network(inputs)["sequence_output"] for e in (encoder, written))
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)
