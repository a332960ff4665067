"""BERT's WordPiece, equal id for id to the tokenizer that the published weights were made with."""

import json
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
import tensorflow_text as tf_text

from tf_finetune.errors import UserError
from tf_finetune.text.byte_bpe import added_token
from tf_finetune.text.fingerprint import hash_parts
from tf_finetune.text.preprocessor import TokenPreprocessor
from tf_finetune.text.row_format import RowFormat, default_row_format, template_processing
from tf_finetune.text.words import WordRules, split_words


class BertPreprocessor(TokenPreprocessor):
    """WordPiece as BERT's: `[CLS] a [SEP]`, or `[CLS] a [SEP] b [SEP]` with type ids 0 and 1.

    MPNet's is the same with other special tokens.

    Equal, id for id, to Hugging Face's `tokenizers`, but for

    - special tokens in the text: there `[SEP]` typed by a user becomes the control token, here it
      is the words `[`, `sep` and `]`, as in google-research/bert;
    - a pair of which both segments are cut to an odd total: there the longer segment keeps the odd
      token, here the first does, as in google-research/bert and in TF Models' preprocessor;
    - under 700 characters of rare scripts, all newer than Unicode 8 or reclassified since,
      whose categories `tokenizers` has frozen, and U+2B820 to U+2B91F, which it forgets to treat
      as ideographs.

    TF Models' preprocessor for TF Hub differs on 34 of 90,000 real texts (MRPC, CoLA, SST-2,
    banking77, GoEmotions): it lower-cases by NFKC case folding (… becomes three dots, ½ 1⁄2, ß ss,
    the micro sign a mu), replaces a control character by a space instead of removing it, and counts
    a word's length in bytes. We do as google-research/bert, which made the published weights.

    A byte that is not UTF-8 is left out.

    Attributes:
        vocabulary: The token of each id.
        lower_case: Whether text is lower-cased.
        strip_accents: Whether accents are dropped.
        rules: How text becomes words.
        tokenizer_json: Content of a tokenizer.json that does the same.
    """

    # Measured on MRPC's 4,076 pairs on two busy cores: 36,000 pairs/s, packed, and 0.1 s to build.
    # `tf_text.BertTokenizer` with its trimmer and `combine_segments` makes 6,700 pairs/s with six
    # times the ops; `tf_text.FastBertTokenizer` is 1.6 times as fast as this, but folds case.

    def __init__(
        self,
        vocabulary: Sequence[str],
        lower_case: bool = True,
        strip_accents: bool | None = None,
        *,
        rules: WordRules = WordRules(),
        row: RowFormat | None = None,
        unknown: str = "[UNK]",
        tokenizer_json: str | None = None,
    ) -> None:
        """Builds the tokenizer.

        Args:
            vocabulary: The token of each id; a token that occurs twice gets its later id.
            lower_case: Whether the vocabulary is of lower-cased text.
            strip_accents: Whether it is of text without accents; None: as `lower_case`.
            rules: How text becomes words.
            row: How rows are made; None: as the vocabulary's special tokens say.
            unknown: The token for words of which no pieces are found.
            tokenizer_json: Content of the tokenizer.json that says all this; None: one is written.

        Raises:
            UserError: The vocabulary lacks a special token or is no vocabulary.
        """
        id_of = {token: index for index, token in enumerate(vocabulary)}
        if unknown not in id_of:
            raise UserError(
                f"the vocabulary of {len(vocabulary)} tokens has no {unknown}, which stands for "
                "words that are not in it"
            )
        self._row = row or default_row_format(vocabulary)
        super().__init__(**vars(self._row))
        self.vocabulary = list(vocabulary)
        self.lower_case = lower_case
        self.strip_accents = lower_case if strip_accents is None else strip_accents
        self.rules = rules
        self._unknown = unknown
        self.tokenizer_json = tokenizer_json or self._json()
        # No word contains a space, so a name with one disables its id: an empty token's, and all
        # but the last of a repeated token's.
        names = [
            token if token and id_of[token] == index else f" {index}"
            for index, token in enumerate(vocabulary)
        ]
        try:
            self._wordpiece = tf_text.FastWordpieceTokenizer(
                names,
                max_bytes_per_word=4 * rules.max_input_chars_per_word,
                unknown_token=unknown,
                token_out_type=tf.int32,
                no_pretokenization=True,
            )
        except RuntimeError as error:
            raise UserError(f"the vocabulary is not one of word pieces: {error}") from error

    def fingerprint(self) -> str:
        """Returns a hash of the vocabulary and of all that is done to texts and rows."""
        settings = [self.lower_case, self.strip_accents, vars(self.rules), vars(self._row)]
        return hash_parts(["BERT", json.dumps([*settings, self._unknown]), *self.vocabulary])

    def tokenize(self, segments: Sequence[tf.Tensor]) -> list[tf.RaggedTensor]:
        """Cuts each string [batch] into word pieces, int32 [batch, (tokens)]."""
        return [self._tokenize(segment) for segment in segments]

    def _tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        words = split_words(
            text,
            lower_case=self.lower_case,
            strip_accents=self.strip_accents,
            rules=self.rules,
            too_long=self._unknown,
        )
        pieces = self._wordpiece.tokenize(words.values)
        splits = tf.gather(pieces.row_splits, words.row_splits)
        return tf.RaggedTensor.from_row_splits(pieces.values, splits, validate=False)

    def _json(self) -> str:
        """Writes a tokenizer.json."""
        ids = {token: index for index, token in enumerate(self.vocabulary)}
        special = {self._unknown, *(self.vocabulary[id_] for id_ in self._row.special_ids)}
        special |= {"[MASK]", "<mask>"} & ids.keys()
        content = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [added_token(token, ids[token], True) for token in sorted(special)],
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": self.rules.clean_text,
                "handle_chinese_chars": self.rules.handle_chinese_chars,
                "strip_accents": self.strip_accents,
                "lowercase": self.lower_case,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": template_processing(self._row, self.vocabulary),
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {
                "type": "WordPiece",
                "unk_token": self._unknown,
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": self.rules.max_input_chars_per_word,
                "vocab": ids,
            },
        }
        return json.dumps(content, ensure_ascii=False)


def bert_preprocessor(
    handle: str, vocabulary: Sequence[str], lower_case: bool, strip_accents: bool | None = None
) -> BertPreprocessor:
    """Returns the preprocessor of a vocabulary; its errors name the encoder.

    Args:
        handle: The encoder's handle, for error messages.
        vocabulary: The token of each id.
        lower_case: Whether text is lower-cased.
        strip_accents: Whether accents are dropped; None: as `lower_case`.

    Returns:
        The preprocessor.

    Raises:
        UserError: It is not the vocabulary of a BERT.
    """
    try:
        return BertPreprocessor(vocabulary, lower_case, strip_accents)
    except UserError as error:
        raise UserError(f"--encoder={handle}: {error}") from error


def read_vocabulary(path: Path) -> list[str]:
    """Returns the tokens of a vocabulary file, one a line, in the order of their ids."""
    # split, not splitlines: a token may be a character that splitlines takes for a line break.
    tokens = path.read_text(encoding="utf-8").replace("\r\n", "\n").split("\n")
    return tokens[:-1] if tokens[-1] == "" else tokens


def is_cased(vocabulary: Sequence[str]) -> bool:
    """Returns whether a token has upper-case letters; special ones such as `[CLS]` do not count."""
    return any(token != token.lower() for token in vocabulary if not token.startswith("["))
