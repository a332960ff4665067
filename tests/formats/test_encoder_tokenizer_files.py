"""Which tokenizer a directory has, and what its rows are made of."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tensorflow as tf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tf_finetune.errors import UserError
from tf_finetune.formats.tokenizer_files import read_tokenizer, special_tokens
from tf_finetune.text.byte_level import ByteLevelPreprocessor
from tf_finetune.text.preprocessor import TokenPreprocessor
from tf_finetune.text.unigram import UnigramPreprocessor
from tf_finetune.text.wordpiece import BertPreprocessor

TEXTS = ["the movie is not good", "a very boring plot", "great film, bad plot!", "unknown wörds"]
WORDS = ["the", "is", "not", "good", "bad", "great", "film", "movie", "plot", "very", "boring"]
WORDS += ["a", "b", "c", "##ing", "##ly", ",", ".", "!"]


def ids(preprocessor: TokenPreprocessor, texts: list[str] = TEXTS) -> list[list[int]]:
    return preprocessor.tokenize([tf.constant(texts)])[0].to_list()


def rows(preprocessor: TokenPreprocessor, length: int = 100) -> tuple[list[Any], list[Any]]:
    columns = [tf.constant(TEXTS), tf.constant(TEXTS[::-1])]
    packed = preprocessor.pack(preprocessor.tokenize(columns), length)
    return packed["input_word_ids"].to_list(), packed["input_type_ids"].to_list()


def expected_rows(tokenizer: Tokenizer) -> tuple[list[Any], list[Any]]:
    encodings = tokenizer.encode_batch(list(zip(TEXTS, TEXTS[::-1], strict=True)))
    return [e.ids for e in encodings], [e.type_ids for e in encodings]


def word_piece(special: list[str], processor: Any = None, **options: Any) -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate([*special, *WORDS, "x", "##x"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", **options))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special)
    if processor:
        tokenizer.post_processor = processor
    return tokenizer


MPNET = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"]
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.mark.parametrize("types", [0, 1])
def test_mpnet(tmp_path: Path, types: int) -> None:
    processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair=f"<s> $A </s> </s> $B:{types} </s>:{types}",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer = word_piece(MPNET, processor)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours = read_tokenizer("x", tmp_path)
    assert isinstance(ours, BertPreprocessor)
    assert rows(ours) == expected_rows(tokenizer)
    assert (ours.pad_id, ours.second_type_id) == (1, types)
    assert special_tokens(ours) == {
        "cls_token": "<s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "[UNK]",
        "mask_token": "<mask>",
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    (tmp_path / "tokenizer.json").rename(tmp_path / "other.json")
    (tmp_path / "vocab.txt").write_text("\n".join([*MPNET, *WORDS]))
    assert rows(read_tokenizer("x", tmp_path))[0] == rows(ours)[0]


@pytest.mark.parametrize("special", [BERT, MPNET], ids=["bert", "mpnet"])
@pytest.mark.parametrize("config", [{}, {"do_lower_case": False, "tokenize_chinese_chars": False}])
def test_a_json_that_is_written_for_a_vocab_txt_does_the_same(
    tmp_path: Path, special: list[str], config: dict[str, Any]
) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join([*special, *WORDS, "中", "国"]))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = read_tokenizer("x", tmp_path)
    written = Tokenizer.from_str(ours.tokenizer_json)
    assert rows(ours) == expected_rows(written)
    texts = ["The FILM", "中国 中", "Plot\x00s [MASK"]
    assert ids(ours, texts) == [
        encoding.ids for encoding in written.encode_batch(texts, add_special_tokens=False)
    ]
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / "tokenizer.json").write_text(ours.tokenizer_json)
    assert read_tokenizer("x", tmp_path).fingerprint() == ours.fingerprint()


@pytest.mark.parametrize("longest", [3, 999])
def test_the_longest_word(tmp_path: Path, longest: int) -> None:
    tokenizer = word_piece(BERT, max_input_chars_per_word=longest)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    texts = ["x" * longest + " " + "x" * (longest + 1)]
    expected = [e.ids for e in tokenizer.encode_batch(texts)]
    assert len(expected[0]) == longest + 1
    assert ids(read_tokenizer("x", tmp_path), texts) == expected


def test_of_tokenizer_json_and_vocab_txt_the_first_tells_the_case(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join([*BERT, *WORDS]))
    assert read_tokenizer("x", tmp_path).lower_case
    tokenizer = word_piece(BERT)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours = read_tokenizer("x", tmp_path)
    assert not ours.lower_case
    assert ours.tokenizer_json == (tmp_path / "tokenizer.json").read_text()


@pytest.fixture
def roberta_dir(gpt2_files: tuple[Path, Path], tmp_path: Path) -> Path:
    """RoBERTa's files without tokenizer.json, as CodeBERT has them."""
    tokens = json.loads(gpt2_files[0].read_text(encoding="utf-8"))
    names = ["<s>", "<pad>", "</s>", "<unk>", *sorted(tokens, key=tokens.__getitem__), "<mask>"]
    vocabulary = {name: index for index, name in enumerate(names)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_bytes(gpt2_files[1].read_bytes())
    return tmp_path


@pytest.mark.parametrize("config", [{}, {"add_prefix_space": True}])
def test_roberta_without_tokenizer_json(roberta_dir: Path, config: dict[str, Any]) -> None:
    (roberta_dir / "tokenizer_config.json").write_text(json.dumps(config))
    ours = read_tokenizer("x", roberta_dir)
    assert isinstance(ours, ByteLevelPreprocessor)
    files = [str(roberta_dir / name) for name in ("vocab.json", "merges.txt")]
    theirs = Tokenizer(models.BPE.from_file(*files))
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config))
    theirs.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    assert rows(ours) == expected_rows(theirs)
    assert rows(ours) == expected_rows(Tokenizer.from_str(ours.tokenizer_json))
    assert (ours.pad_id, ours.second_type_id) == (1, 0)
    assert ours.vocabulary[-1] == special_tokens(ours)["mask_token"] == "<mask>"


def train(folder: Path, first: list[str], unknown: str) -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece model of few pieces, with these control symbols first."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_prefix=str(folder / "trained"),
        vocab_size=60,
        hard_vocab_limit=False,
        control_symbols=[token for token in first if token not in (unknown, "<s>", "</s>")],
        unk_piece=unknown,
        unk_id=first.index(unknown),
        bos_id=first.index("<s>") if "<s>" in first else -1,
        eos_id=first.index("</s>") if "</s>" in first else -1,
        pad_id=-1,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "trained.model"))


@pytest.mark.parametrize(
    ("name", "first", "unknown", "shift", "special"),
    [
        ("spm.model", ["[PAD]", "[CLS]", "[SEP]", "[UNK]"], "[UNK]", 0, [1, 2, [2], 0]),
        (
            "spiece.model",
            ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
            "<unk>",
            0,
            [2, 3, [3], 0],
        ),
        ("sentencepiece.bpe.model", ["<unk>", "<s>", "</s>"], "<unk>", 1, [0, 2, [2, 2], 1]),
        ("camembert", ["<unk>", "<s>", "</s>"], "<unk>", 4, [5, 6, [6, 6], 1]),
    ],
)
def test_sentencepiece_models(
    tmp_path: Path, name: str, first: list[str], unknown: str, shift: int, special: list[Any]
) -> None:
    theirs = train(tmp_path, first, unknown)
    file = "sentencepiece.bpe.model" if name == "camembert" else name
    (tmp_path / "trained.model").rename(tmp_path / file)
    if name == "camembert":
        config = {"tokenizer_class": "CamembertTokenizer"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = read_tokenizer("x", tmp_path)
    assert isinstance(ours, UnigramPreprocessor)
    unknown_id = 3 if shift else theirs.unk_id()
    texts = [text.replace("ö", "?") for text in TEXTS]
    assert ids(ours, texts) == [
        [unknown_id if id_ == theirs.unk_id() else id_ + shift for id_ in row]
        for row in theirs.encode(texts)
    ]
    assert [ours.start_id, ours.end_id, [*ours.separator_ids], ours.pad_id] == special
    mask_id = {"spm.model": -1, "spiece.model": 4, "sentencepiece.bpe.model": -1}[file]
    assert ours.vocabulary[mask_id] == special_tokens(ours)["mask_token"]
    assert rows(ours) == expected_rows(Tokenizer.from_str(ours.tokenizer_json))


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config.json": {"pad_token": "film"}},
        {"special_tokens_map.json": {"pad_token": {"content": "film"}}},
        {"tokenizer_config.json": {}, "special_tokens_map.json": {"pad_token": "film"}},
    ],
)
def test_the_token_that_pads(tmp_path: Path, files: Mapping[str, Any]) -> None:
    tokenizer = word_piece(BERT)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert read_tokenizer("x", tmp_path).pad_id == 0
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert read_tokenizer("x", tmp_path).pad_id == tokenizer.token_to_id("film")


def test_the_padding_in_tokenizer_json(tmp_path: Path) -> None:
    tokenizer = word_piece(BERT)
    tokenizer.enable_padding(pad_id=1, pad_token="[UNK]")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert read_tokenizer("x", tmp_path).pad_id == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "merges.txt").write_bytes(b"\xff"), r"merges\.txt: cannot be read"),
        (lambda d: (d / "merges.txt").write_text("a b c\n"), r"merges\.txt: damaged merges"),
        (lambda d: (d / "vocab.json").write_text("[]"), r"vocab\.json holds a list"),
        (lambda d: (d / "vocab.json").unlink(), r"vocab\.json is missing"),
        (lambda d: (d / "merges.txt").unlink(), r"vocab\.txt is missing, and so are"),
        (
            lambda d: (d / "tokenizer_config.json").write_text('{"add_prefix_space": "yes"}'),
            "add_prefix_space='yes'; allowed are true, false",
        ),
        (
            lambda d: (d / "tokenizer_config.json").write_text('{"pad_token": "<none>"}'),
            "has no <none>; rows are made with",
        ),
    ],
)
def test_damaged_files_are_told(
    roberta_dir: Path, damage: Callable[[Path], Any], message: str
) -> None:
    damage(roberta_dir)
    with pytest.raises(UserError, match=message) as error:
        read_tokenizer("x", roberta_dir)
    assert str(error.value).startswith("--encoder=x: ") and str(error.value).count("--encoder") == 1


@pytest.mark.parametrize("content", [b"", b"\xff" * 9, b"\x0a\x02\x0a\x00"])
def test_a_damaged_sentencepiece_model_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spm.model").write_bytes(content)
    with pytest.raises(UserError, match=r"spm\.model: no "):
        read_tokenizer("x", tmp_path)
