"""Classifiers whose encoder is trained by adapters: from the command line and from Python."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import run_classifier
from tf_finetune import (
    EncoderConfig,
    Examples,
    LoopConfig,
    Lora,
    ModelDir,
    OptimizerConfig,
    Problem,
    UserError,
    build_classifier,
    load_classifier,
    load_encoder,
    plan_batches,
)
from tf_finetune.models.bert_weights import read_bert

PROBLEM = Problem("single_label", ("text",), ("bad", "good"))
GOOD, BAD = ("a good film", "great plot", "very good"), ("bad movie", "boring plot", "not good")
EXAMPLES = Examples(
    ([(GOOD, BAD)[i % 2][i % 3] for i in range(24)],), np.array([1, 0] * 12, np.int32)
)
# Of the tiny BERT: two layers of six modules of width 16, one of width 32.
ADAPTERS = 2 * 6 * 2


def write_rows(path: Path, rows: int) -> None:
    lines = ["text\tlabel"]
    for i in range(rows):
        text, label = ((GOOD, "good"), (BAD, "bad"))[i % 2]
        lines.append(f"{text[i % 3]} {i}\t{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def files(tmp_path):
    for name, rows in (("train", 40), ("dev", 11), ("test", 13)):
        write_rows(tmp_path / f"{name}.tsv", rows)
    return tmp_path


def arguments(files: Path, encoder: Path, *more: str, model_dir: str = "out") -> list[str]:
    return [
        "run_classifier.py",
        f"--encoder={encoder}",
        f"--train_file={files}/train.tsv",
        f"--validation_file={files}/dev.tsv",
        f"--test_file={files}/test.tsv",
        f"--model_dir={files}/{model_dir}",
        "--max_seq_length=32",
        "--train_batch_size=8",
        "--learning_rate=1e-2",
        "--num_train_epochs=6",
        "--precision=float32",
        *more,
    ]


def checkpoint(directory: Path) -> dict[str, np.ndarray]:
    """The tensors of the last checkpoint."""
    import tensorflow as tf

    from tf_finetune.training.checkpoints import find

    reader = tf.train.load_checkpoint(find(str(directory / "checkpoints"), "step")[-1])
    names = reader.get_variable_to_shape_map()
    return {name: reader.get_tensor(name) for name in names if name.endswith("VARIABLE_VALUE")}


def teach(encoder) -> None:
    """Gives the adapters values as if they had learnt."""
    random = np.random.default_rng(1)
    for layer in encoder.network.layers:
        for adapter in layer.adapters.values():
            adapter.b.assign(random.normal(0, 0.3, adapter.b.shape))


def test_one_command_trains_adapters_and_exports_them_merged(files, tiny_bert_dir, capsys):
    import keras
    import tensorflow as tf
    import tensorflow_text  # noqa: F401

    tasks = ("--do_train", "--do_eval", "--do_predict", "--do_export")
    lora = ["--lora_rank=4", "--lora_dropout=0.1", "--lora_targets=query,value,output.dense"]
    lora.append("--num_train_epochs=15")
    assert run_classifier.main(arguments(files, tiny_bert_dir, *tasks, *lora)) == 0
    out = files / "out"
    printed = capsys.readouterr().out
    trained, every = re.search(r"^adapters +rank 4, ([\d,]+) of ([\d,]+) ", printed, re.M).groups()
    pooler, head = 16 * 16 + 16, 16 * 2 + 2
    # Output.dense names the attention's too, as in PEFT.
    adapters = 2 * 4 * (3 * (16 + 16) + (32 + 16))
    assert int(trained.replace(",", "")) == adapters + pooler + head
    assert int(every.replace(",", "")) > int(trained.replace(",", ""))
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] > 0.8

    classifier = load_classifier(str(out))
    assert classifier.encoder.lora == Lora(4, 16.0, 0.1, ("query", "value", "output.dense"))
    # Factors, pooler, head and the random states of dropout; of each weight two moments.
    saved = [name for name in checkpoint(out) if name.startswith("model/")]
    assert len(saved) == 2 * 2 * 4 + 2 + 2 + 2
    # What stands beside the adapters is as it was.
    base = {id(v): v for v in classifier.encoder.network.non_trainable_weights}.values()
    loaded = load_encoder(str(tiny_bert_dir)).network.weights[: len(base)]
    for own, other in zip(base, loaded, strict=True):
        np.testing.assert_array_equal(own, other)

    texts = ["a good film 3", "boring plot"]
    expected = classifier.predict(texts).probabilities
    serve = tf.saved_model.load(str(out / "export")).signatures["serving_default"]
    np.testing.assert_allclose(serve(text=tf.constant(texts))["probabilities"], expected, atol=1e-5)
    names = {weight.path for weight in keras.saving.load_model(out / "export/model.keras").weights}
    assert names and not [name for name in names if "lora" in name]

    assert run_classifier.main(["x", f"--model_dir={out}", "--do_eval"]) == 0
    again = json.loads((out / "metrics.json").read_text())
    assert again["test"]["accuracy"] == metrics["test"]["accuracy"]
    capsys.readouterr()
    assert run_classifier.main(["x", f"--model_dir={out}", "--do_eval", "--lora_rank=8"]) == 2
    assert "--lora_rank: 4 there, 8 now" in capsys.readouterr().err


def test_a_training_goes_on_to_the_same_weights(files, tiny_bert_dir):
    lora = ("--lora_rank=2", "--lora_dropout=0.2", "--do_train", "--max_steps=12")
    command = arguments(files, tiny_bert_dir, *lora, "--save_checkpoints_steps=6")
    assert run_classifier.main(command) == 0
    expected = checkpoint(files / "out")
    for file in (files / "out" / "checkpoints").glob("*-12*"):
        file.unlink()
    assert run_classifier.main(command) == 0
    found = checkpoint(files / "out")
    assert found.keys() == expected.keys() and len(found) > 3 * ADAPTERS
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)


@pytest.mark.thorough
def test_a_run_starts_from_the_adapters_of_another(files, tiny_bert_dir, capsys):
    lora = ("--lora_rank=2", "--do_train", "--do_eval")
    assert run_classifier.main(arguments(files, tiny_bert_dir, *lora)) == 0
    earlier = json.loads((files / "out" / "metrics.json").read_text())["test"]
    start = [f"--init_from={files}/out", "--learning_rate=1e-9", "--max_steps=1"]
    for name, flags in (("adapters", lora), ("all", lora[1:])):
        command = arguments(files, tiny_bert_dir, *flags, *start, model_dir=name)
        assert run_classifier.main(command) == 0
        # At a rate of next to nothing the model is the one it began with.
        test = json.loads((files / name / "metrics.json").read_text())["test"]
        assert test["loss"] == pytest.approx(earlier["loss"], rel=1e-3)
        assert test["accuracy"] == earlier["accuracy"]
        loaded = load_classifier(str(files / name)).encoder
        assert (loaded.lora is None) == (name == "all")
    few, many = (len(checkpoint(files / name)) for name in ("adapters", "all"))
    assert few > 3 * ADAPTERS and many > 3 * 2 * 12
    capsys.readouterr()
    start[0] = f"--init_from={files}/all"
    command = arguments(files, tiny_bert_dir, *lora, *start, model_dir="refused")
    assert run_classifier.main(command) == 2
    error = capsys.readouterr().err
    assert "--lora_rank: 0 there, 2 now" in error and "--lora_rank=0, which trains all" in error
    assert not (files / "refused").exists()


def test_what_adapters_cannot_do_is_said_first(files, tiny_bert_dir, capsys):
    command = arguments(files, tiny_bert_dir, "--do_train", "--lora_rank=2")
    assert run_classifier.main([*command, "--freeze=embeddings"]) == 2
    assert "--freeze=embeddings does not go with --lora_rank=2" in capsys.readouterr().err
    assert run_classifier.main([*command, "--lora_targets=q_proj"]) == 2
    error = capsys.readouterr().err
    assert "has no linear layer q_proj. It has attention.self.query, " in error


@pytest.fixture
def fitted(tiny_bert_dir):
    """A classifier whose adapters know its examples."""
    encoder = load_encoder(str(tiny_bert_dir), lora=Lora(rank=4, alpha=8, rslora=True))
    classifier = build_classifier(encoder, PROBLEM, EncoderConfig(head="mlp"), max_seq_length=8)
    batches = plan_batches(classifier.tokenize(EXAMPLES), 8, LoopConfig(max_steps=60), seed=1)
    classifier.fit(batches, OptimizerConfig(learning_rate=1e-2))
    return classifier


def test_it_learns_and_is_saved_loaded_and_exported(fitted, tmp_path):
    import tensorflow as tf

    assert fitted.evaluate(EXAMPLES)["accuracy"] == 1.0
    expected = fitted.predict(["a good film", "boring"])
    fitted.save(str(tmp_path / "saved"))
    loaded = load_classifier(str(tmp_path / "saved"))
    assert loaded.encoder.lora.scaling == fitted.encoder.lora.scaling == 4.0
    again = loaded.predict(["a good film", "boring"])
    np.testing.assert_array_equal(again.logits, expected.logits)
    fitted.export(str(tmp_path / "export"))
    serve = tf.saved_model.load(str(tmp_path / "export")).signatures["serving_default"]
    answers = serve(text=tf.constant(["a good film", "boring"]))["probabilities"]
    np.testing.assert_allclose(answers, expected.probabilities, atol=1e-5)
    assert fitted.encoder.lora  # The classifier itself still has its adapters.


def test_an_export_under_mixed_precision_is_merged_in_float32(tiny_bert_dir, tmp_path):
    import keras
    import tensorflow as tf

    keras.config.set_dtype_policy("mixed_bfloat16")
    encoder = load_encoder(str(tiny_bert_dir), lora=Lora(rank=2, alpha=4))
    classifier = build_classifier(encoder, PROBLEM, max_seq_length=8)
    teach(encoder)
    classifier.export(str(tmp_path / "export"))
    classifier.save(str(tmp_path / "saved"))
    keras.config.set_dtype_policy("float32")
    exact = load_classifier(str(tmp_path / "saved")).predict(["a good film"]).probabilities
    serve = tf.saved_model.load(str(tmp_path / "export")).signatures["serving_default"]
    answers = serve(text=tf.constant(["a good film"]))["probabilities"]
    np.testing.assert_allclose(answers, exact, atol=1e-5)


def test_a_folder_of_other_adapters_is_not_trained_in(fitted, tiny_bert_dir, tmp_path):
    batches = plan_batches(fitted.tokenize(EXAMPLES), 8, LoopConfig(max_steps=2))
    folder = ModelDir(str(tmp_path / "run"))
    fitted.fit(batches, loop=LoopConfig(max_steps=2), model_dir=folder)
    other = build_classifier(
        load_encoder(str(tiny_bert_dir), lora=Lora(rank=2, alpha=4)),
        PROBLEM,
        EncoderConfig(head="mlp"),
        max_seq_length=8,
    )
    with pytest.raises(UserError, match="--lora_rank: 4 there, 2 now"):
        other.fit(batches, model_dir=folder)
    with pytest.raises(UserError, match=r"freeze=embeddings: .* has adapters"):
        build_classifier(other.encoder, PROBLEM, EncoderConfig(freeze="embeddings"))


def test_the_encoder_goes_back_to_its_format_merged(tiny_bert_dir, tmp_path):
    from tf_finetune.formats.hub_writer import save_hub_encoder

    encoder = load_encoder(str(tiny_bert_dir), lora=Lora(rank=2, alpha=4))
    teach(encoder)
    save_hub_encoder(encoder, tmp_path / "hub")
    again = read_bert(load_encoder(str(tmp_path / "hub" / "encoder")).network)
    for name, value in read_bert(encoder.network).items():
        np.testing.assert_allclose(again[name], value, atol=1e-6, err_msg=name)
    shutil.rmtree(tmp_path / "hub")


def test_encoders_that_cannot_have_adapters(tiny_bert_dir, tiny_hub_dir, tmp_path):
    import keras_hub

    lora = Lora(rank=2, alpha=4)
    handle = str(tiny_hub_dir / "encoder")
    assert load_encoder(handle, lora=lora).lora == lora  # Lifted.
    with pytest.raises(UserError, match=r"--lora_rank=2: .* is a wrapped SavedModel"):
        load_encoder(handle, mode="saved_model", lora=lora)
    vocabulary = (tiny_bert_dir / "vocab.txt").read_text().split()
    keras_hub.models.DistilBertBackbone(
        vocabulary_size=len(vocabulary),
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=64,
    ).save_to_preset(str(tmp_path / "preset"))
    keras_hub.models.DistilBertTokenizer(vocabulary).save_to_preset(str(tmp_path / "preset"))
    with pytest.raises(UserError, match=r"is a DistilBertBackbone of KerasHub\. .*--lora_rank=0"):
        load_encoder(str(tmp_path / "preset"), lora=lora)
