"""The families of TF Hub's text encoders: which are lifted, and which stay SavedModels.

Each is a small SavedModel, written with TF Models' own networks and, where it can, its exporter.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text as tf_text
import tf_keras
from official.legacy.bert.configs import BertConfig
from official.modeling.tf_utils import get_activation
from official.nlp.configs import encoders as configs
from official.nlp.modeling import layers, networks
from official.nlp.tools import export_tfhub_lib

from tests.thorough import mostly
from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.formats.hub_writer import save_hub_encoder
from tf_finetune.text.hub import HubPreprocessor

VOCABULARY, POSITIONS, WIDTH, INNER, HEADS, LAYERS = 130, 64, 16, 32, 2, 3
FIRST = ["The movie is not good.", "a very, very boring plot", "", "good film!"]
SECOND = ["great", "the acting was bad, and so was everything else in this film", "not", ""]
ALBERT = configs.AlbertEncoderConfig(
    vocab_size=VOCABULARY,
    embedding_width=8,
    hidden_size=WIDTH,
    num_layers=LAYERS,
    num_attention_heads=HEADS,
    intermediate_size=INNER,
    max_position_embeddings=POSITIONS,
)
MOBILE_BERT = configs.MobileBertEncoderConfig(
    word_vocab_size=VOCABULARY,
    word_embed_size=8,
    hidden_size=WIDTH,
    num_blocks=2,
    num_attention_heads=HEADS,
    intermediate_size=INNER,
    max_sequence_length=POSITIONS,
    intra_bottleneck_size=8,
    num_feedforward_networks=2,
    normalization_type="no_norm",
)


def randomize(model: tf_keras.Model) -> None:
    """Gives every variable, biases and norms too, values of a trained network's size."""
    random = np.random.default_rng(0)
    for variable in model.variables:
        scale = 0.05 if "embedding" in variable.name else 0.2
        noise = random.normal(0, scale, variable.shape).astype("float32")
        variable.assign(noise + ("gamma" in variable.name))


def with_exporter(directory: Path, vocabulary: Path, **config: Any) -> None:
    """Writes a random network with TF Models' exporter; `config` as it takes it."""
    if "bert_config" in config:
        network = export_tfhub_lib.get_bert_encoder(config["bert_config"])
    else:
        network = configs.build_encoder(config["encoder_config"])
    randomize(network)
    checkpoint = tf.train.Checkpoint(model=network, encoder=network)
    export_tfhub_lib.export_model(
        str(directory),
        model_checkpoint_path=checkpoint.save(str(directory.parent / "weights")),
        with_mlm=False,
        vocab_file=str(vocabulary),
        do_lower_case=True,
        **config,
    )


def electra(directory: Path, vocabulary: Path) -> None:
    """electra_small: embeddings narrower than the layers."""
    config = BertConfig(
        vocab_size=VOCABULARY,
        embedding_size=8,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=INNER,
        max_position_embeddings=POSITIONS,
        type_vocab_size=2,
    )
    with_exporter(directory, vocabulary, bert_config=config)


def albert(directory: Path, vocabulary: Path) -> None:
    """albert_en_base: one layer, applied several times."""
    config = configs.EncoderConfig(type="albert", albert=ALBERT)
    with_exporter(directory, vocabulary, encoder_config=config)


def mobile_bert(directory: Path, vocabulary: Path) -> None:
    """mobilebert_en_uncased: bottlenecks, several feed-forward networks, no norms."""
    config = configs.EncoderConfig(type="mobilebert", mobilebert=MOBILE_BERT)
    with_exporter(directory, vocabulary, encoder_config=config)


def port(directory: Path, num_types: int, epsilon: float, has_pooler: bool) -> None:
    """A port of jeongukjae's: layers of TF Models, the exact GELU, no vocabulary of its own."""
    inputs = {
        name: tf_keras.Input([None], dtype=tf.int32, name=name)
        for name in ("input_word_ids", "input_mask", "input_type_ids")[: 3 if num_types else 2]
    }
    x = words = layers.OnDeviceEmbedding(VOCABULARY, WIDTH, name="word_embeddings")(
        inputs["input_word_ids"]
    )
    x += layers.PositionEmbedding(max_length=POSITIONS, name="position_embedding")(words)
    if num_types:
        types = layers.OnDeviceEmbedding(num_types, WIDTH, use_one_hot=True, name="type_embeddings")
        x += types(inputs["input_type_ids"])
    x = tf_keras.layers.LayerNormalization(epsilon=epsilon, name="embeddings/layer_norm")(x)
    x = tf_keras.layers.Dropout(0.1)(x)
    mask = layers.SelfAttentionMask()(x, inputs["input_mask"])
    for index in range(LAYERS):
        layer = layers.TransformerEncoderBlock(
            HEADS,
            INNER,
            lambda x: tf.nn.gelu(x, approximate=False),
            norm_epsilon=epsilon,
            output_dropout=0.1,
            attention_dropout=0.1,
            name=f"transformer/layer_{index}",
        )
        x = layer([x, mask])
    pooled = x[:, 0]
    if has_pooler:
        pooled = tf_keras.layers.Dense(WIDTH, "tanh", name="pooler_transform")(pooled)
    model = tf_keras.Model(inputs, {"sequence_output": x, "pooled_output": pooled})
    randomize(model)
    model.save(str(directory), save_format="tf")


def roberta(directory: Path, vocabulary: Path) -> None:
    """roberta_en_cased, xlm_roberta_multi_cased: one type, positions from the first."""
    port(directory, num_types=1, epsilon=1e-5, has_pooler=True)


def distilbert(directory: Path, vocabulary: Path) -> None:
    """distilbert_en_uncased: no types, no pooler."""
    port(directory, num_types=0, epsilon=1e-12, has_pooler=False)


def talking_heads(directory: Path, vocabulary: Path) -> None:
    """talkheads_ggelu_bert_en_base: attention across heads, gated feed-forward networks."""
    initializer = tf_keras.initializers.TruncatedNormal(stddev=0.02)
    network = networks.EncoderScaffold(
        pooled_output_dim=WIDTH,
        embedding_cfg={
            "vocab_size": VOCABULARY,
            "type_vocab_size": 2,
            "hidden_size": WIDTH,
            "max_seq_length": POSITIONS,
            "initializer": initializer,
            "dropout_rate": 0.1,
        },
        num_hidden_instances=2,
        hidden_cls=layers.TransformerScaffold,
        hidden_cfg={
            "num_attention_heads": HEADS,
            "intermediate_size": INNER,
            "attention_cls": layers.TalkingHeadsAttention,
            "attention_cfg": {"num_heads": HEADS, "key_dim": WIDTH // HEADS},
            "feedforward_cls": layers.GatedFeedforward,
            "feedforward_cfg": {"inner_dim": INNER, "inner_activation": get_activation("gelu")},
        },
        dict_outputs=True,
    )
    randomize(network)
    inputs = {tensor.name: tensor for tensor in network.inputs}
    model = tf_keras.Model(inputs, network(inputs))
    model.vocab_file = tf.saved_model.Asset(str(vocabulary))
    model.do_lower_case = tf.Variable(True, trainable=False)
    model.save(str(directory), save_format="tf")


class SentenceEncoder(tf.Module):
    """Strings to the mean of their words' and word pairs' hashed embeddings, and two layers."""

    def __init__(self) -> None:
        super().__init__()
        random = np.random.default_rng(0)
        self.embeddings = tf.Variable(random.normal(size=[50, 8]).astype("float32"), name="Emb")
        self.kernel = tf.Variable(random.normal(size=[8, WIDTH]).astype("float32"), name="Dense")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        words = tf_text.WhitespaceTokenizer().tokenize(texts)
        pairs = tf_text.ngrams(words, 2, reduction_type=tf_text.Reduction.STRING_JOIN)
        buckets = tf.strings.to_hash_bucket_fast(tf.concat([words, pairs], axis=1), 50)
        rows = tf.ragged.map_flat_values(lambda ids: tf.gather(self.embeddings, ids), buckets)
        sums = (
            tf.reduce_sum(rows, axis=1)
            / tf.sqrt(tf.maximum(1.0, tf.cast(buckets.row_lengths(), tf.float32)))[:, None]
        )
        return tf.nn.l2_normalize(tf.tanh(sums @ self.kernel), axis=-1)


def sentences(directory: Path, vocabulary: Path) -> None:
    """universal-sentence-encoder: strings in, a vector out."""
    tf.saved_model.save(SentenceEncoder(), str(directory))


class Preprocessor(tf.Module):
    """TF Hub's text API for bytes as tokens, with the row formats of jeongukjae's ports."""

    def __init__(self, separators: int, has_types: bool) -> None:
        super().__init__()
        self._separators, self._has_types = separators, has_types

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        return tf.cast(tf.strings.unicode_decode(texts, "UTF-8") % 100 + 10, tf.int32)

    @tf.function
    def bert_pack_inputs(self, segments: list[Any], seq_length: tf.Tensor) -> dict[str, Any]:
        first = segments[0]
        count = first.nrows()
        end = tf.fill([count, 1], 2)
        parts = [tf.fill([count, 1], 0), first]
        for segment in segments[1:]:
            parts += [end] * self._separators + [segment]
        row = tf.concat([*parts, end], axis=1)
        shape = tf.stack([-1, seq_length])
        features = {
            "input_word_ids": row.to_tensor(1, shape=shape),
            "input_mask": tf.ones_like(row).to_tensor(0, shape=shape),
        }
        if self._has_types:
            features["input_type_ids"] = tf.zeros_like(features["input_word_ids"])
        return features

    def save(self, directory: Path) -> str:
        spec = tf.RaggedTensorSpec([None, None], tf.int32)
        for segments in ([spec], [spec] * 2):
            self.bert_pack_inputs.get_concrete_function(segments, tf.TensorSpec([], tf.int32))
        tf.saved_model.save(self, str(directory))
        return str(directory)


LIFTED = {"electra": electra, "albert": albert, "roberta": roberta, "distilbert": distilbert}
WRAPPED = {"talking_heads": talking_heads, "mobile_bert": mobile_bert, "sentences": sentences}


@pytest.fixture(scope="module")
def saved(
    tiny_bert_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[str, dict[str, str]]]:
    """By family, the SavedModel and the other arguments of `load_encoder`; each made once."""
    root, made = tmp_path_factory.mktemp("families"), {}

    def make(family: str) -> tuple[str, dict[str, str]]:
        if family not in made:
            directory, options = root / family / "encoder", {}
            directory.parent.mkdir(exist_ok=True)
            (LIFTED | WRAPPED)[family](directory, tiny_bert_dir / "vocab.txt")
            if family in ("roberta", "distilbert"):
                is_roberta = family == "roberta"
                preprocessor = Preprocessor(1 + is_roberta, has_types=is_roberta)
                options["preprocessor"] = preprocessor.save(root / family / "preprocessor")
            made[family] = str(directory), options
        return made[family]

    return make


def features(encoder: Encoder, pairs: bool) -> dict[str, tf.Tensor]:
    segments = [tf.constant(FIRST), tf.constant(SECOND)][: 1 + pairs]
    return encoder.preprocessor(segments, POSITIONS)


def classifier(encoder: Encoder, inputs: dict[str, tf.Tensor]) -> keras.Model:
    symbolic = {
        name: keras.Input([None] * (value.shape.rank - 1), dtype=value.dtype.name, name=name)
        for name, value in inputs.items()
    }
    return keras.Model(symbolic, keras.layers.Dense(2)(encoder.network(symbolic)["pooled_output"]))


def train_one_step(model: keras.Model, inputs: dict[str, tf.Tensor]) -> list[str]:
    """Returns the names of the trainable variables that the step has not changed."""
    before = [variable.numpy() for variable in model.trainable_variables]
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(tf.data.Dataset.from_tensors((inputs, tf.constant([0, 1, 0, 1]))), verbose=0)
    after = zip(before, model.trainable_variables, strict=True)
    return [variable.path for old, variable in after if np.array_equal(old, variable.numpy())]


@pytest.mark.parametrize("family", mostly("electra", others=["albert", "roberta", "distilbert"]))
def test_a_family_that_is_lifted(saved, family):
    path, options = saved(family)
    encoder = load_encoder(path, **options)
    network = encoder.network
    assert encoder.mode == "native"
    assert (encoder.hidden_size, encoder.max_seq_length) == (WIDTH, POSITIONS)
    assert (network.num_layers, len(network.layers)) == (LAYERS, 1 if family == "albert" else 3)
    assert network.approximate_gelu == (family in ("electra", "albert"))
    assert network.epsilon == (1e-5 if family == "roberta" else 1e-12)
    assert network.num_types == {"roberta": 1, "distilbert": 0}.get(family, 2)
    assert encoder.has_pooler == (encoder.pooling == "pooled") == (family != "distilbert")

    called = tf.saved_model.load(path)
    for pairs in (False, True):
        inputs = features(encoder, pairs)
        mask = inputs["input_mask"].numpy().astype(bool)
        assert not mask.all()
        its = {name: inputs[name] for name in inputs if network.num_types or "type" not in name}
        expected, actual = called(its, training=False), network(inputs)
        for name, rows in {"pooled_output": ..., "sequence_output": mask}.items():
            np.testing.assert_allclose(actual[name][rows], expected[name][rows], atol=1e-5)

    assert not train_one_step(classifier(encoder, inputs), inputs)


@pytest.mark.parametrize("family", mostly("talking_heads", "sentences", others=["mobile_bert"]))
def test_a_family_that_stays_a_saved_model(saved, family, caplog, tmp_path):
    path, options = saved(family)
    with caplog.at_level(logging.WARNING):
        encoder = load_encoder(path, **options)
    reason = "raw strings" if family == "sentences" else r"variable .* is none of a BERT's"
    assert encoder.mode == "saved_model"
    assert f"{path} stays a SavedModel, in float32 and whole" in caplog.text
    with pytest.raises(UserError, match=f"{reason}.*--encoder_mode=saved_model"):
        load_encoder(path, mode="native", **options)

    inputs = features(encoder, pairs=False)
    called = tf.saved_model.load(path)
    expected = called(inputs["text_a"] if family == "sentences" else inputs)
    pooled = expected if family == "sentences" else expected["pooled_output"]
    np.testing.assert_allclose(encoder.network(inputs)["pooled_output"], pooled, atol=1e-6)

    model = classifier(encoder, inputs)
    # A key's bias adds the same to all scores of a query: its gradient is 0, or rounding.
    assert all("key_bias" in name for name in train_one_step(model, inputs))

    module = tf.Module()
    module.model = model
    specs = {name: tf.TensorSpec([None] * v.shape.rank, v.dtype) for name, v in inputs.items()}
    module.run = tf.function(model, input_signature=[specs])
    tf.saved_model.save(module, str(tmp_path / "exported"))
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(exported.run(inputs), model(inputs), atol=1e-5)


@pytest.mark.thorough
def test_a_shared_layer_of_a_saved_model_that_does_not_say_how_often(tmp_path):
    """As the ALBERTs of TF Hub's first version, which return a list."""
    config = configs.EncoderConfig(type="albert", albert=ALBERT.replace(num_layers=12))
    network = configs.build_encoder(config)
    randomize(network)
    inputs = {tensor.name: tensor for tensor in network.inputs}
    outputs = network(inputs)
    model = tf_keras.Model(inputs, [outputs["pooled_output"], outputs["sequence_output"]])
    model.save(str(tmp_path / "albert"), save_format="tf")
    preprocessor = Preprocessor(1, has_types=True).save(tmp_path / "preprocessor")
    encoder = load_encoder(str(tmp_path / "albert"), preprocessor=preprocessor, mode="native")
    assert (encoder.network.num_layers, encoder.network.share_layers) == (12, True)


@pytest.mark.thorough
def test_a_projection_is_written_back(saved, tmp_path):
    path, _ = saved("electra")
    encoder = load_encoder(path)
    save_hub_encoder(encoder, tmp_path / "hub")
    again = load_encoder(str(tmp_path / "hub" / "encoder"), mode="native")
    inputs = features(encoder, pairs=True)
    for name, value in encoder.network(inputs).items():
        np.testing.assert_allclose(again.network(inputs)[name], value, atol=1e-6)


def test_what_the_exporter_cannot_write_is_refused(saved, tmp_path):
    path, _ = saved("albert")
    with pytest.raises(UserError, match="layers that share their weights, which TF Models'"):
        save_hub_encoder(load_encoder(path), tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(("separators", "has_types"), [(2, True), (1, True), (1, False)])
def test_a_preprocessor_packs_as_its_saved_model_does(tmp_path, separators, has_types):
    """Those of RoBERTa, KLUE's RoBERTa and DistilBERT."""
    directory = Preprocessor(separators, has_types).save(tmp_path / "preprocessor")
    ours, own = HubPreprocessor(directory), tf.saved_model.load(directory)
    for texts in ([FIRST], [FIRST, SECOND]):
        segments = [tf.constant(column) for column in texts]
        packed = ours.pad(ours.pack(ours.tokenize(segments), 128), 128)
        expected = own.bert_pack_inputs([own.tokenize(s) for s in segments], seq_length=128)
        for name, value in expected.items():
            np.testing.assert_array_equal(packed[name], value)
        assert not packed["input_type_ids"].numpy().any()
