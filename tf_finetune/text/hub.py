"""Tokenizers that come with an encoder: TF Hub preprocessors and KerasHub tokenizers."""

import itertools
import json
import tempfile
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_text as tf_text  # noqa: F401  (registers the ops that SavedModels use)

from tf_finetune.errors import UserError
from tf_finetune.text.fingerprint import hash_folder, hash_parts
from tf_finetune.text.preprocessor import TokenPreprocessor


class HubPreprocessor(TokenPreprocessor):
    """Tokenizes with a preprocessor SavedModel of TF Hub's text API.

    It calls the SavedModel's `tokenize` for every batch, its `bert_pack_inputs` only once, to find
    the special tokens and types: segments are joined and truncated as there, but to rows of any
    length. RoBERTa's pairs have two separators, and no types. See
    https://www.tensorflow.org/hub/common_saved_model_apis/text.
    """

    def __init__(self, saved_model_dir: str) -> None:
        """Loads the SavedModel.

        Args:
            saved_model_dir: Its directory.

        Raises:
            UserError: It cannot be loaded or is no preprocessor of TF Hub's text API.
        """
        try:
            loaded = tf.saved_model.load(saved_model_dir)
        except (OSError, tf.errors.OpError) as error:
            raise UserError(f"{saved_model_dir}: not a TF2 SavedModel: {error}") from error
        for name in ("tokenize", "bert_pack_inputs"):
            if not callable(getattr(loaded, name, None)):
                raise UserError(
                    f"{saved_model_dir}: the SavedModel has no `{name}`, so it is no preprocessor "
                    "of TF Hub's text API. Use the one named on the encoder's page."
                )
        super().__init__(**_row_format(saved_model_dir, loaded.bert_pack_inputs))
        self._loaded = loaded
        self._directory = saved_model_dir

    def fingerprint(self) -> str:
        """Returns a hash of the SavedModel's files."""
        return hash_parts(["TF Hub", hash_folder(self._directory)])

    def tokenize(self, segments: Sequence[tf.Tensor]) -> list[tf.RaggedTensor]:
        """Cuts each string [batch] into int32 [batch, (tokens)]."""
        tokens = [tf.cast(self._loaded.tokenize(segment), tf.int32) for segment in segments]
        # A WordPiece preprocessor keeps the pieces of each word together.
        return [
            segment.merge_dims(1, 2) if segment.ragged_rank == 2 else segment for segment in tokens
        ]


class KerasHubPreprocessor(TokenPreprocessor):
    """Tokenizes with a KerasHub tokenizer and joins segments as its model was trained.

    The pairs of RoBERTa and XLM-RoBERTa are `<s> a </s></s> b </s>`, those of all others
    `<start> a <end> b <end>` (KerasHub's `RobertaTextClassifierPreprocessor` and
    `TextClassifierPreprocessor`). For BERT's own tokenizer use `BertPreprocessor`.

    KerasHub's byte-pair tokenizers find special tokens in the text. This class drops them, so that
    text from a user never becomes a control token.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Wraps a tokenizer.

        Args:
            tokenizer: A `keras_hub.tokenizers.Tokenizer`.

        Raises:
            UserError: It has no start, end or padding token.
        """
        names = ("start_token_id", "end_token_id", "pad_token_id")
        start_id, end_id, pad_id = (getattr(tokenizer, name, None) for name in names)
        if start_id is None or end_id is None or pad_id is None:
            raise UserError(
                f"{type(tokenizer).__name__} has no start, end or padding token, so its model is "
                "no text encoder. Choose one of the BERT, RoBERTa, ALBERT or DeBERTa families."
            )
        import keras_hub

        doubled = (keras_hub.tokenizers.RobertaTokenizer, keras_hub.tokenizers.XLMRobertaTokenizer)
        super().__init__(
            pad_id=pad_id,
            start_id=start_id,
            end_id=end_id,
            separator_ids=[end_id] * (2 if isinstance(tokenizer, doubled) else 1),
        )
        self._tokenizer = tokenizer
        self._special_ids = sorted(tokenizer.special_token_ids)
        # Called eagerly, KerasHub runs its Python tokenizer, which returns lists.
        self._tokenize = tf.function(
            tokenizer.tokenize, input_signature=[tf.TensorSpec([None], tf.string)]
        )

    def fingerprint(self) -> str:
        """Returns a hash of the tokenizer's class, settings and vocabulary files."""
        settings = json.dumps(self._tokenizer.get_config(), sort_keys=True, default=str)
        with tempfile.TemporaryDirectory() as folder:
            self._tokenizer.save_assets(folder)
            return hash_parts([type(self._tokenizer).__name__, settings, hash_folder(folder)])

    def tokenize(self, segments: Sequence[tf.Tensor]) -> list[tf.RaggedTensor]:
        """Cuts each string [batch] into int32 [batch, (tokens)]."""
        return [self._without_special(self._tokenize(segment)) for segment in segments]

    def _without_special(self, tokens: tf.RaggedTensor) -> tf.RaggedTensor:
        is_special = tf.equal(tokens.values[:, tf.newaxis], self._special_ids)
        kept = tf.logical_not(tf.reduce_any(is_special, axis=1))
        return tf.ragged.boolean_mask(tokens, tokens.with_values(kept))


def _row_format(where: str, pack: Any) -> dict[str, Any]:
    """Finds the arguments of a `TokenPreprocessor` by packing the pair of tokens 7 and 8."""
    pair = [tf.ragged.constant([[token]], tf.int32) for token in (7, 8)]
    try:
        packed = pack(pair, seq_length=7)
        # DistilBERT's has no types.
        packed.setdefault("input_type_ids", tf.zeros_like(packed["input_mask"]))
        ids, mask, types = (
            packed[name].numpy()[0].tolist()
            for name in ("input_word_ids", "input_mask", "input_type_ids")
        )
    except (ValueError, TypeError, KeyError, AttributeError, tf.errors.OpError) as error:
        raise UserError(f"{where}: `bert_pack_inputs` cannot pack a pair: {error}") from error
    start_id, end_id, pad_id = ids[0], ids[2], ids[-1]
    for separators, second_type_id in itertools.product((1, 2), (1, 0)):
        first, second, padding = 2 + separators, 2, 3 - separators
        expected = (
            [start_id, 7, *[end_id] * separators, 8, end_id, *[pad_id] * padding],
            [1] * (first + second) + [0] * padding,
            [0] * first + [second_type_id] * second + [0] * padding,
        )
        if (ids, mask, types) == expected:
            return {
                "start_id": start_id,
                "end_id": end_id,
                "pad_id": pad_id,
                "separator_ids": [end_id] * separators,
                "second_type_id": second_type_id,
            }
    raise UserError(
        f"{where}: `bert_pack_inputs` packs the tokens 7 and 8 into {ids}, not into "
        "[start, 7, end, 8, end, padding], nor with a second end between them, as RoBERTa does; "
        "such a format is not supported."
    )
