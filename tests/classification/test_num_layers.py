"""`--num_layers`: an encoder of the lowest layers, in every form of the model."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

import run_classifier
from tests.thorough import mostly
from tf_finetune import UserError, load_classifier, load_encoder
from tf_finetune.classification.classifier import build_classifier
from tf_finetune.classification.config import EncoderConfig
from tf_finetune.classification.hugging_face_export import write_classifier
from tf_finetune.data.problem import Problem
from tf_finetune.formats.encoder_families import with_num_layers

NAMES = mostly(
    *("albert", "distilbert", "modernbert"),
    others=("bert", "deberta-v3", "electra", "mpnet", "roberta"),
)
TEXTS = ["the film is good", "a bad, bad plot!", ""]


def cut_by_hand(folder: Path, num_layers: int) -> None:
    """Removes the upper layers from a checkpoint's files."""
    config = json.loads((folder / "config.json").read_text())
    config["n_layers" if config["model_type"] == "distilbert" else "num_hidden_layers"] = num_layers
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][:num_layers]
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    numbers = {name: re.search(r"layers?\.(\d+)\.", name) for name in weights}
    kept = {n: w for n, w in weights.items() if not (m := numbers[n]) or int(m[1]) < num_layers}
    assert len(kept) < len(weights) or config["model_type"] == "albert"
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_network_of_a_checkpoint_without_the_upper_layers(name, folder_of):
    folder = folder_of(name)
    whole, cut = load_encoder(str(folder)), load_encoder(str(folder), num_layers=1)
    cut_by_hand(folder, 1)
    expected = load_encoder(str(folder))
    features = expected.preprocessor([tf.constant(TEXTS)], 16)
    for output in ("pooled_output", "sequence_output"):
        values = [e.network(features)[output].numpy() for e in (cut, expected, whole)]
        if expected.has_new_pooler and output == "pooled_output":
            continue
        np.testing.assert_array_equal(values[0], values[1])
        assert np.abs(values[0] - values[2]).max() > 1e-3
    assert len(cut.blocks) == 2 and cut.network.num_layers == 1
    assert cut.source is not None and expected.source is not None
    assert cut.source.config == expected.source.config


@pytest.mark.parametrize("name", mostly("modernbert", others=["bert", "distilbert"]))
def test_what_is_written_for_transformers_has_as_many_layers(name, folder_of, tmp_path):
    """`write_classifier` reads it again and compares logits."""
    encoder = load_encoder(str(folder_of(name)), num_layers=1)
    config = EncoderConfig(pooling="mean", head="linear")
    problem = Problem("single_label", ("text",), ("bad", "fine", "good"))
    write_classifier(
        tmp_path / "out", build_classifier(encoder, problem, config, max_seq_length=16), [TEXTS]
    )
    again = load_encoder(str(tmp_path / "out"))
    assert again.network.num_layers == 1
    features = encoder.preprocessor([tf.constant(TEXTS)], 16)
    found, expected = (e.network(features)["sequence_output"] for e in (again, encoder))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.thorough
def test_other_formats_than_hugging_faces(tiny_hub_dir, tiny_bert_dir):
    encoder = f"{tiny_hub_dir}/encoder"
    cut, expected = (load_encoder(h, num_layers=1) for h in (encoder, str(tiny_bert_dir)))
    features = expected.preprocessor([tf.constant(["a good film"])], 16)
    found, expected = (e.network(features)["pooled_output"] for e in (cut, expected))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(UserError, match=r"--num_layers=1: .* is a wrapped SavedModel"):
        load_encoder(encoder, mode="saved_model", num_layers=1)


def test_more_layers_than_there_are(tiny_bert_dir):
    assert load_encoder(str(tiny_bert_dir), num_layers=2).network.num_layers == 2
    with pytest.raises(UserError, match=r"--num_layers=3: .* has 2 layers\. Give 1 to 2"):
        load_encoder(str(tiny_bert_dir), num_layers=3)


def test_fewer_layers_than_an_option_asks_for(folder_of):
    with pytest.raises(UserError, match="conv_kernel_size=3 and num_hidden_layers=1"):
        load_encoder(str(folder_of("deberta-v2")), num_layers=1)


@pytest.mark.slow
def test_a_run_keeps_it_and_another_begins_from_its_layers(tiny_bert_dir, tmp_path, capsys):
    (tmp_path / "rows.tsv").write_text("text\tlabel\n" + "a good film\tgood\nbad plot\tbad\n" * 4)
    flags = ["x", f"--train_file={tmp_path}/rows.tsv", f"--test_file={tmp_path}/rows.tsv"]
    flags += ["--do_train", "--max_steps=2", "--max_seq_length=8", "--learning_rate=1e-9"]
    encoder = f"--encoder={tiny_bert_dir}"
    assert run_classifier.main([*flags, encoder, f"--model_dir={tmp_path}/whole"]) == 0
    cut = [*flags, f"--init_from={tmp_path}/whole", "--num_layers=1", "--do_export", "--do_predict"]
    cut += [f"--model_dir={tmp_path}/cut", "--export_formats=saved_model,hugging_face"]
    assert run_classifier.main(cut) == 0
    classifier = load_classifier(f"{tmp_path}/cut")
    assert classifier.encoder.network.num_layers == 1
    # At a rate of next to nothing it is what it began with.
    other = load_classifier(f"{tmp_path}/whole").encoder.network.layers[0]
    for ours, theirs in zip(
        classifier.encoder.network.layers[0].weights, other.weights, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6, err_msg=ours.path)
    served = tf.saved_model.load(f"{tmp_path}/cut/export").signatures["serving_default"]
    found = served(text=tf.constant(["good film"]))["probabilities"]
    np.testing.assert_allclose(found, classifier.predict(["good film"]).probabilities, atol=1e-5)
    written = json.loads((tmp_path / "cut" / "hugging_face" / "config.json").read_text())
    assert written["num_hidden_layers"] == 1
    # A further training from it has its layers, and a call without training cannot have others.
    again = [*flags, f"--init_from={tmp_path}/cut", f"--model_dir={tmp_path}/again"]
    assert run_classifier.main(again) == 0
    assert load_classifier(f"{tmp_path}/again").encoder.network.num_layers == 1
    capsys.readouterr()
    wrong = [flags[0], flags[2], f"--model_dir={tmp_path}/cut", "--num_layers=2", "--do_eval"]
    assert run_classifier.main(wrong) == 2
    assert "--num_layers: 1 there, 2 now" in capsys.readouterr().err


def test_a_kind_for_each_layer_is_cut_too():
    kinds = ["full_attention", "sliding_attention", "sliding_attention"]
    config = {"model_type": "modernbert", "num_hidden_layers": 3, "layer_types": kinds}
    assert with_num_layers(config, 2) == {
        **config,
        "num_hidden_layers": 2,
        "layer_types": kinds[:2],
    }
