"""The tokenizer of a language model: a tokenizer.json, run by the `tokenizers` library."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import tokenizers

from tf_finetune.errors import UserError
from tf_finetune.text.fingerprint import hash_parts
from tf_finetune.text.stand_ins import Span, StandIns


@dataclass(frozen=True)
class Encoding:
    """A text as tokens.

    Attributes:
        ids: The tokens' ids.
        offsets: For each token its characters of the text, end exclusive. Tokens that share a
            character (its bytes) all span it; a space that is put before a word spans its start.
    """

    ids: list[int]
    offsets: list[Span]


@dataclass(frozen=True)
class Tokenizer:
    """Turns text into ids exactly as the checkpoint's own tokenizer, and back.

    No method adds tokens such as BOS: who wants one writes it into the text.

    Attributes:
        json: Content of a tokenizer.json.
    """

    json: str = field(repr=False)

    def encode(self, text: str, special: Sequence[Span] | None = None) -> Encoding:
        """Cuts a text into tokens.

        Args:
            text: Any text.
            special: Spans of `text` that are special tokens, ascending; any other place where one
                is written stays plain text. None: each place is a special token.

        Returns:
            The tokens.

        Raises:
            UserError: The tokenizer is damaged.
            ValueError: There is no special token at a span.
        """
        return self.encode_batch([text], None if special is None else [special])[0]

    def encode_batch(
        self, texts: Sequence[str], specials: Sequence[Sequence[Span]] | None = None
    ) -> list[Encoding]:
        """Cuts many texts into tokens, faster than one by one; see `encode`."""
        texts = [_encodable(text) for text in texts]
        if specials is None:
            encoded = self._plain.encode_batch(texts, add_special_tokens=False)
        else:
            pairs = zip(texts, specials, strict=True)
            hidden = [self.stand_ins.hide_spans(text, spans) for text, spans in pairs]
            encoded = self._twin.encode_batch(hidden, add_special_tokens=False)
        return [Encoding(item.ids, item.offsets) for item in encoded]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Turns ids into text; bytes that are not UTF-8 become U+FFFD."""
        return self._plain.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def token(self, id: int) -> str:
        """Returns the token of an id as the vocabulary writes it; "" for an id without one."""
        return self._plain.id_to_token(id) or ""

    def id_of(self, token: str) -> int | None:
        """Returns the id of a token as the vocabulary writes it; None: there is none."""
        return self._plain.token_to_id(token)

    @cached_property
    def vocab_size(self) -> int:
        """The number of tokens, added ones included."""
        return self._plain.get_vocab_size(with_added_tokens=True)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids of special tokens."""
        return frozenset(token["id"] for token in self._special)

    @cached_property
    def prefix_ids(self) -> tuple[int, ...]:
        """The ids that the checkpoint's tokenizer puts before a text by itself, such as BOS."""
        whole = _run(self._content)
        ids = whole.encode("a").ids
        body = whole.encode("a", add_special_tokens=False).ids
        if ids == body or body not in [ids[at : at + len(body)] for at in range(len(ids))]:
            return ()
        return tuple(ids[: next(at for at in range(len(ids)) if ids[at : at + len(body)] == body)])

    @cached_property
    def stand_ins(self) -> StandIns:
        """Finds and hides special tokens in texts."""
        return StandIns(token["content"] for token in self._special)

    def fingerprint(self) -> str:
        """Returns a cache key that only equal tokenizers share."""
        return hash_parts(["tokenizer.json", self.json])

    @cached_property
    def _content(self) -> dict[str, Any]:
        try:
            content = json.loads(self.json)
        except (ValueError, RecursionError) as error:
            raise UserError(f"the tokenizer.json is no JSON: {error}. {_REMEDY}") from error
        if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
            raise UserError(f"the tokenizer.json holds no object `model`. {_REMEDY}")
        return content | {"truncation": None, "padding": None}

    @cached_property
    def _special(self) -> list[dict[str, Any]]:
        added = self._content.get("added_tokens") or []
        return [token for token in added if token.get("special") and token.get("content")]

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        # A post-processor adds BOS, and may take the spaces out of the offsets.
        return _run(self._content | {"post_processor": None})

    @cached_property
    def _twin(self) -> tokenizers.Tokenizer:
        """The same tokenizer, which knows each special token by its stand-in only.

        What a special token spells is then a text like any other.
        """
        content, hidden = self._content, self.stand_ins
        names = {token["content"] for token in self._special}
        model = dict(content["model"])
        if isinstance(model.get("vocab"), dict):
            model["vocab"] = {hidden[token]: id for token, id in model["vocab"].items()}
        else:  # Unigram: pairs of token and score
            model["vocab"] = [[hidden[token], *rest] for token, *rest in model.get("vocab") or []]
        if model.get("unk_token"):
            model["unk_token"] = hidden[model["unk_token"]]
        if "merges" in model:
            merges = (
                pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]
            )
            # Without those that would spell a special token.
            model["merges"] = [pair for pair in merges if names.isdisjoint([*pair, "".join(pair)])]
        added = [
            token | {"content": hidden[token["content"]]} if token.get("special") else token
            for token in content.get("added_tokens") or []
        ]
        changed = {"model": model, "added_tokens": added, "post_processor": None}
        return _run(content | changed)


_REMEDY = "Copy tokenizer.json from where the model comes from."


def _run(content: dict[str, Any]) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # The library raises nothing more precise.
        raise UserError(
            f"the `tokenizers` library ({tokenizers.__version__}) cannot run the tokenizer.json: "
            f"{error}. {_REMEDY}"
        ) from error


def _encodable(text: str) -> str:
    """Puts U+FFFD in place of half surrogates, which JSON can hold and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
    return text
