"""The examples of a language model's run: found, read, checked, divided into splits."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tf_finetune.data.chat_config import ChatDataConfig
from tf_finetune.data.conversations import Example, prompt_text
from tf_finetune.data.dialogue_forms import Form, Method
from tf_finetune.data.dialogue_reader import DialogueReader, Found, find_reader
from tf_finetune.data.file_format import FileFormat, find_format, with_like_quoting
from tf_finetune.data.held_out import held_out_rows
from tf_finetune.data.keys import FIRST_ROWS
from tf_finetune.data.row_stream import RowStream, is_streamed, open_stream
from tf_finetune.data.splits import (
    SPLITS,
    USUAL_FILES,
    Table,
    file_notices,
    file_tables,
    find_split_files,
    max_samples,
    passed_over,
)
from tf_finetune.data.wording import rows_text
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig


@dataclass(frozen=True)
class DialogueData:
    """All examples of a run; a missing split is None.

    Attributes:
        train: The training examples; with `stream`, a sample of them.
        validation: The examples to evaluate on during training.
        test: The examples to evaluate on and to predict at the end; some may have no answer.
        read: Turns further rows of the training files into examples; None: there are none.
        stream: All training rows, if they are not kept in memory.
        held_out: The splits that were held out of the training rows, all of their examples.
        forms: The names of the forms of each split's files.
        found: Settings that were found in the data, by which later calls read other files.
        notices: What was guessed of the files, why, and the flag that overrules it.
    """

    train: Sequence[Example] | None
    validation: Sequence[Example] | None
    test: Sequence[Example] | None
    read: DialogueReader | None = None
    stream: RowStream | None = None
    held_out: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    forms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    found: Mapping[str, str] = field(default_factory=dict)
    notices: Sequence[str] = ()

    @property
    def splits(self) -> dict[str, Sequence[Example]]:
        """The splits that exist, by name."""
        found = {split: getattr(self, split) for split in SPLITS}
        return {split: examples for split, examples in found.items() if examples is not None}


def load_dialogues(
    config: DataConfig,
    chat: ChatDataConfig = ChatDataConfig(),
    method: Method = "sft",
    *,
    is_trained: bool = False,
    needs_all_rows: Mapping[str, Any] | None = None,
) -> DialogueData:
    """Reads and checks all examples of a run, then keeps the first `max_samples` of each split.

    Args:
        config: Where the rows are.
        chat: The settings of columns and of the system prompt.
        method: What learns from them: `sft` from one answer, `dpo` from a better and a worse one.
        is_trained: Whether the model is trained already: its files may all lack answers, and
            training rows are read only where others are held out of them.
        needs_all_rows: See `is_streamed`.

    Raises:
        UserError: Something is missing, damaged or contradictory; the message says where.
    """
    if config.tfds_name:
        raise UserError(
            f"--tfds_name={config.tfds_name}: data sets of TensorFlow are read for classifiers "
            "only. Write the examples as .jsonl, a line such as "
            '{"prompt": "...", "completion": "..."} each, and give --train_file.'
        )
    holds_out = bool(config.validation_fraction or config.test_fraction)
    splits = SPLITS if holds_out or not is_trained else SPLITS[1:]
    files = with_like_quoting(
        {
            split: [find_format(path, config) for path in paths]
            for split, paths in find_split_files(config, USUAL_FILES, splits).items()
        },
        config,
    )
    if "train" in splits and "train" not in files:
        raise UserError(
            "There are no training data. Give --train_file, or --data_dir with a file train.jsonl "
            "in it."
        )
    of_files = file_notices([file for found in files.values() for file in found])
    stream = None
    if not is_trained and is_streamed(config, files.get("train"), needs_all_rows or {}):
        stream = open_stream(files["train"])
    reading = _Reading(config, chat, method, "validation" if is_trained else "test", holds_out)
    try:
        examples = {
            split: reading.split(
                split,
                found,
                [partial(iter, stream.sample)] if stream and split == "train" else None,
            )
            for split, found in files.items()
        }
    except UserError as error:
        # A wrong guess at the file's format makes keys that are not there.
        raise UserError(" ".join([str(error), *of_files])) from None
    _check_ids_are_there(config, examples, is_trained or holds_out)
    notices = [*of_files, *passed_over(config, USUAL_FILES, files), *reading.notices()]
    held_out: dict[str, list[Example]] = {}
    if holds_out:
        held_out, said = _hold_out(examples, config)
        examples |= held_out
        notices.append(said)
        if is_trained:
            del examples["train"]
    kept = {split: found[: max_samples(config, split)] for split, found in examples.items()}
    notices += _answer_notices(kept)
    is_quoted = any(file.shows_quoting for some in files.values() for file in some)
    return DialogueData(
        train=kept.get("train"),
        validation=kept.get("validation"),
        test=kept.get("test"),
        read=reading.train,
        stream=stream,
        held_out=held_out,
        forms={split: tuple(names) for split, names in reading.forms.items()},
        found={**({"quoting": "minimal"} if is_quoted else {}), **reading.found},
        notices=notices,
    )


@dataclass
class _Reading:
    """Reads the files of a run one after the other; a later one may show less than an earlier."""

    config: DataConfig
    chat: ChatDataConfig
    method: Method
    first_predicted: str
    holds_out: bool
    train: DialogueReader | None = None
    columns: Form | None = None
    forms: dict[str, list[str]] = field(default_factory=dict)
    found: dict[str, str] = field(default_factory=dict)
    told: list[FileFormat] = field(default_factory=list)

    def split(
        self, split: str, files: Sequence[FileFormat], sample: Sequence[Table] | None
    ) -> list[Example]:
        """Reads all rows of a split, or a sample of them."""
        examples: list[Example] = []
        for file, table in zip(files, sample or file_tables(files), strict=sample is None):
            rows = table()
            first = list(itertools.islice(rows, FIRST_ROWS))
            reader = self._open(split, file, first)
            examples += map(reader.read, itertools.chain(first, rows))
        return examples

    def notices(self) -> list[str]:
        """Returns what was found in the files."""
        return file_notices(self.told)

    def _open(self, split: str, file: FileFormat, first: Sequence[Any]) -> DialogueReader:
        is_predicted = SPLITS.index(split) >= SPLITS.index(self.first_predicted)
        # Of a model that learnt from preferences plain prompts are predicted, too.
        found: Found = find_reader(
            first,
            self.chat,
            {self.method, "sft"} if is_predicted else {self.method},
            self.columns,
            id_column=self.config.id_column,
            is_predicted=is_predicted,
        )
        form = found.reader.form
        if found.guessed and self.columns is None:
            self.columns = form
            self.found = dict(zip(("prompt_column", "completion_column"), form.keys, strict=True))
        names = self.forms.setdefault(split, [])
        names += [form.name] if form.name not in names else []
        if split == "train":
            self.train = self.train or found.reader
        # Texts in files of their own come with the names of these.
        is_texts = file.kind in ("folder", "text")
        self.told.append(dataclasses.replace(file, notices=() if is_texts else found.notices))
        return found.reader


def _hold_out(
    examples: Mapping[str, Sequence[Example]], config: DataConfig
) -> tuple[dict[str, list[Example]], str]:
    """Divides the training rows as `validation_fraction` and `test_fraction` say."""
    train = examples["train"]
    for split in ("validation", "test"):
        if (share := getattr(config, f"{split}_fraction")) and split in examples:
            raise UserError(
                f"--{split}_fraction={share}: there are {split} examples already "
                f"({examples[split][0].location}). Leave one of them out."
            )
    prompts = list(map(prompt_text, train))
    shares = config.validation_fraction, config.test_fraction
    rows = held_out_rows([prompts], [""] * len(train), *shares)
    for split, found in rows.items():
        if not found:
            raise UserError(
                f"--{split}_fraction: none of the {len(train)} rows falls into {split}. Choose "
                "another share, or give more rows."
            )
    counts = ", ".join(f"{len(found):,} for {split}" for split, found in rows.items())
    notice = (
        f"The training rows are divided by a hash of their prompt: {counts}. Rows of one prompt "
        "stay together, and rows that are added at the end move none; split.tsv in the model "
        "directory lists what was held out."
    )
    return {split: [train[row] for row in found] for split, found in rows.items()}, notice


def _check_ids_are_there(
    config: DataConfig, examples: Mapping[str, Sequence[Example]], may_lack: bool
) -> None:
    ids = (example.id for found in examples.values() for example in found)
    if config.id_column and not may_lack and all(value is None for value in ids):
        raise UserError(f"--id_column={config.id_column}: no file has such a column.")


def _answer_notices(examples: Mapping[str, Sequence[Example]]) -> list[str]:
    """Tells which rows have no answer."""
    notices = []
    for split, found in examples.items():
        open_rows = [example.location for example in found if not example.has_answer]
        if open_rows:
            notices.append(
                f"{rows_text(len(open_rows))} of {split} without an answer (first {open_rows[0]}): "
                "predicted, and left out of the scores."
            )
    return notices
