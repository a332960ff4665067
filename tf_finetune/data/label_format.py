"""`LabelFormat`: how the cells of labels are read, found on the training data."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tf_finetune.data.label_cells import (
    PLACEHOLDERS,
    clean,
    distinct,
    has_lists,
    is_list,
    is_nested,
    number,
    parse_list,
)
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.problem import ProblemType
from tf_finetune.errors import UserError

SEPARATORS = (",", ";", "|")
_HOT = {"0": 0, "1": 1, "false": 0, "true": 1}


@dataclass(frozen=True)
class LabelFormat:
    """How the cells of labels are read.

    Attributes:
        separator: The string between the labels of one text cell.
        literal: Whether lists are written as text, such as `['a', 'b']`.
        multi_hot: Whether a list holds a 0 or a 1 for each label.
    """

    separator: str = ","
    literal: bool = False
    multi_hot: bool = False

    def parts(self, value: Any) -> list[str]:
        """Returns the labels of a multi-label cell that is not multi-hot."""
        value = self.as_list(value)
        parts = value if is_list(value) else clean(value).split(self.separator)
        return [name for part in parts if (name := clean(part))]

    def as_list(self, value: Any) -> Any:
        """Returns a list that is written as text as a list, and any other value as it is."""
        if self.literal and isinstance(value, str | bytes):
            found = parse_list(clean(value))
            return value if found is None else found
        return value

    def vector(self, value: Any) -> list[int] | None:
        """Returns the zeros and ones of a multi-hot cell; None if it is none."""
        value = self.as_list(value)
        hot = [_HOT.get(_number_text(part), -1) for part in value] if is_list(value) else [-1]
        return None if -1 in hot else hot


def find_label_format(
    values: Sequence[Any],
    locations: Sequence[str],
    config: LabelConfig,
    problem_type: ProblemType | None,
    names: Sequence[str] = (),
) -> tuple[LabelFormat, list[str]]:
    """Finds out how the cells of labels are read.

    Args:
        values: The labels, without those that are missing.
        locations: Their locations, for messages.
        config: What the user said of labels.
        problem_type: None: to be inferred.
        names: The label names, if they are known.

    Returns:
        The format, and a notice for each guess.

    Raises:
        UserError: The cells can be read in two ways, or in none.
    """
    notices = []
    texts = _texts(values)
    lists = {text: found for text in texts if (found := parse_list(text)) is not None}
    bracketed = [text for text in lists if text.lower() not in PLACEHOLDERS and text not in names]
    if nested := [text for text in bracketed if is_nested(lists[text])]:
        raise UserError(
            f"The label {nested[0]!r:.80} is an object or a list of them. Write what is to be "
            "learnt of it into a column of its own."
        )
    # In (a),(b) the brackets belong to the names, and so they do in (a) elsewhere.
    in_names = any(
        parse_list(part) is not None
        for text in texts
        if text not in lists
        for part in re.split("[,;|]", text)
    )
    if in_names:
        bracketed = []
    wanted = problem_type == "multi_label" or config.label_format == "multi_hot"
    real = [text for text in texts if text.lower() not in PLACEHOLDERS]
    literal = bool(bracketed) and (wanted or (problem_type is None and len(bracketed) == len(real)))
    if literal:
        keeps = "" if wanted else "; --problem_type=single_label keeps them as names"
        notices.append(f"Label cells such as {bracketed[0]!r:.60} are read as lists{keeps}.")
    elif len(bracketed) > len(real) / 2 and problem_type is None:
        notices.append(
            f"Labels such as {bracketed[0]!r:.60} are kept as names, as others stand in no "
            "brackets; --problem_type=multi_label reads them as lists."
        )
    # Other files may have lists as text where these have none.
    literal = literal or (not in_names and (problem_type == "multi_label" or has_lists(values)))
    form = LabelFormat(literal=literal)
    if config.label_columns:
        return LabelFormat(literal=literal, multi_hot=True), notices
    if _is_multi_hot(values, locations, form, config, names):
        if config.label_format == "auto" and not names:
            notices.append(
                "Lists of zeros and ones are read as a 0 or 1 for each label: --label_names names "
                "the labels, --label_format=list reads class numbers."
            )
        return LabelFormat(literal=literal, multi_hot=True), notices
    plain = [text for text in texts if not literal or parse_list(text) is None]
    separator = config.separator
    if separator is None:
        separator, said = _find_separator(plain, problem_type, names)
        notices += said
    return LabelFormat(separator, literal), notices


def _texts(values: Sequence[Any]) -> list[str]:
    """Returns the different texts among the values, cleaned, without the empty one."""
    texts = {clean(value) for value in distinct(values) if isinstance(value, str | bytes)}
    return sorted(texts - {""})


def _number_text(part: Any) -> str:
    text = clean(part).lower()
    return text[:-2] if text.endswith(".0") else text


def _is_multi_hot(
    values: Sequence[Any],
    locations: Sequence[str],
    form: LabelFormat,
    config: LabelConfig,
    names: Sequence[str],
) -> bool:
    """Decides whether lists are vectors of zeros and ones, or hold class numbers or names."""
    if config.label_format != "auto":
        return config.label_format == "multi_hot"
    if not (form.literal or has_lists(values)):
        return False
    places: dict[tuple[Any, ...], int] = {}
    for row, value in enumerate(values):
        if is_list(found := form.as_list(value)):
            places.setdefault(tuple(map(_number_text, found)), row)
    lists = list(places)
    if not any(lists) or any(number(p) is None and p not in _HOT for part in lists for p in part):
        return False  # Names.

    def refuse(row: tuple[Any, ...], why: str) -> UserError:
        where, shown = locations[places[row]], f"[{', '.join(row[:8])}{', ...' * (len(row) > 8)}]"
        return UserError(f"{where}: the label is {shown}, {why}")

    repeats = [part for part in lists if len(set(part)) < len(part)]
    if all(p in _HOT for part in lists for p in part):
        lengths = {len(part) for part in lists}
        if len(lengths) == 1 and min(lengths) > 1:
            if repeats:
                return True
            raise refuse(
                lists[0],
                "which may be a 0 or 1 for each label, or the numbers of the row's classes. Say "
                "which: --label_format=multi_hot or --label_format=list.",
            )
        if repeats:
            raise refuse(
                repeats[0],
                "neither a 0 or 1 for each label, as rows differ in length "
                f"({min(lengths)} to {max(lengths)}), nor class numbers, as they repeat. Correct "
                "the rows, or say which: --label_format=multi_hot or --label_format=list.",
            )
        return False
    for part in lists:
        if any(not float(p).is_integer() for p in part if p not in _HOT):
            raise refuse(
                part,
                "neither class numbers nor a 0 or 1 for each label. Turn shares into 0 and 1 "
                "beforehand, or say that they are names: --label_format=list.",
            )
    return False


def _find_separator(
    texts: Sequence[str], problem_type: ProblemType | None, names: Sequence[str]
) -> tuple[str, list[str]]:
    if names:
        known = {*names, *map(str, range(len(names)))}

        def num_known(mark: str) -> int:
            return sum({part.strip() for part in text.split(mark)} <= known for text in texts)

        return max(SEPARATORS, key=num_known), []
    used = [mark for mark in SEPARATORS if any(mark in text for text in texts)]
    if problem_type == "multi_label":
        if len(used) > 1:
            cells = " or ".join(
                f"{mark!r} (as in {next(t for t in texts if mark in t)!r:.40})" for mark in used
            )
            raise UserError(
                f"The labels of one cell may be separated by {cells}. Say which: --label_separator."
            )
        mark = used[0] if used else SEPARATORS[0]
        if mark != SEPARATORS[0]:
            return mark, [
                f"The labels of one cell are separated by {mark!r}: --label_separator says another."
            ]
        return mark, []
    whole = set(texts)
    for mark in used if problem_type is None else ():
        joined = [t for t in texts if mark in t and {p.strip() for p in t.split(mark)} <= whole]
        if joined:
            return SEPARATORS[0], [
                f"Labels such as {joined[0]!r:.60} are other labels joined by {mark!r}, and learnt "
                f"as labels of their own. If a row may have several: --problem_type=multi_label "
                f"--label_separator='{mark}'."
            ]
    return SEPARATORS[0], []
