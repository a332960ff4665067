import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from tf_finetune.errors import UserError
from tf_finetune.formats.convert import export_hub_encoder
from tf_finetune.formats.encoders import load_encoder

TEXTS = ["The movie is not GOOD.", "naïve film!", "ÉCLAIR, 中国 boring", "", "[SEP]", "x" * 101]
TEXTS += ["a\x85b\x0bc\x1fd e\u2028f\u200bg\ufffdh\xad", "中film国, 中 good", "tab\tnot\r\nnul\x00"]


@pytest.fixture
def make_dir(tiny_bert_dir, tmp_path) -> Callable[..., Path]:
    """Makes the tiny BERT with the `tokenizer.json` that `tokenizers` writes, without vocab.txt."""

    def make(**options: Any) -> Path:
        directory = Path(shutil.copytree(tiny_bert_dir, tmp_path / "bert"))
        tokens = (directory / "vocab.txt").read_text().split()
        vocabulary = {token: index for index, token in enumerate(tokens)}
        (directory / "vocab.txt").unlink()
        (directory / "tokenizer_config.json").unlink()
        model = models.WordPiece(vocabulary, unk_token="[UNK]")
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.BertNormalizer(**options)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
        tokenizer.save(str(directory / "tokenizer.json"))
        return directory

    return make


def edit(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((directory / "tokenizer.json").read_text())
    change(content)
    (directory / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lowercase": False},
        {"lowercase": True, "strip_accents": False},
        {"lowercase": False, "strip_accents": True},
        {"handle_chinese_chars": False},
        {"clean_text": False},
        {"clean_text": False, "handle_chinese_chars": False, "lowercase": False},
    ],
    ids=str,
)
def test_ids_are_those_of_tokenizers(make_dir, options):
    directory = make_dir(**options)
    preprocessor = load_encoder(str(directory)).preprocessor
    reference = Tokenizer.from_file(str(directory / "tokenizer.json"))
    ours = preprocessor.tokenize([tf.constant(TEXTS)])[0].to_list()
    for text, ids in zip(TEXTS, ours, strict=True):
        if text != "[SEP]":  # There a control token, here three words: see BertPreprocessor.
            assert ids == reference.encode(text, add_special_tokens=False).ids, text
    assert len(ours[TEXTS.index("[SEP]")]) > 1


def test_it_is_the_same_encoder_as_with_a_vocab_txt(make_dir, tiny_bert_dir):
    ours, theirs = (load_encoder(str(path)).preprocessor for path in (make_dir(), tiny_bert_dir))
    assert ours.vocabulary == theirs.vocabulary
    assert ours.fingerprint() == theirs.fingerprint()


def test_a_real_one(minilm_dir, tmp_path):
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).symlink_to(minilm_dir / name)
    ours, theirs = (load_encoder(str(path)).preprocessor for path in (tmp_path, minilm_dir))
    assert ours.fingerprint() == theirs.fingerprint()


def test_vocab_txt_and_tokenizer_config_come_first(make_dir, tiny_bert_dir):
    directory = make_dir(lowercase=False)
    edit(directory, lambda content: content["model"].update(type="Unigram"))
    shutil.copy(tiny_bert_dir / "vocab.txt", directory)
    shutil.copy(tiny_bert_dir / "tokenizer_config.json", directory)
    assert load_encoder(str(directory)).preprocessor.lower_case


def test_what_older_versions_left_out_and_what_says_nothing_new(make_dir):
    directory = make_dir()
    edit(directory, lambda content: (content["model"].pop("type"), content.pop("added_tokens")))
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "strip_accents": None}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_encoder(str(directory)).preprocessor.lower_case


def test_special_tokens_that_were_added_have_ids_beyond_the_model(make_dir):
    directory = make_dir()
    special = {"id": 122, "content": "[E1]", "special": True}
    edit(
        directory,
        lambda content: (
            content["model"]["vocab"].pop("##ly"),
            content["added_tokens"].append(special),
        ),
    )
    vocabulary = load_encoder(str(directory)).preprocessor.vocabulary
    assert (len(vocabulary), vocabulary[122]) == (123, "[E1]")


def test_it_is_exported(make_dir, tmp_path):
    export_hub_encoder(str(make_dir()), tmp_path / "hub")
    written = load_encoder(str(tmp_path / "hub" / "encoder"))
    vocabulary = load_encoder(str(tmp_path / "bert")).preprocessor.vocabulary
    assert written.preprocessor.vocabulary == vocabulary


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["model"].update(type="Unigram"), "model.vocab, which is no list of pieces"),
        (lambda c: c["model"].update(type="BPE"), "prefix='##'; only ''.* --preprocessor"),
        (lambda c: c["model"].update(type="WordLevel"), "model.type='WordLevel'; only WordPiece,"),
        (lambda c: c["model"].update(continuing_subword_prefix="@@"), "prefix='@@'; only '##'"),
        (lambda c: c["model"].update(unk_token="<unk>"), "123 tokens has no <unk>, which"),
        (lambda c: c["model"].update(max_input_chars_per_word=0), "per_word=0; only 1 to 999"),
        (lambda c: c["model"].update(max_input_chars_per_word="9"), "per_word='9'; only 1 to 999"),
        (lambda c: c.update(model=None), "model.continuing_subword_prefix=None"),
        (lambda c: c.update(normalizer=None), "normalizer.type=None; only 'BertNormalizer'"),
        (lambda c: c["normalizer"].update(type="NFC"), "normalizer.type='NFC'"),
        (lambda c: c["normalizer"].update(clean_text=0), "clean_text=0; only True or False"),
        (lambda c: c["normalizer"].pop("handle_chinese_chars"), "chinese_chars=None"),
        (lambda c: c["normalizer"].update(lowercase="yes"), "lowercase='yes'; only True or False"),
        (lambda c: c.update(pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer.type='Whitesp"),
        (lambda c: c["model"]["vocab"].pop("film"), "no token of id 1[0-9]*, but 'movie' of id"),
        (lambda c: c["model"]["vocab"].update(film=7), "id 7 for both '.' and 'film'; each"),
        (lambda c: c["model"]["vocab"].update(film=-1), "the id -1 for 'film'"),
        (lambda c: c["model"]["vocab"].update(film="7"), "the id '7' for 'film'"),
        (lambda c: c["model"]["vocab"].update(film=True), "the id True for 'film'"),
        (lambda c: c["model"]["vocab"].update({"a\nb": 123}), r"the token 'a\\nb', which is not"),
        (lambda c: c["model"]["vocab"].update({"\ud800": 123}), r"the token '\\ud800', which"),
        (
            lambda c: c["model"].update(vocab=[["[PAD]", 0.0]], type=None),
            "model.vocab=.*PAD.*only an object",
        ),
        (lambda c: c.update(added_tokens=[3]), "an added token without content: 3"),
        (lambda c: c.update(added_tokens=[{"content": [1], "id": 0}]), "without content"),
        (
            lambda c: c["added_tokens"].append({"id": 123, "content": "covid", "special": False}),
            "the added token 'covid'.*vocab.txt",
        ),
        (lambda c: _rename(c, "[CLS]", "<s>"), "has no </s>; rows are made with .PAD., <s>, </s>"),
    ],
)
def test_what_is_no_wordpiece_of_berts_is_told(make_dir, change, message):
    directory = make_dir()
    edit(directory, change)
    with pytest.raises(UserError, match=message) as error:
        load_encoder(str(directory))
    assert str(error.value).startswith(f"--encoder={directory}: ")


def _rename(content: dict[str, Any], old: str, new: str) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary[new] = vocabulary.pop(old)
    content["added_tokens"] = []


@pytest.mark.parametrize("text", ["", "[]", "{", "\udcff", "[" * 100_000])
def test_a_damaged_file_is_told(make_dir, text):
    directory = make_dir()
    (directory / "tokenizer.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"tokenizer\.json (cannot be read as JSON|holds a list)"):
        load_encoder(str(directory))


def test_two_files_that_contradict(make_dir):
    directory = make_dir()
    (directory / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    with pytest.raises(UserError, match=r"lowercase=True, but tokenizer_config\.json has do_lower"):
        load_encoder(str(directory))
