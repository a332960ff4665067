"""Tokenizers of TF Hub and KerasHub against their own packing."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import keras_hub
import numpy as np
import pytest
import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text

from tf_finetune.errors import UserError
from tf_finetune.text.hub import HubPreprocessor, KerasHubPreprocessor
from tf_finetune.text.preprocessor import TextPreprocessor
from tf_finetune.text.wordpiece import BertPreprocessor

FIRST = ["the quick fox", "", "a fox the quick " * 6, "fox a", "the " * 9]
SECOND = ["a fox", "quick", "the fox the fox " * 5, "a " * 20, ""]


@pytest.fixture(scope="module")
def tiny_hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `official.nlp.tools.export_tfhub_lib` writes, with a small vocabulary."""
    from official.nlp.tools import export_tfhub_lib

    directory = tmp_path_factory.mktemp("hub")
    words = ["[UNK]", "[SEP]", "the", "a", "quick", "fox", "##es", "[CLS]", "[PAD]", "[MASK]"]
    (directory / "vocab.txt").write_text("\n".join(words) + "\n")
    export_tfhub_lib.export_preprocessing(
        str(directory / "preprocessor"),
        vocab_file=str(directory / "vocab.txt"),
        do_lower_case=True,
        tokenize_with_offsets=False,
        default_seq_length=16,
    )
    return directory / "preprocessor"


class Serving(tf.Module):
    def __init__(self, preprocessor: TextPreprocessor) -> None:
        super().__init__()
        self.preprocessor = preprocessor

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)] * 2)
    def serve(self, first: tf.Tensor, second: tf.Tensor) -> dict[str, tf.Tensor]:
        return self.preprocessor([first, second], 16)


def assert_works_everywhere(preprocessor: TextPreprocessor, saved: Path) -> None:
    """In `tf.data`, in `tf.function`, and loaded by a program without our packages."""
    eager = preprocessor([tf.constant(FIRST), tf.constant(SECOND)], 16)
    expected = eager["input_word_ids"].numpy().tolist()

    def prepare(*segments: tf.Tensor) -> dict[str, tf.RaggedTensor]:
        return preprocessor.pack(preprocessor.tokenize(segments), 16)

    dataset = tf.data.Dataset.from_tensor_slices((FIRST, SECOND)).batch(2)
    batches = [*dataset.map(prepare, num_parallel_calls=2)]
    packed = {key: tf.concat([batch[key] for batch in batches], axis=0) for key in batches[0]}
    padded = preprocessor.pad(packed)
    for name, tensor in eager.items():
        np.testing.assert_array_equal(padded[name], tensor)

    tf.saved_model.save(Serving(preprocessor), str(saved))
    script = (
        "import sys, tensorflow as tf, tensorflow_text\n"
        f"first, second = {FIRST!r}, {SECOND!r}\n"
        "loaded = tf.saved_model.load(sys.argv[1])\n"
        "features = loaded.serve(tf.constant(first), tf.constant(second))\n"
        "assert not any(name.startswith(('tf_finetune', 'keras_hub')) for name in sys.modules)\n"
        "print(features['input_word_ids'].numpy().tolist())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(saved)],
        cwd=saved.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(expected)


@pytest.mark.parametrize("length", [9, pytest.param(64, marks=pytest.mark.thorough)])
def test_hub_packs_as_the_saved_model_does(tiny_hub: Path, length: int) -> None:
    preprocessor = HubPreprocessor(str(tiny_hub))
    loaded = tf.saved_model.load(str(tiny_hub))
    for texts in ([FIRST], [FIRST, SECOND]):
        segments = [tf.constant(column) for column in texts]
        packed = preprocessor.pack(preprocessor.tokenize(segments), length)
        features = preprocessor.pad(packed, length)
        expected = loaded.bert_pack_inputs(
            [loaded.tokenize(segment) for segment in segments], seq_length=length
        )
        assert features.keys() == expected.keys()
        for name, tensor in expected.items():
            np.testing.assert_array_equal(features[name], tensor)
    assert preprocessor.pad_id == 8


@pytest.mark.slow
def test_hub_works_everywhere(tiny_hub: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(tiny_hub, tmp_path / "preprocessor")
    preprocessor = HubPreprocessor(str(copied))
    assert_works_everywhere(preprocessor, tmp_path / "saved")


class Broken(tf.Module):
    """A preprocessor whose pairs are not of the known format."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        return tf_text.WhitespaceTokenizer().tokenize(text)

    @tf.function
    def bert_pack_inputs(
        self, segments: list[tf.RaggedTensor], seq_length: int
    ) -> dict[str, tf.Tensor]:
        row = tf.concat([*segments, tf.ones([1, 4], tf.int32)], axis=1).to_tensor()
        return dict.fromkeys(("input_word_ids", "input_mask", "input_type_ids"), row)


def test_what_is_no_hub_preprocessor(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing: not a TF2 SavedModel"):
        HubPreprocessor(str(tmp_path / "missing"))
    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    with pytest.raises(UserError, match="no `tokenize`"):
        HubPreprocessor(str(tmp_path / "empty"))
    broken = Broken()
    broken.bert_pack_inputs([tf.ragged.constant([[7]], tf.int32)] * 2, seq_length=7)
    tf.saved_model.save(broken, str(tmp_path / "broken"))
    with pytest.raises(UserError, match=r"7 and 8 into \[7, 8, 1, 1, 1, 1\]"):
        HubPreprocessor(str(tmp_path / "broken"))


@pytest.mark.slow
def test_bert_preprocessor_equals_tf_models_on_real_rows(
    minilm_dir: Path, shared_data: Path, tmp_path: Path
) -> None:
    from official.nlp.tools import export_tfhub_lib

    export_tfhub_lib.export_preprocessing(
        str(tmp_path / "preprocessor"),
        vocab_file=str(minilm_dir / "vocab.txt"),
        do_lower_case=True,
        tokenize_with_offsets=False,
        default_seq_length=128,
    )
    reference = tf.saved_model.load(str(tmp_path / "preprocessor"))
    vocabulary = (minilm_dir / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n")
    ours = BertPreprocessor(vocabulary.split("\n"))

    def differs(text: str) -> bool:
        segment = tf.constant([text])
        expected = reference.tokenize(segment).merge_dims(1, 2).to_list()
        return ours.tokenize([segment])[0].to_list() != expected

    # Hugging Face's tokenizer is on our side in each (test_text.py).
    folded = ["…", "½", "´", "µ", "™", "ß", "ẞ", "ὀδυσσεύς", "ﬁne", "ＡＢＣ"]
    assert all(differs(text) for text in [*folded, "bell\x07s", "ก" * 50])
    same = "café|e\u0301|我爱NLP|😀\u200d😀|\u3000naïve|soft\u00adhyphen|$5 [SEP]|" + "x" * 101
    lines = (shared_data / "mrpc" / "train.tsv").read_text(encoding="utf-8").split("\n")[1:1001]
    pairs = [line.split("\t")[:2] for line in lines if not {*"…½´µ\x12"} & {*line}]
    assert len(pairs) > 990
    pairs += [["", "a"], *([text, text] for text in same.split("|"))]
    segments = [tf.constant(list(column)) for column in zip(*pairs, strict=True)]
    for length in (8, 16, 32, 128):
        for texts in (segments[:1], segments):
            expected = reference.bert_pack_inputs(
                [reference.tokenize(segment) for segment in texts], seq_length=length
            )
            features = ours.pad(ours.pack(ours.tokenize(texts), length), length)
            for name, tensor in expected.items():
                np.testing.assert_array_equal(features[name], tensor)


@pytest.fixture(scope="module")
def roberta() -> keras_hub.tokenizers.Tokenizer:
    merges = ["Ġ q", "u i", "c k", "ui ck", "Ġq uick", "Ġ f", "o x", "Ġf ox"]
    pieces = ["<s>", "<pad>", "</s>", "<mask>", *"Ġabcdefghijklmnopqrstuvwxyz<>/"]
    pieces += [merge.replace(" ", "") for merge in merges]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return keras_hub.tokenizers.RobertaTokenizer(vocabulary=vocabulary, merges=merges)


@pytest.fixture(scope="module")
def albert() -> keras_hub.tokenizers.Tokenizer:
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*FIRST, *SECOND]),
        model_writer=proto,
        vocab_size=14,
        model_type="WORD",
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        pad_piece="<pad>",
        unk_piece="<unk>",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        user_defined_symbols="[MASK]",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return keras_hub.tokenizers.AlbertTokenizer(proto=proto.getvalue())


@pytest.mark.parametrize("length", [10, pytest.param(64, marks=pytest.mark.thorough)])
def test_keras_hub_packs_as_its_own_preprocessors(
    roberta: keras_hub.tokenizers.Tokenizer,
    albert: keras_hub.tokenizers.Tokenizer,
    length: int,
) -> None:
    for tokenizer, packer in (
        (roberta, keras_hub.models.RobertaTextClassifierPreprocessor),
        (albert, keras_hub.models.AlbertTextClassifierPreprocessor),
    ):
        preprocessor = KerasHubPreprocessor(tokenizer)
        theirs = packer(tokenizer, sequence_length=length)
        for texts in ([FIRST], [FIRST, SECOND]):
            segments = [tf.constant(column) for column in texts]
            packed = preprocessor.pack(preprocessor.tokenize(segments), length)
            features = preprocessor.pad(packed, length)
            expected = theirs(tuple(segments), y=None)
            np.testing.assert_array_equal(features["input_word_ids"], expected["token_ids"])
            np.testing.assert_array_equal(features["input_mask"], expected["padding_mask"])
            if "segment_ids" in expected:
                np.testing.assert_array_equal(features["input_type_ids"], expected["segment_ids"])


@pytest.mark.parametrize("name", [pytest.param("roberta", marks=pytest.mark.thorough), "albert"])
def test_keras_hub_works_everywhere(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    assert_works_everywhere(KerasHubPreprocessor(request.getfixturevalue(name)), tmp_path / "saved")


def test_keras_hub_drops_special_tokens_in_text(
    roberta: keras_hub.tokenizers.Tokenizer, albert: keras_hub.tokenizers.Tokenizer
) -> None:
    for tokenizer, text in ((roberta, "a </s> b <mask>"), (albert, "a [MASK] fox")):
        preprocessor = KerasHubPreprocessor(tokenizer)
        tokens = preprocessor.tokenize([tf.constant([text, ""])])[0].to_list()
        assert not {*tokens[0]} & {*tokenizer.special_token_ids}
        assert tokens[0] and not tokens[1]


def test_keras_hub_tokenizer_without_start(albert: keras_hub.tokenizers.Tokenizer) -> None:
    tokenizer = keras_hub.tokenizers.ByteTokenizer()
    with pytest.raises(UserError, match="ByteTokenizer has no start"):
        KerasHubPreprocessor(tokenizer)
