import gc
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.thorough import mostly
from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.formats.hub_writer import save_hub_encoder
from tf_finetune.models.bert_weights import canonical_name

FIRST = ["The movie is not good.", "a very, very boring plot", "", "naïve film!"]
SECOND = ["great", "the acting was bad, and so was everything else in this film", "not", ""]
TOKENS = ("input_word_ids", "input_mask", "input_type_ids")


def features(encoder: Encoder, pairs: bool) -> dict[str, tf.Tensor]:
    segments = [tf.constant(FIRST), tf.constant(SECOND)][: 2 if pairs else 1]
    return encoder.preprocessor(segments, 64)


def google_name(name: str) -> str:
    return f"bert/{name}"


def tf_hub_2019_name(name: str) -> str:
    return f"bert_model/{tf_hub_2020_name(name).removeprefix('keras_bert/')}".replace(
        "/transformer/", "/encoder/"
    ).replace("embeddings/layer_norm", "embedding_postprocessor/layer_norm")


def tf_hub_2020_name(name: str) -> str:
    for pattern, new in [
        (r"^embeddings/token_type_embeddings$", "type_embeddings/embeddings"),
        (r"^embeddings/position_embeddings$", "position_embedding/embeddings"),
        (r"^embeddings/word_embeddings$", "word_embeddings/embeddings"),
        (r"^encoder/", "transformer/"),
        (r"attention/self/", "self_attention/"),
        (r"attention/output/dense", "self_attention_output"),
        (r"attention/output/LayerNorm", "self_attention_layer_norm"),
        (r"^pooler/dense", "pooler_transform"),
        (r"intermediate/dense", "intermediate"),
        (r"/output/dense", "/output"),
        (r"/output/LayerNorm", "/output_layer_norm"),
        (r"^embeddings/LayerNorm", "embeddings/layer_norm"),
    ]:
        name = re.sub(pattern, new, name)
    return f"keras_bert/{name}"


class Bert(tf.Module):
    """The reference BERT as a SavedModel, with whatever names and shapes of variables."""

    def __init__(self, forward, weights, name_of, vocabulary_file, *, heads=2, rank_3=True, **how):
        super().__init__()
        self._weights = {}
        for key, value in weights.items():
            hidden = value.shape[-1]
            if rank_3 and re.search(r"attention/self/\w+/kernel", key):
                value = value.reshape(hidden, heads, hidden // heads)
            elif rank_3 and key.endswith("attention/output/dense/kernel"):
                value = value.reshape(heads, hidden // heads, hidden)
            self._weights[key] = tf.Variable(value, name=name_of(key))
        self._forward, self._heads, self._how = forward, heads, how
        self.vocab_file = tf.saved_model.Asset(str(vocabulary_file))
        self.do_lower_case = tf.Variable(True, trainable=False)

    @tf.function
    def __call__(self, inputs, training=False):
        inputs = inputs if isinstance(inputs, dict) else dict(zip(TOKENS, inputs, strict=True))
        pooled, sequence = self._forward(self._weights, inputs, self._heads, **self._how)
        if self.as_list:
            return [pooled, sequence]
        return {"pooled_output": pooled, "sequence_output": sequence, "default": pooled}

    def save(self, directory: Path, as_list: bool = False) -> str:
        self.as_list = as_list
        specs = [tf.TensorSpec([None, None], tf.int32, name) for name in TOKENS]
        inputs = specs if as_list else dict(zip(TOKENS, specs, strict=True))
        for training in (True, False):
            self.__call__.get_concrete_function(inputs, training=training)
        tf.saved_model.save(self, str(directory))
        return str(directory)


@pytest.fixture
def make_bert(tiny_bert_dir, read_bert, bert_forward):
    def make(name_of=google_name, edit=None, **options) -> Bert:
        weights = read_bert(tiny_bert_dir)
        if edit:
            edit(weights)
        return Bert(bert_forward, weights, name_of, tiny_bert_dir / "vocab.txt", **options)

    return make


def assert_same_outputs(encoder: Encoder, saved_model: str, tolerance: float = 1e-5) -> None:
    """Compares with the SavedModel itself, on padded sentences and on pairs."""
    called = tf.saved_model.load(saved_model)
    for pairs in (False, True):
        inputs = features(encoder, pairs)
        mask = inputs["input_mask"].numpy().astype(bool)
        assert not mask.all()
        expected = called(inputs, training=False)
        actual = encoder.network(inputs)
        np.testing.assert_allclose(
            actual["pooled_output"], expected["pooled_output"], atol=tolerance
        )
        np.testing.assert_allclose(
            actual["sequence_output"][mask], expected["sequence_output"][mask], atol=tolerance
        )


def test_lifted_encoder_equals_the_exported_saved_model(tiny_hub_dir):
    encoder = load_encoder(str(tiny_hub_dir / "encoder"))
    assert encoder.mode == "native"
    assert (encoder.hidden_size, encoder.max_seq_length, len(encoder.blocks)) == (16, 64, 3)
    assert_same_outputs(encoder, str(tiny_hub_dir / "encoder"))


def test_lifted_encoder_equals_the_hugging_face_directory(tiny_hub_dir, tiny_bert_dir):
    lifted = load_encoder(str(tiny_hub_dir / "encoder"))
    original = load_encoder(str(tiny_bert_dir))
    inputs = features(original, pairs=True)
    for name, value in features(lifted, pairs=True).items():
        np.testing.assert_array_equal(value, inputs[name])
    for name, value in original.network(inputs).items():
        np.testing.assert_allclose(lifted.network(inputs)[name], value, atol=1e-6)


@pytest.mark.slow
def test_functions_of_a_lifted_saved_model_are_freed(tiny_hub_dir):
    def functions() -> int:
        return sum(type(value).__name__ == "FuncGraph" for value in gc.get_objects())

    gc.collect()
    before = functions()
    gc.disable()  # Else a chance collection could do what is to be shown.
    try:
        encoder = load_encoder(str(tiny_hub_dir / "encoder"), mode="native")
        assert functions() <= before
    finally:
        gc.enable()
    assert encoder.mode == "native"


@pytest.mark.thorough
def test_lifted_minilm_equals_its_saved_model(minilm_dir, tmp_path):
    from tf_finetune.formats.convert import export_hub_encoder

    export_hub_encoder(str(minilm_dir), tmp_path / "hub")
    encoder = load_encoder(str(tmp_path / "hub" / "encoder"), mode="native")
    assert_same_outputs(encoder, str(tmp_path / "hub" / "encoder"))


@pytest.mark.parametrize(
    ("name_of", "rank_3", "exact_gelu"),
    mostly(
        *((google_name, False, True), (tf_hub_2019_name, True, False)),
        others=[(tf_hub_2020_name, True, True)],
    ),
)
def test_lifts_other_names_shapes_and_gelus(make_bert, tmp_path, name_of, rank_3, exact_gelu):
    bert = make_bert(name_of, rank_3=rank_3, exact_gelu=exact_gelu)
    encoder = load_encoder(bert.save(tmp_path / "bert"), mode="native")
    assert_same_outputs(encoder, str(tmp_path / "bert"))


@pytest.mark.thorough
def test_exact_gelu_survives_saving_and_writing_back(make_bert, tmp_path):
    path = make_bert(exact_gelu=True).save(tmp_path / "bert")
    encoder = load_encoder(path, mode="native")
    save_hub_encoder(encoder, tmp_path / "hub")
    assert_same_outputs(encoder, str(tmp_path / "hub" / "encoder"))
    inputs = features(encoder, pairs=True)
    model = make_model(encoder, inputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(inputs), model(inputs), atol=1e-6)


def test_finds_the_number_of_heads_where_no_shape_tells(make_bert, tmp_path):
    bert = make_bert(rank_3=False, heads=8)
    encoder = load_encoder(bert.save(tmp_path / "bert"), mode="native")
    assert_same_outputs(encoder, str(tmp_path / "bert"))


def test_lifts_encoders_of_lists(make_bert, tmp_path):
    path = make_bert(tf_hub_2019_name).save(tmp_path / "bert", as_list=True)
    encoders = [load_encoder(path, mode=mode) for mode in ("native", "saved_model")]
    inputs = features(encoders[0], pairs=True)
    expected = tf.saved_model.load(path)([inputs[name] for name in TOKENS], training=False)
    for encoder in encoders:
        outputs = encoder.network(inputs)
        np.testing.assert_allclose(outputs["pooled_output"], expected[0], atol=1e-5)
        np.testing.assert_allclose(outputs["sequence_output"], expected[1], atol=1e-5)


def test_canonical_name_of_other_variables_is_none():
    for name in ("dense/kernel:0", "transformer/gate/kernel", "cls/predictions/output_bias"):
        assert canonical_name(name) is None


def test_lifted_dropout_and_dtype_can_be_chosen(tiny_hub_dir):
    keras.config.set_dtype_policy("mixed_bfloat16")
    encoder = load_encoder(str(tiny_hub_dir / "encoder"), dropout=0.0)
    inputs = features(encoder, pairs=False)
    once, again = (encoder.network(inputs, training=True)["pooled_output"] for _ in range(2))
    assert once.dtype == tf.bfloat16
    np.testing.assert_array_equal(once.numpy(), again.numpy())
    # Training rounds to bfloat16 in fewer places.
    expected = encoder.network(inputs, training=False)["pooled_output"]
    np.testing.assert_allclose(tf.cast(once, tf.float32), tf.cast(expected, tf.float32), atol=0.05)


def widen_bias(weights):
    weights["encoder/layer_1/output/dense/bias"] = np.zeros(1, np.float32)


def adapter_name(name):
    return google_name(name).replace("layer_1/output/dense", "layer_1/adapter")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edit": widen_bias}, r"bert/encoder/layer_1/output/dense/bias:0 has shape \(1,\) where"),
        ({"name_of": adapter_name}, r"bert/encoder/layer_1/adapter/\w+:0 is none of a BERT's"),
        ({"epsilon": 0.5}, "its outputs differ by"),
    ],
)
def test_what_cannot_be_lifted_says_why_and_is_wrapped(
    make_bert, tmp_path, caplog, options, message
):
    path = make_bert(**options).save(tmp_path / "bert")
    with pytest.raises(UserError, match=f"{message}.*Use --encoder_mode=saved_model"):
        load_encoder(path, mode="native")
    encoder = load_encoder(path)
    assert encoder.mode == "saved_model"
    assert re.search(message, caplog.text)
    assert_same_outputs(encoder, path, tolerance=0)


class BagOfTokens(tf.Module):
    """An encoder that is no BERT: embeddings, dropout and their sum."""

    def __init__(self, vocabulary_file, size):
        super().__init__()
        self.embeddings = tf.Variable(tf.random.normal([size, 6]), name="bag/embeddings")
        self.scale = tf.Variable(tf.ones([6]), name="bag/scale")
        self.steps = tf.Variable(0.0, trainable=False, name="bag/steps")
        if vocabulary_file:
            self.vocab_file = tf.saved_model.Asset(str(vocabulary_file))
            self.do_lower_case = tf.Variable(True, trainable=False)

    @tf.function
    def __call__(self, inputs, training=False):
        sequence = tf.gather(self.embeddings, inputs["input_word_ids"]) * self.scale
        sequence *= tf.cast(inputs["input_mask"], tf.float32)[..., None]
        if training:
            sequence = tf.nn.dropout(sequence, 0.5)
        sequence += self.steps
        return {"default": tf.tanh(tf.reduce_sum(sequence, 1)), "sequence_output": sequence}

    def save(self, directory):
        inputs = {name: tf.TensorSpec([None, None], tf.int32, name) for name in TOKENS}
        for training in (True, False):
            self.__call__.get_concrete_function(inputs, training=training)
        tf.saved_model.save(self, str(directory))
        return str(directory)


class SentenceEncoder(tf.Module):
    """An encoder of raw strings, in the style of the Universal Sentence Encoder."""

    def __init__(self):
        super().__init__()
        words = tf.constant(["the", "movie", "is", "not", "good", "film"])
        self._table = tf.lookup.StaticVocabularyTable(
            tf.lookup.KeyValueTensorInitializer(words, tf.range(6, dtype=tf.int64)), 4
        )
        self.embeddings = tf.Variable(tf.random.normal([10, 6]), name="embeddings")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts):
        ids = self._table.lookup(tf.strings.split(texts))
        one_hot = tf.reduce_sum(tf.one_hot(ids.to_tensor(-1), 10), 1)
        return tf.tanh(one_hot @ self.embeddings)


@pytest.fixture
def bag_path(tiny_bert_dir, tmp_path):
    return BagOfTokens(tiny_bert_dir / "vocab.txt", 200).save(tmp_path / "bag")


@pytest.fixture
def sentence_path(tmp_path):
    tf.saved_model.save(SentenceEncoder(), str(tmp_path / "sentences"))
    return str(tmp_path / "sentences")


@pytest.fixture(params=["bert", "bag", "sentences"])
def wrapped(request, tiny_hub_dir, bag_path, sentence_path):
    """Each kind of encoder that can be wrapped."""
    paths = {"bert": str(tiny_hub_dir / "encoder"), "bag": bag_path, "sentences": sentence_path}
    return load_encoder(paths[request.param], mode="saved_model")


def make_model(encoder: Encoder, inputs) -> keras.Model:
    symbolic = {
        name: keras.Input(value.shape[1:].rank * (None,), dtype=value.dtype.name, name=name)
        for name, value in inputs.items()
    }
    return keras.Model(symbolic, keras.layers.Dense(2)(encoder.network(symbolic)["pooled_output"]))


@pytest.mark.parametrize("pairs", mostly(True, others=[False]))
def test_every_trainable_variable_of_a_wrapped_saved_model_trains(wrapped, pairs):
    inputs = features(wrapped, pairs)
    model = make_model(wrapped, inputs)
    own = tf.saved_model.load(wrapped.network.saved.directory)
    names = {variable.name for variable in getattr(own, "trainable_variables", ())}
    if names:
        names = {name.removesuffix(":0").replace("/", "_") for name in names}
        assert {variable.name for variable in wrapped.network.trainable_variables} == names
    assert wrapped.network.trainable_variables
    before = [variable.numpy() for variable in model.trainable_variables]
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(tf.data.Dataset.from_tensors((inputs, tf.constant([0, 1, 0, 1]))), verbose=0)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        # A key's bias adds the same to all scores of a query: its gradient is 0.
        assert np.any(old != variable.numpy()) or "key_bias" in variable.path, variable.path


def test_frozen_and_non_trainable_variables_stay(bag_path):
    network = load_encoder(bag_path).network
    assert [v.name for v in network.trainable_variables] == ["bag_embeddings", "bag_scale"]
    assert [v.name for v in network.non_trainable_variables] == ["bag_steps"]
    network.trainable = False
    assert not network.trainable_variables


def test_the_activation_of_a_saved_model_is_its_own(bag_path):
    with pytest.raises(UserError, match="--hidden_act=gelu: the activation of"):
        load_encoder(bag_path, hidden_act="gelu")


@pytest.mark.parametrize("which", ["bert", "bag"])
def test_training_reaches_the_dropout_of_a_wrapped_saved_model(tiny_hub_dir, bag_path, which):
    path = str(tiny_hub_dir / "encoder") if which == "bert" else bag_path
    encoder = load_encoder(path, mode="saved_model")
    inputs = features(encoder, pairs=True)
    model = make_model(encoder, inputs)

    @tf.function  # as a training does: once traced, its random numbers go on from call to call
    def run(inputs, training):
        return model(inputs, training=training)

    assert np.any(run(inputs, training=True) != run(inputs, training=True))
    assert np.all(run(inputs, training=False) == run(inputs, training=False))


@pytest.mark.parametrize("pairs", mostly(True, others=[False]))
def test_wrapped_saved_model_is_saved_and_exported(wrapped, pairs, tmp_path):
    inputs = features(wrapped, pairs)
    model = make_model(wrapped, inputs)
    for variable in model.trainable_variables:
        variable.assign(variable + 0.1)
    expected = model(inputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(inputs), expected, atol=1e-5)

    module = tf.Module()
    module.model = model
    specs = {name: tf.TensorSpec([None] * v.shape.rank, v.dtype) for name, v in inputs.items()}
    module.run = tf.function(model, input_signature=[specs])
    tf.saved_model.save(module, str(tmp_path / "exported"))
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(exported.run(inputs), expected, atol=1e-5)


def test_wrapped_saved_model_stays_float32(bag_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    encoder = load_encoder(bag_path)
    assert encoder.network(features(encoder, True))["pooled_output"].dtype == tf.float32


def test_two_strings_become_both_vectors_their_difference_and_product(sentence_path):
    encoder = load_encoder(sentence_path)
    assert (encoder.hidden_size, encoder.mode, encoder.max_seq_length) == (6, "saved_model", None)
    called = tf.saved_model.load(sentence_path)
    u, v = called(tf.constant(FIRST)).numpy(), called(tf.constant(SECOND)).numpy()
    pair = encoder.network({"text_a": tf.constant(FIRST), "text_b": tf.constant(SECOND)})
    expected = np.concatenate([u, v, np.abs(u - v), u * v], axis=1)
    np.testing.assert_allclose(pair["pooled_output"], expected, atol=1e-6)
    single = encoder.network({"text_a": tf.constant(FIRST)})
    np.testing.assert_allclose(single["pooled_output"], u, atol=1e-6)


def test_no_vocabulary_needs_a_preprocessor(tmp_path):
    path = BagOfTokens(None, 200).save(tmp_path / "bag")
    with pytest.raises(UserError, match=r"no vocabulary .*--preprocessor"):
        load_encoder(path)


def test_preprocessor_of_a_saved_model_without_vocabulary(tmp_path, tiny_hub_dir):
    path = BagOfTokens(None, 200).save(tmp_path / "bag")
    encoder = load_encoder(path, preprocessor=str(tiny_hub_dir / "preprocessor"))
    expected = features(load_encoder(str(tiny_hub_dir / "encoder")), pairs=True)
    actual = features(encoder, pairs=True)
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value)
    assert encoder.network(actual)["pooled_output"].shape == (4, 6)


def test_dropout_of_a_saved_model_cannot_be_chosen(bag_path):
    with pytest.raises(UserError, match=r"--encoder_dropout=0\.2: a SavedModel's dropout is fixed"):
        load_encoder(bag_path, dropout=0.2)


def save_function(directory: Path, *specs, output=None) -> str:
    module = tf.Module()
    module.__call__ = tf.function(output, input_signature=specs)
    tf.saved_model.save(module, str(directory))
    return str(directory)


def test_wrong_inputs_and_outputs_are_described(tmp_path):
    floats = tf.TensorSpec([None, 3], tf.float32)
    path = save_function(tmp_path / "image", floats, output=lambda x: x)
    with pytest.raises(UserError, match=r"takes .*float32.*an encoder takes a dict of input_word"):
        load_encoder(path)
    strings = tf.TensorSpec([None], tf.string)
    path = save_function(tmp_path / "length", strings, output=tf.strings.length)
    with pytest.raises(UserError, match=r"returns .*needed is a dict with 'pooled_output'"):
        load_encoder(path)
    path = save_function(
        tmp_path / "fails", strings, output=lambda x: tf.strings.to_number(x)[:, None]
    )
    with pytest.raises(UserError, match="fails on"):
        load_encoder(path)


def test_saved_model_that_cannot_be_called(tmp_path):
    module = tf.Module()
    module.encode = tf.function(lambda x: x, input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, str(tmp_path / "model"), signatures={"encode": module.encode})
    with pytest.raises(UserError, match=r"cannot be called.*signatures \['encode'\]"):
        load_encoder(str(tmp_path / "model"))


def test_models_of_tensorflow_1(tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.string, [None])
        y = tf.compat.v1.get_variable("y", [3]) + tf.cast(tf.strings.length(x)[:, None], tf.float32)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(session, str(tmp_path / "v1"), {"x": x}, {"y": y})
    with pytest.raises(UserError, match=r"SavedModel of TensorFlow 1.*TensorFlow 2 version"):
        load_encoder(str(tmp_path / "v1"))
    (tmp_path / "v1" / "tfhub_module.pb").write_bytes(b"\x08\x03")
    with pytest.raises(UserError, match=r"TF1 Hub format .*TensorFlow 2 version"):
        load_encoder(str(tmp_path / "v1"))


def test_corrupt_saved_model(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"not a protocol buffer")
    with pytest.raises(UserError, match="cannot be read as a SavedModel"):
        load_encoder(str(tmp_path))
