"""What is in a file and what is wrong with it, and an example as a model learns it."""

import collections
import itertools
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter

from tf_finetune.data.chat_config import ChatDataConfig
from tf_finetune.data.conversations import Example
from tf_finetune.data.dialogue_facts import dialogue_facts, token_facts
from tf_finetune.data.dialogue_reader import find_reader
from tf_finetune.data.dialogue_report import dialogue_sentences
from tf_finetune.data.dialogues import DialogueData
from tf_finetune.data.facts import describe
from tf_finetune.data.file_format import find_format
from tf_finetune.data.keys import FIRST_ROWS
from tf_finetune.data.labelled import ExampleReader, Examples, TextData
from tf_finetune.data.problem import DEFAULT_METRICS, Problem
from tf_finetune.data.readers import Row, read_file
from tf_finetune.data.report import data_sentences
from tf_finetune.data.tasks import Layout
from tf_finetune.errors import UserError
from tf_finetune.formats.language_models import read_language_model
from tf_finetune.generation.config import Config as GeneratorConfig
from tf_finetune.generation.dialogue_format import DialogueFormat
from tf_finetune.generation.shown import alternatives, shown_rows
from tf_finetune.server.failures import ApiError, not_found
from tf_finetune.server.files import Files
from tf_finetune.server.models import Models, ServedModel
from tf_finetune.server.uploads import PREFIX
from tf_finetune.server.validation import MIN_EXAMPLES, labelled_row
from tf_finetune.text.answers import Row as TokenRow
from tf_finetune.text.answers import tokenize, truncate, truncate_pair
from tf_finetune.text.chat import chat_format

# So many rows are read: a report is asked for while other requests wait.
MOST_ROWS = 10_000
# So many of them are written by the template and cut into tokens, which takes the longest.
_MOST_TOKENIZED = 1000
_MOST_ERRORS = 20
_LINE = re.compile(r"line (\d+): (.*)", re.DOTALL)
_METHODS = {"sft": "supervised", "dpo": "dpo"}


def make_router(files: Files, models: Models) -> APIRouter:
    """Makes the endpoint of reports, which OpenAI's API does not have.

    Args:
        files: What is reported on.
        models: What would learn from it.
    """
    router = APIRouter(prefix="/files", tags=["files"])

    @router.get("/{file_id}/report")
    def report(file_id: str, model: str) -> dict[str, Any]:
        row, found = files.find(file_id), models.resolve(model)
        if row["purpose"] != "fine-tune":
            raise ApiError(
                400, f"{file_id} is of the purpose {row['purpose']}, not fine-tune.", "file_id"
            )
        try:
            told = _report(files.path(file_id), found)
        except FileNotFoundError:  # Deleted just now.
            raise not_found("File object", file_id, "file_id") from None
        except UserError as error:
            raise ApiError(400, str(error), "model", "invalid_value") from None
        return {"object": "file.report", "file_id": file_id, "model": model, **told}

    return router


@dataclass
class _Reading:
    """What the rows of a file have given.

    Attributes:
        count: The rows that were read.
        read: What was made of those that can be used.
        errors: What is wrong with the first others, `line` (None: no single one) and `message`.
        num_errors: How many others there are.
        is_whole: Whether no row is left.
    """

    count: int = 0
    read: list[Any] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    num_errors: int = 0
    is_whole: bool = True

    def wrong(self, message: str) -> None:
        self.num_errors += 1
        if len(self.errors) < _MOST_ERRORS:
            found = _LINE.match(message)
            line, text = (int(found[1]), found[2]) if found else (None, message)
            self.errors.append({"line": line, "message": text})


def _report(path: Path, model: ServedModel) -> dict[str, Any]:
    """Describes a file as the training of a model would find it."""
    is_classifier = model.kind == "classifier"
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=PREFIX) as folder:
        own = Path(folder) / "data.jsonl"  # A name of its own: the file may be deleted meanwhile.
        os.link(path, own)
        reading = _Reading()
        rows = _rows(own, reading)
        told = (_labelled if is_classifier else _dialogues)(rows, reading, model)
    if reading.is_whole and 0 < reading.count < MIN_EXAMPLES:
        reading.wrong(
            f"The file has {reading.count} example(s), and a training file must have at least "
            f"{MIN_EXAMPLES}."
        )
    return {
        "kind": model.kind,
        "rows": reading.count,
        "is_whole": reading.is_whole,
        "num_errors": reading.num_errors,
        "errors": sorted(reading.errors, key=_place),
        **dict.fromkeys(("method", "facts", "lengths")),
        **{"findings": [], "examples": []},
        **told,
    }


def _place(error: dict[str, Any]) -> tuple[bool, int]:
    """Returns what errors are sorted by: those of the whole file come last."""
    return error["line"] is None, error["line"] or 0


def _rows(path: Path, reading: _Reading) -> Iterator[Row]:
    """Yields the first rows, up to one that cannot be read; their locations are lines."""
    try:
        for location, values in read_file(find_format(str(path))):
            if reading.count == MOST_ROWS:
                reading.is_whole = False
                return
            reading.count += 1
            yield location.replace(f"{path}:", "line "), values
    except UserError as error:
        if reading.count == MOST_ROWS:  # What comes behind them is not judged.
            reading.is_whole = False
            return
        # A client knows lines, not where the server has its files.
        reading.wrong(str(error).replace(f"{path}:", "line ").replace(str(path), "the file"))


def _read_all(rows: Iterator[Row], reading: _Reading, read: Callable[[Row], Any]) -> None:
    for row in rows:
        try:
            reading.read.append(read(row))
        except UserError as error:
            reading.wrong(str(error))


def _dialogues(rows: Iterator[Row], reading: _Reading, model: ServedModel) -> dict[str, Any]:
    """Describes prompts with answers, as a language model learns them."""
    first = list(itertools.islice(rows, FIRST_ROWS))
    if not first:
        return {}
    try:
        found = find_reader(first, ChatDataConfig(), {"sft", "dpo"})
    except UserError as error:
        reading.wrong(str(error))
        collections.deque(rows, 0)  # They are counted.
        return {}
    _read_all(itertools.chain(first, rows), reading, found.reader.read)
    form = found.reader.form
    told: dict[str, Any] = {"method": _METHODS[form.method]}
    if not reading.read:
        return told
    forms = {"train": (form.name,)}
    facts = dialogue_facts(DialogueData(reading.read, None, None, forms=forms))
    told |= {"facts": facts, "findings": [*dialogue_sentences(facts), *found.notices]}
    longest, chat = GeneratorConfig().data.max_seq_length, _format(model.handle)
    try:
        told["lengths"] = _lengths(reading.read[:_MOST_TOKENIZED], chat, longest)
        told["examples"] = _examples(reading.read[0], chat, longest)
    except UserError as error:  # Of the template, or of answers that are not reached.
        reading.wrong(str(error))
    return told


@lru_cache(maxsize=4)
def _format(handle: str) -> DialogueFormat:
    """Returns how a model writes conversations; its weights are not read."""
    files = read_language_model(handle)
    chat = chat_format(files.tokenizer, files.chat_template, files.tokens, files.stop_ids)
    return DialogueFormat(chat)


def _lengths(examples: Sequence[Example], form: DialogueFormat, longest: int) -> dict[str, Any]:
    """Describes the lengths in tokens; of a preference that of the longer answer's row.

    Raises:
        UserError: The template refuses an example, or many have no answer within `longest`.
    """
    full, learnt, dropped = [], [], []
    for example in examples:
        rows = tokenize(form.chat.tokenizer, [form.example(a) for a in alternatives(example)])
        kept: Sequence[TokenRow | None] | None
        if len(rows) == 1:
            kept = [truncate(rows[0], longest)]
        else:
            kept = truncate_pair(rows[0], rows[1], longest)
        full.append(max(len(row.ids) for row in rows))
        learnt.append(sum(sum(row.trained) for row in kept or () if row))
        dropped.append(not learnt[-1])
    lengths = np.array(full)
    return token_facts(lengths, np.array(learnt), lengths > longest, np.array(dropped), longest)


def _examples(example: Example, form: DialogueFormat, longest: int) -> list[dict[str, Any]]:
    """Returns an example as it is learnt, in stretches; of a preference both answers'."""
    titles = ("chosen", "rejected") if len(alternatives(example)) > 1 else (None,)
    return [
        {
            "location": example.location,
            "title": title,
            "tokens": row.tokens,
            "pieces": [{"text": text, "trained": learnt} for text, learnt in row.pieces if text],
        }
        for title, row in zip(titles, shown_rows(example, form, longest), strict=True)
        if row
    ]


def _labelled(rows: Iterator[Row], reading: _Reading, _: ServedModel) -> dict[str, Any]:
    """Describes prompts with labels, as a classifier learns them."""
    places: list[str] = []

    def read(row: Row) -> tuple[str, str]:
        pair = labelled_row(row)
        places.append(row[0])
        return pair

    _read_all(rows, reading, read)
    told: dict[str, Any] = {"method": "supervised"}
    if not reading.read:
        return told
    prompts, labels = map(list, zip(*reading.read, strict=True))
    counts = collections.Counter(labels)
    if len(counts) < 2:
        reading.wrong("Every row has the same label. An encoder learns to tell labels apart.")
        return told
    names = tuple(sorted(counts))
    index = {name: number for number, name in enumerate(names)}
    examples = Examples((prompts,), np.array([index[label] for label in labels]), places)
    problem = Problem("single_label", ("prompt",), names)
    reader = ExampleReader(Layout(("prompt",), "completion"), problem)
    data = TextData(examples, None, None, reader, DEFAULT_METRICS["single_label"])
    facts = describe(data)
    pieces = [{"text": prompts[0], "trained": False}, {"text": labels[0], "trained": True}]
    example = {"location": places[0], "title": None, "tokens": None, "pieces": pieces}
    return told | {"facts": facts, "findings": data_sentences(facts), "examples": [example]}
