"""Weights in Keras' and TensorFlow's files; test_torch_checkpoint.py has PyTorch's."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.errors import UserError
from tf_finetune.formats.encoders import load_encoder


def assert_same(handle: Path, expected: Path) -> None:
    weights = (load_encoder(str(path)).network.get_weights() for path in (handle, expected))
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def without_weights(directory: Path, target: Path) -> Path:
    shutil.copytree(directory, target)
    (target / "model.safetensors").unlink()
    return target


def save_h5(path: Path, weights: Mapping[str, np.ndarray], model: str = "tf_bert_model") -> None:
    """Writes names as transformers' TensorFlow classes did."""
    with h5py.File(path, "w") as file:
        for name, value in weights.items():
            name = name.replace("layer_", "layer_._")
            name = name.replace("/word_embeddings", "/word_embeddings/weight")
            for table in ("token_type", "position"):
                name = name.replace(f"/{table}_embeddings", f"/{table}_embeddings/embeddings")
            file[f"bert/{model}/bert/{name}:0"] = value


@pytest.fixture
def h5_dir(tiny_bert_dir, read_bert, tmp_path) -> Path:
    directory = without_weights(tiny_bert_dir, tmp_path / "bert")
    save_h5(directory / "tf_model.h5", read_bert(tiny_bert_dir))
    return directory


def test_a_bert_whose_weights_are_of_transformers_in_tensorflow(h5_dir, tiny_bert_dir):
    assert_same(h5_dir, tiny_bert_dir)


def test_a_language_models_head_may_repeat_the_embeddings(h5_dir, tiny_bert_dir):
    with h5py.File(h5_dir / "tf_model.h5", "a") as file:
        head = "mlm___cls/tf_bert_for_masked_lm"
        file[f"{head}/bert/embeddings/word_embeddings/weight:0"] = np.ones((123, 16), "float32")
        file[f"{head}/mlm___cls/predictions/bias:0"] = np.ones(123, "float32")
        file["classifier/tf_bert_for_masked_lm/classifier/kernel:0"] = np.ones((16, 2), "float32")
        file["dropout_37"] = h5py.Empty("f")
    assert_same(h5_dir, tiny_bert_dir)


def test_h5_in_several_files(tiny_bert_dir, read_bert, tmp_path):
    directory = without_weights(tiny_bert_dir, tmp_path / "bert")
    weights, where = list(read_bert(tiny_bert_dir).items()), {}
    for number in range(2):
        save_h5(directory / f"tf_model-{number}.h5", dict(weights[number::2]))
        where[str(number)] = f"tf_model-{number}.h5"
    (directory / "tf_model.h5.index.json").write_text(json.dumps({"weight_map": where}))
    assert_same(directory, tiny_bert_dir)


@pytest.mark.parametrize("part", ["../model.safetensors", "/etc/hostname", "a/b.safetensors"])
def test_an_index_names_no_file_elsewhere(tiny_bert_dir, tmp_path, part):
    directory = without_weights(tiny_bert_dir, tmp_path / "bert")
    index = {"weight_map": {"embeddings.word_embeddings.weight": part}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="is not a file beside it"):
        load_encoder(str(directory))


def test_h5_refers_to_no_other_file_and_to_nothing_that_is_not_there(h5_dir, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(64))
    bias = "bert/tf_bert_model/bert/pooler/dense/bias:0"
    for options in (
        {"external": [(str(tmp_path / "secret"), 0, 64)], "shape": (16,)},
        {"shape": (10**9,), "chunks": (10**6,)},
    ):
        with h5py.File(h5_dir / "tf_model.h5", "a") as file:
            del file[bias]
            file.create_dataset(bias, dtype="float32", **options)
        with pytest.raises(UserError, match="pooler/dense/bias:0 is not held by"):
            load_encoder(str(h5_dir))


@pytest.mark.parametrize("content", [b"", b"not read by anyone", b"\x89HDF\r\n\x1a\n" + bytes(99)])
def test_a_damaged_h5_is_told(h5_dir, content):
    (h5_dir / "tf_model.h5").write_bytes(content)
    with pytest.raises(UserError, match=r"tf_model\.h5 is no HDF5 file: .*Compare its files"):
        load_encoder(str(h5_dir))


def test_no_weights_at_all_lists_what_there_is(tiny_bert_dir, tmp_path):
    directory = without_weights(tiny_bert_dir, tmp_path / "bert")
    (directory / "flax_model.msgpack").write_bytes(b"")
    with pytest.raises(UserError, match=r"no model\.safetensors, pytorch_.*flax_model\.msgpack"):
        load_encoder(str(directory))


def save_checkpoint(prefix: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a checkpoint as TensorFlow 1 did."""
    names, values = zip(*tensors.items(), strict=True)
    slices = [""] * len(names)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(names),
        shape_and_slices=slices,
        tensors=[tf.constant(value) for value in values],
    )


@pytest.fixture
def make_google_dir(tiny_bert_dir, read_bert, tmp_path) -> Callable[..., Path]:
    """Makes the tiny BERT's folder as Google released its BERTs; of a fine-tuned one if asked."""

    def make(checkpoint: str = "bert_model.ckpt", trained: bool = False) -> Path:
        directory = tmp_path / "uncased_L-2_H-16_A-2"
        directory.mkdir(exist_ok=True)
        config = json.loads((tiny_bert_dir / "config.json").read_text())
        for key in ("model_type", "architectures", "layer_norm_eps"):
            del config[key]
        (directory / "bert_config.json").write_text(json.dumps(config))
        shutil.copy(tiny_bert_dir / "vocab.txt", directory)
        tensors = {f"bert/{name}": value for name, value in read_bert(tiny_bert_dir).items()}
        tensors["cls/predictions/transform/LayerNorm/gamma"] = np.ones(16, "float32")
        tensors["cls/predictions/transform/dense/kernel"] = np.ones((16, 16), "float32")
        tensors["cls/seq_relationship/output_weights"] = np.ones((2, 16), "float32")
        if trained:
            for name, value in list(tensors.items()):
                tensors |= {f"{name}/adam_m": value * 0, f"{name}/adam_v": value * 0}
            tensors |= {"global_step": np.int64(343), "output_bias": np.ones(2, "float32")}
        save_checkpoint(directory / checkpoint, tensors)
        return directory

    return make


def test_googles_release_by_its_folder_or_its_prefix(make_google_dir, tiny_bert_dir):
    directory = make_google_dir()
    assert_same(directory, tiny_bert_dir)
    assert_same(directory / "bert_model.ckpt", tiny_bert_dir)
    encoder = load_encoder(str(directory / "bert_model.ckpt"))
    assert (encoder.network.epsilon, encoder.network.approximate_gelu) == (1e-12, True)
    assert encoder.network.dropout == 0.1
    assert encoder.preprocessor.lower_case


def test_it_computes_what_the_paper_says(make_google_dir, tiny_bert_dir, read_bert, bert_forward):
    encoder = load_encoder(str(make_google_dir()))
    texts = [tf.constant(["The movie is not good.", ""]), tf.constant(["great", "a film"])]
    inputs = encoder.preprocessor(texts, 64)
    pooled, _ = bert_forward(read_bert(tiny_bert_dir), inputs, heads=2)
    np.testing.assert_allclose(encoder.network(inputs)["pooled_output"], pooled, atol=1e-5)


def test_case_is_the_vocabularys_or_that_of_a_tokenizer_config(make_google_dir):
    directory = make_google_dir()
    (directory / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert not load_encoder(str(directory)).preprocessor.lower_case
    (directory / "tokenizer_config.json").unlink()
    vocabulary = (directory / "vocab.txt").read_text().replace("\nfilm\n", "\nFilm\n")
    (directory / "vocab.txt").write_text(vocabulary)
    assert not load_encoder(str(directory)).preprocessor.lower_case


def test_a_checkpoint_of_a_training_has_slots_and_any_name(make_google_dir, tiny_bert_dir):
    directory = make_google_dir("model.ckpt-343", trained=True)
    assert_same(directory, tiny_bert_dir)
    make_google_dir("model.ckpt-686", trained=True)
    with pytest.raises(UserError, match=r"several checkpoints: model\.ckpt-343, model\.ckpt-686"):
        load_encoder(str(directory))
    assert_same(directory / "model.ckpt-343", tiny_bert_dir)
    make_google_dir()
    assert_same(directory, tiny_bert_dir)  # That of the release is meant.


def test_a_checkpoint_of_tf_models(make_google_dir, tiny_bert_dir, read_bert):
    """Its keys are paths of objects; the variables' names stand in its graph of objects."""
    directory = make_google_dir()
    for path in directory.glob("bert_model*"):
        path.unlink()
    variables = [tf.Variable(v, name=name) for name, v in read_bert(tiny_bert_dir).items()]
    tf.train.Checkpoint(model=variables).write(str(directory / "bert_model.ckpt"))
    assert_same(directory, tiny_bert_dir)


def test_configuration_of_before_model_type(make_google_dir, tiny_bert_dir):
    directory = make_google_dir()
    (directory / "bert_config.json").rename(directory / "config.json")
    shutil.copy(tiny_bert_dir / "model.safetensors", directory)
    assert_same(directory, tiny_bert_dir)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda d: (d / "bert_model.ckpt.data-00000-of-00001").unlink(),
            "weights cannot be loaded",
        ),
        (lambda d: (d / "bert_model.ckpt.index").write_bytes(b"x" * 99), "cannot be loaded"),
        (
            lambda d: (d / "bert_model.ckpt.index").unlink(),
            "no model.safetensors.*only bert_config",
        ),
        (lambda d: (d / "vocab.txt").unlink(), "vocab.txt is missing"),
        (
            lambda d: (d / "vocab.txt").write_bytes(b"\xff\xfe"),
            "vocab.txt: cannot be read: .*UTF-8",
        ),
        (lambda d: (d / "bert_config.json").write_text("{"), "config.json cannot be read as JSON"),
        (lambda d: (d / "bert_config.json").write_text("[" * 10**5), "cannot be read as JSON"),
        (lambda d: (d / "bert_config.json").write_text("[]"), "holds a list, not an object"),
        (lambda d: (d / "bert_config.json").write_text("{}"), "cannot be split into 12 heads"),
        (
            lambda d: (d / "tokenizer_config.json").write_text("x"),
            "tokenizer_config.json cannot be",
        ),
        (
            lambda d: (d / "tokenizer_config.json").write_text('{"do_lower_case": "false"}'),
            "do_lower_case='false'; allowed are true",
        ),
        (
            lambda d: (d / "bert_config.json").write_text('{"hidden_act": "relu"}'),
            "hidden_act='relu'; only 'gelu'",
        ),
    ],
)
def test_a_broken_release_is_told(make_google_dir, break_it, message):
    directory = make_google_dir()
    break_it(directory)
    with pytest.raises(UserError, match=message) as error:
        load_encoder(str(directory))
    assert str(error.value).startswith(f"--encoder={directory}: ")


def test_a_prefix_without_the_other_files(make_google_dir):
    directory = make_google_dir()
    (directory / "bert_config.json").unlink()
    with pytest.raises(UserError, match=r"bert_config\.json is missing\. Copy it"):
        load_encoder(str(directory / "bert_model.ckpt"))
    with pytest.raises(UserError, match=r"no bert_config\.json, and no config"):
        load_encoder(str(directory))
    with pytest.raises(UserError, match="no such directory"):
        load_encoder(str(directory / "bert_model"))


def test_a_prefix_on_a_remote_file_system(make_google_dir):
    """In a process of its own, with whose end the file system in memory is gone."""
    program = (
        "import sys, tensorflow as tf\n"
        "from pathlib import Path\n"
        "from tf_finetune import load_encoder\n"
        "tf.io.gfile.makedirs('ram://m/bert')\n"
        "for path in Path(sys.argv[1]).iterdir():\n"
        "    with tf.io.gfile.GFile(f'ram://m/bert/{path.name}', 'wb') as file:\n"
        "        file.write(path.read_bytes())\n"
        "for handle in ('ram://m/bert', 'ram://m/bert/bert_model.ckpt'):\n"
        "    print(load_encoder(handle).hidden_size)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(make_google_dir())], capture_output=True, text=True
    )
    assert done.stdout == "16\n16\n", done.stderr
