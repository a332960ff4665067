"""How rows are made of texts and special tokens, from a tokenizer.json's post-processor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.text.tokenizer_json import REMEDY, flat

# Beside each special token's id or text's name stands its type id.
_Row = list[tuple[int | str, int]]


@dataclass(frozen=True)
class RowFormat:
    """Rows of the form `<start> a <end>`, or `<start> a <separator> b <end>`.

    Attributes:
        pad_id: Pads rows.
        start_id: Opens a row.
        end_id: Closes a row.
        separator_ids: Stand between two segments.
        second_type_id: The type id of the second segment and its end: 0 or 1.
    """

    pad_id: int
    start_id: int
    end_id: int
    separator_ids: tuple[int, ...]
    second_type_id: int = 1

    @property
    def special_ids(self) -> set[int]:
        """The ids of all special tokens that rows have."""
        return {self.pad_id, self.start_id, self.end_id, *self.separator_ids}


def default_row_format(tokens: Sequence[str], pad: str | None = None) -> RowFormat:
    """Returns BERT's format, or RoBERTa's for a vocabulary with `<s>` and without `[CLS]`.

    Args:
        tokens: The token of each id; of two alike, the later counts.
        pad: The token that pads; None: `[PAD]` or `<pad>`.

    Raises:
        UserError: A special token is missing.
    """
    ids = {token: index for index, token in enumerate(tokens)}
    is_bert = "[CLS]" in ids or "<s>" not in ids
    start, end = ("[CLS]", "[SEP]") if is_bert else ("<s>", "</s>")
    needed = [pad or _padding(ids, "[PAD]" if is_bert else "<pad>"), start, end]
    missing = [token for token in needed if token not in ids]
    if missing:
        raise UserError(
            f"the vocabulary of {len(tokens)} tokens has no {' and no '.join(missing)}; rows are "
            f"made with {', '.join(needed)}"
        )
    pad_id, start_id, end_id = (ids[token] for token in needed)
    separator_ids = (end_id,) if is_bert else (end_id, end_id)
    return RowFormat(pad_id, start_id, end_id, separator_ids, int(is_bert))


def read_row_format(processor: Any, tokens: Sequence[str], pad: str | None = None) -> RowFormat:
    """Reads the section `post_processor` of a tokenizer.json.

    Args:
        processor: The section.
        tokens: The token of each id.
        pad: The token that pads; None: `[PAD]` or `<pad>`.

    Returns:
        The format; without a post-processor, `default_row_format`.

    Raises:
        UserError: Rows are of another form, or a special token is missing.
    """
    parts = [part for part in flat(processor, "processors") if part["type"] != "ByteLevel"]
    if not parts:
        return default_row_format(tokens, pad)
    ids = {token: index for index, token in enumerate(tokens)}
    pad = pad or _padding(ids, "<pad>")
    if pad not in ids:
        raise UserError(f"no padding token {pad!r}; name it as pad_token in tokenizer_config.json")
    try:
        single, pair = _rows(parts)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise UserError(f"a damaged post_processor: {type(error).__name__}: {error}") from error
    row = _format(single, pair, ids[pad])
    if not row.special_ids <= {*range(len(tokens))}:
        raise UserError(
            f"a post_processor with the ids {sorted(row.special_ids)}, but {len(tokens)} tokens"
        )
    return row


def template_processing(row: RowFormat, tokens: Sequence[str]) -> dict[str, Any]:
    """Writes the section `post_processor` of a tokenizer.json.

    Args:
        row: How rows are made.
        tokens: The token of each id.

    Returns:
        The section.
    """

    def special(id_: int, type_id: int = 0) -> dict[str, Any]:
        return {"SpecialToken": {"id": tokens[id_], "type_id": type_id}}

    def text(name: str, type_id: int = 0) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    first = [special(row.start_id), text("A")]
    second = [text("B", row.second_type_id), special(row.end_id, row.second_type_id)]
    used = sorted(row.special_ids - {row.pad_id})
    return {
        "type": "TemplateProcessing",
        "single": [*first, special(row.end_id)],
        "pair": [*first, *map(special, row.separator_ids), *second],
        "special_tokens": {
            tokens[id_]: {"id": tokens[id_], "ids": [id_], "tokens": [tokens[id_]]} for id_ in used
        },
    }


def _padding(ids: Mapping[str, int], default: str) -> str:
    return next((token for token in ("[PAD]", "<pad>") if token in ids), default)


def _rows(parts: list[Mapping[str, Any]]) -> tuple[_Row, _Row]:
    """Returns the rows of one text and of two."""
    kinds = [part["type"] for part in parts]
    part = parts[0]
    if kinds == ["TemplateProcessing"]:
        ids = {name: token["ids"] for name, token in part["special_tokens"].items()}
        return _template(part["single"], ids), _template(part["pair"], ids)
    if kinds not in (["BertProcessing"], ["RobertaProcessing"]):
        raise UserError(
            f"post_processor {', '.join(map(repr, kinds))}; only one of BertProcessing, "
            f"RobertaProcessing and TemplateProcessing can be read. {REMEDY}"
        )
    start, end, is_bert = part["cls"][1], part["sep"][1], kinds == ["BertProcessing"]
    single = [(start, 0), ("A", 0), (end, 0)]
    second = [("B", 1), (end, 1)] if is_bert else [(end, 0), ("B", 0), (end, 0)]
    return single, [*single, *second]


def _template(items: list[Any], ids: Mapping[str, list[int]]) -> _Row:
    row: _Row = []
    for item in items:
        ((kind, value),) = item.items()
        found = ids[value["id"]] if kind == "SpecialToken" else [value["id"]]
        row += [(each, value["type_id"]) for each in found]
    return row


def _format(single: _Row, pair: _Row, pad_id: int) -> RowFormat:
    names = [name for name, _ in pair]
    if len(single) == 3 and single[1] == ("A", 0) and len(pair) >= 5 and "B" in names:
        second = names.index("B")
        start_id, end_id, type_id = single[0][0], single[2][0], pair[second][1]
        between = names[2:second]
        expected = [(start_id, 0), ("A", 0), *((id_, 0) for id_ in between)]
        expected += [("B", type_id), (end_id, type_id)]
        integers = [id_ for id_ in (start_id, end_id, *between) if isinstance(id_, int)]
        if pair == expected and type_id in (0, 1) and len(integers) == 2 + len(between):
            start, end, *separators = integers
            return RowFormat(pad_id, start, end, tuple(separators), type_id)
    raise UserError(
        f"a post_processor that makes rows as {single} and {pair}, ids and texts with their type "
        "ids; only one special token before a text and one after it, and any between two texts, "
        f"can be read. {REMEDY}"
    )
