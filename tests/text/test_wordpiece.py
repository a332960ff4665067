"""Token ids against Hugging Face's `tokenizers`, which shares no code with TensorFlow Text."""

import csv
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tokenizers import Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer

from tf_finetune.errors import UserError
from tf_finetune.text.preprocessor import RawText
from tf_finetune.text.wordpiece import BertPreprocessor

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]

EXOTIC = [
    "",
    " ",
    "Hello, World!",
    "\t tabs\tand\nlines\r\nand\u2028more\u2029 \u00a0\u3000spaces ",
    "Ã‰tÃ© café CAFÉ résumé naïve Ångström Ḉhemistry ệ",
    "e\u0301 combining a\u0308\u0304 \u0301alone",
    "我爱自然语言处理 和 english混在一起 豈更 𠀀𪜀",
    "日本語のテキスト カタカナ ﾊﾝｶｸ 한국어 텍스트 ไทยภาษา हिन्दी عربى עברית",
    "emoji 😀😃 👩\u200d👩\u200d👧\u200d👦 ❤️ 🇩🇪 #️⃣ \U0001fae8",
    "nul \x00 in\x00side, bell \x07, escape \x1b[31m, del \x7f, c1 \x85\x9f",
    "zero\u200bwidth\u200cnon\u200djoiner \ufeffbom soft\u00adhyphen \u202eright to left\u202c",
    "replacement \ufffd char\ufffdacter, private \ue000use\uf8ff \U000f0000",
    "İstanbul ISPARTA ıI Straße STRASSE ẞ ΟΔΥΣΣΕΥΣ Σ σς ﬁn ﬀ Ǆ ŉ",
    "½ ´ … µg ™ x² ＡＢＣ ὀδυσσεύς ¯\\_(ツ)_/¯ ♪☆",
    "full\u3002width：punctuation！ “quotes” — dashes… «guillemets» ¿¡ $€£¥ ^`|~<>=+",
    "x" * 100 + " " + "x" * 101 + " " + "é" * 100 + " " + "é" * 101,
    "ก" * 60 + " " + "𐍈" * 100 + " " + "𐍈" * 101,
    "x" * 5000,
    "a " * 3000,
    "[UNK] [CLS] [SEP] [PAD] [MASK] [unused1] ##ing",
    "http://example.com/a_b?c=d&e=f#g user@example.com 3.14 1,000 don't",
]
# Every sort of character that the rules tell apart.
ALPHABETS = [
    "abcdefgh ABCXYZ  '",
    "0123456789.,!?-_()[]{}$^`|~<>=+@#",
    "éèüñçÅØßẞİıſﬁΣσςΆΐ",
    "\u0300\u0301\u0308\u0327\u0345\u20dd\ufe0f\u093f\u0bbe",
    "\t\n\r\x0b\x0c\x00\x01\x1f\x7f\x85\u00a0\u1680\u2003\u2028\u2029\u3000",
    "\u00ad\u200b\u200d\u202e\u2060\ufeff\ufffd\ue000\U000e0041",
    "中文豈㐀𠀀かナ한ㄱ\u1100\u1161",
    "Жбשلहกქაᏸ",
    "😀👩🏽❤🇩\U0001f9ff«»“”…、。！",
]


@pytest.fixture(scope="module")
def vocabulary(minilm_dir: Path) -> list[str]:
    return (minilm_dir / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")


@pytest.fixture(scope="module")
def preprocessor(vocabulary: list[str]) -> BertPreprocessor:
    return BertPreprocessor(vocabulary)


@pytest.fixture(scope="module")
def hugging_face(minilm_dir: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(minilm_dir / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # Otherwise "[SEP]" in a text becomes the control token.
    tokenizer.encode_special_tokens = True
    return tokenizer


def rows(shared_data: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """500 pairs and 500 single texts."""
    lines = (shared_data / "mrpc" / "train.tsv").read_text(encoding="utf-8").split("\n")
    pairs = [tuple(line.split("\t")[:2]) for line in lines[1:501]]
    with (shared_data / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)][::20][:500]
    assert len(pairs) == len(texts) == 500
    return pairs, texts


def columns(texts: list) -> list[tf.Tensor]:
    """Pairs or single texts as string tensors."""
    if isinstance(texts[0], str | bytes):
        return [tf.constant(texts, tf.string)]
    return [tf.constant(list(column), tf.string) for column in zip(*texts, strict=True)]


def pack(preprocessor: BertPreprocessor, texts: list, length: int) -> tuple[list, list]:
    packed = preprocessor.pack(preprocessor.tokenize(columns(texts)), length)
    return packed["input_word_ids"].to_list(), packed["input_type_ids"].to_list()


def assert_equal(preprocessor: BertPreprocessor, hugging_face: Tokenizer, texts: list) -> None:
    ids, type_ids = pack(preprocessor, texts, 10**6)
    expected = hugging_face.encode_batch(texts)
    for text, row, types, encoding in zip(texts, ids, type_ids, expected, strict=True):
        assert row == encoding.ids, ascii(text)
        assert types == encoding.type_ids, ascii(text)


def test_real_rows(
    preprocessor: BertPreprocessor, hugging_face: Tokenizer, shared_data: Path
) -> None:
    pairs, texts = rows(shared_data)
    assert_equal(preprocessor, hugging_face, pairs)
    assert_equal(preprocessor, hugging_face, texts)


def test_exotic_texts_and_pairs(preprocessor: BertPreprocessor, hugging_face: Tokenizer) -> None:
    assert_equal(preprocessor, hugging_face, EXOTIC)
    assert_equal(preprocessor, hugging_face, list(zip(EXOTIC, reversed(EXOTIC), strict=True)))


@pytest.mark.parametrize("lower_case", [True, False])
@pytest.mark.parametrize("strip_accents", [None, True, False])
def test_random_texts(vocabulary: list[str], lower_case: bool, strip_accents: bool | None) -> None:
    # The vocabulary keeps apart what the rules keep apart: every character, with either case.
    letters = sorted({character for alphabet in ALPHABETS for character in alphabet} - {"\x00"})
    vocabulary = [*vocabulary, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = list(dict.fromkeys(vocabulary))
    reference = BertWordPieceTokenizer(
        {token: index for index, token in enumerate(vocabulary)},
        lowercase=lower_case,
        strip_accents=strip_accents,
    )
    random.seed(0)
    texts = [
        "".join(
            random.choice(random.choice(ALPHABETS)) for _ in range(random.choice([3, 10, 40, 150]))
        )
        for _ in range(1500)
    ]
    preprocessor = BertPreprocessor(vocabulary, lower_case, strip_accents)
    assert_equal(preprocessor, reference, texts)


def test_text_never_becomes_a_special_token(
    preprocessor: BertPreprocessor, minilm_dir: Path
) -> None:
    text = "a [SEP] b [CLS] [MASK] [PAD]"
    tokens = preprocessor.tokenize([tf.constant([text])])[0].to_list()[0]
    assert not {preprocessor.pad_id, preprocessor.start_id, preprocessor.end_id, 103} & {*tokens}
    # The deliberate difference: as it is shipped, Hugging Face's tokenizer lets them through.
    shipped = Tokenizer.from_file(str(minilm_dir / "tokenizer.json"))
    assert {101, 102, 103} <= {*shipped.encode(text, add_special_tokens=False).ids}


def test_bytes_that_are_not_utf8_are_left_out(
    preprocessor: BertPreprocessor, hugging_face: Tokenizer
) -> None:
    random.seed(1)
    texts = [b"caf\xe9 latin1", b"\xff\xfe", b"cut \xe4\xb8", b"\xed\xa0\x80surrogate", b"\xc0\xaf"]
    texts += [random.randbytes(20) for _ in range(300)]
    texts += ["é中😀a".encode()[: random.randrange(11)] + b"b" for _ in range(50)]
    ids, _ = pack(preprocessor, texts, 512)
    expected = hugging_face.encode_batch([text.decode(errors="replace") for text in texts])
    for text, row, encoding in zip(texts, ids, expected, strict=True):
        assert row == encoding.ids, text


@pytest.mark.parametrize("length", [8, 16, 32, 128])
def test_truncates_as_hugging_face(
    preprocessor: BertPreprocessor, hugging_face: Tokenizer, shared_data: Path, length: int
) -> None:
    pairs, texts = rows(shared_data)
    pairs += [("", "b " * 200), ("a " * 200, ""), ("a b c", "b " * 200), ("a " * 200, "b c")]
    cutting = Tokenizer.from_str(hugging_face.to_str())
    cutting.enable_truncation(length, strategy="longest_first")
    assert pack(preprocessor, texts, length)[0] == [
        encoding.ids for encoding in cutting.encode_batch(texts)
    ]
    room = length - 3
    for pair, ids, types in zip(pairs, *pack(preprocessor, pairs, length), strict=True):
        first, second = (hugging_face.encode(text, add_special_tokens=False).ids for text in pair)
        expected = cutting.encode(*pair)
        if min(len(first), len(second)) > room // 2 and len(first) <= len(second):
            # Both are cut to an odd sum: the first keeps the token, there the longer does.
            keep = room - room // 2
            assert ids == [101, *first[:keep], 102, *second[: room // 2], 102]
            assert types == [0] * (keep + 2) + [1] * (room // 2 + 1)
            assert expected.ids == [101, *first[: room // 2], 102, *second[:keep], 102]
        else:
            assert ids == expected.ids
            assert types == expected.type_ids


def test_packed_lengths_are_those_without_truncation(preprocessor: BertPreprocessor) -> None:
    for texts in (EXOTIC, list(zip(EXOTIC, reversed(EXOTIC), strict=True))):
        tokens = preprocessor.tokenize(columns(texts))
        lengths = preprocessor.packed_lengths(tokens)
        assert lengths.dtype == tf.int32
        whole = preprocessor.pack(tokens, 10**6)["input_word_ids"]
        np.testing.assert_array_equal(lengths, whole.row_lengths())


def test_pad_fills_with_the_vocabularys_padding() -> None:
    preprocessor = BertPreprocessor(["a", "[SEP]", "[CLS]", "[UNK]", "b", "[PAD]"])
    packed = preprocessor.pack(preprocessor.tokenize([tf.constant(["a b", "c", ""])]), 8)
    longest = preprocessor.pad(packed)
    np.testing.assert_array_equal(
        longest["input_word_ids"], [[2, 0, 4, 1], [2, 3, 1, 5], [2, 1, 5, 5]]
    )
    np.testing.assert_array_equal(longest["input_mask"], [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]])
    np.testing.assert_array_equal(longest["input_type_ids"], np.zeros([3, 4]))
    for length in (6, tf.constant(6)):
        fixed = preprocessor.pad(packed, length)
        assert {tensor.dtype for tensor in fixed.values()} == {tf.int32}
        for name, tensor in fixed.items():
            assert tensor.shape == (3, 6)
            np.testing.assert_array_equal(tensor[:, :4], longest[name])
        assert (fixed["input_word_ids"].numpy()[:, 4:] == 5).all()
        assert not fixed["input_mask"].numpy()[:, 4:].any()


def test_calling_it_does_all_at_once(preprocessor: BertPreprocessor) -> None:
    features = preprocessor([tf.constant(["a b", "c"]), tf.constant(["d", "e f g h i j"])], 8)
    np.testing.assert_array_equal(features["input_type_ids"].numpy().sum(axis=1), [2, 5])
    assert features["input_mask"].numpy().sum(axis=1).tolist() == [6, 8]


def test_no_rows(preprocessor: BertPreprocessor) -> None:
    features = preprocessor([tf.zeros([0], tf.string), tf.zeros([0], tf.string)], 16)
    assert {tuple(tensor.shape) for tensor in features.values()} == {(0, 0)}


@pytest.mark.parametrize(("segments", "least"), [(1, 3), (2, 5)])
def test_max_seq_length_too_small(
    preprocessor: BertPreprocessor, segments: int, least: int
) -> None:
    tokens = preprocessor.tokenize([tf.constant(["a b c"])] * segments)
    with pytest.raises(UserError, match=f"max_seq_length={least - 1}.*max_seq_length={least} or"):
        preprocessor.pack(tokens, least - 1)
    assert preprocessor.pack(tokens, least)["input_word_ids"].shape[0] == 1


@pytest.mark.parametrize("token", SPECIAL)
def test_vocabulary_without_a_special_token(token: str) -> None:
    with pytest.raises(UserError, match=rf"vocabulary of 4 tokens has no \{token}"):
        BertPreprocessor([other for other in SPECIAL if other != token] + ["a"])


def test_what_is_no_vocabulary() -> None:
    with pytest.raises(UserError, match="not one of word pieces"):
        BertPreprocessor([*SPECIAL, "nul \x00", "x" * 1000])


def test_of_a_repeated_token_the_later_id_counts() -> None:
    # As in the dict that google-research/bert reads a vocabulary into.
    preprocessor = BertPreprocessor([*SPECIAL, "a", "", "b", "a", "[SEP]", ""])
    packed = preprocessor.pack(preprocessor.tokenize([tf.constant(["a b c"])]), 8)
    assert packed["input_word_ids"].to_list() == [[2, 7, 6, 1, 8]]


def test_in_tf_data_and_tf_function(preprocessor: BertPreprocessor) -> None:
    pairs = list(zip(EXOTIC, reversed(EXOTIC), strict=True))
    expected = pack(preprocessor, pairs, 32)[0]

    def prepare(*segments: tf.Tensor) -> dict[str, tf.RaggedTensor]:
        return preprocessor.pack(preprocessor.tokenize(segments), 32)

    dataset = tf.data.Dataset.from_tensor_slices(tuple(columns(pairs))).batch(3).map(prepare)
    mapped = [row for batch in dataset for row in batch["input_word_ids"].to_list()]
    assert mapped == expected
    traced = tf.function(prepare, input_signature=[tf.TensorSpec([None], tf.string)] * 2)
    assert traced(*columns(pairs))["input_word_ids"].to_list() == expected


def test_saved_in_a_module_and_in_a_turkish_locale(
    preprocessor: BertPreprocessor, tmp_path: Path
) -> None:
    class Serving(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.preprocessor = preprocessor

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)] * 2)
        def serve(self, first: tf.Tensor, second: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.preprocessor([first, second], 16)

    module = Serving()
    texts = ["I LIKE IT", "ISPARTA Ìa [SEP]"]
    expected = module.serve(tf.constant(texts), tf.constant(texts[::-1]))
    tf.saved_model.save(module, str(tmp_path / "saved"))
    script = (
        "import sys, tensorflow as tf, tensorflow_text\n"
        f"texts = {texts!r}\n"
        "loaded = tf.saved_model.load(sys.argv[1])\n"
        "features = loaded.serve(tf.constant(texts), tf.constant(texts[::-1]))\n"
        "assert not any(name.startswith(('tf_finetune', 'keras_hub')) for name in sys.modules)\n"
        "print(features['input_word_ids'].numpy().tolist())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "saved")],
        env={**os.environ, "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(expected["input_word_ids"].numpy().tolist())


def test_raw_text_passes_on() -> None:
    preprocessor = RawText()
    segments = [tf.constant(["a b", ""]), tf.constant(["c", "d e f"])]
    features = preprocessor(segments, 8)
    assert {name: tensor.numpy().tolist() for name, tensor in features.items()} == {
        "text_a": [b"a b", b""],
        "text_b": [b"c", b"d e f"],
    }
    assert preprocessor.packed_lengths(segments).numpy().tolist() == [3, 3]
    assert [*preprocessor(segments[:1], 8)] == ["text_a"]
