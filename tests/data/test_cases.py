"""Files that people reported, where the checkout has them: each is read right or asked about."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tf_finetune.classification.config import Config
from tf_finetune.data.labelled import load_data
from tf_finetune.errors import UserError
from tf_finetune.runs.flags import parse_flags

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
GOOD_BAD = ("single_label", ("bad", "good"))
RIGHT: list[tuple[str, Sequence[str], tuple[str, tuple[str, ...]], int, str]] = [
    ("01", ["train.jsonl"], ("multi_label", ("0", "1", "2")), 6, "--label_names"),
    ("02", ["train.csv"], ("multi_label", ("anger", "joy", "love", "sad")), 6, "read as lists"),
    ("08", ["intents.csv"], ("regression", ()), 330, "--problem_type=single_label"),
    (
        "09",
        ["train.csv", "--validation_file={}/dev.csv"],
        ("single_label", ("0", "1")),
        6,
        "as '0'",
    ),
    ("09", ["train.csv", "--label_names=no,yes"], ("single_label", ("no", "yes")), 6, ""),
    ("10", ["na.csv"], ("single_label", ("0", "1", "N/A")), 7, "--ignore_labels=N/A"),
    ("10", ["na.csv", "--ignore_labels=N/A"], ("single_label", ("0", "1")), 6, "left out"),
    (
        "11",
        ["train.csv", "--header=none", "--text_columns=2,3", "--label_column=1"],
        ("single_label", ("1", "2", "3", "4")),
        12,
        "",
    ),
    (
        "11",
        ["train.csv", "--text_columns=Title 0", "--label_column=1"],
        ("single_label", ("1", "2", "3", "4")),
        11,
        "--header=none",
    ),
    ("12", ["semicolon.csv"], GOOD_BAD, 6, "--field_separator=semicolon"),
    ("13", ["array.json"], GOOD_BAD, 6, ""),
    ("14", ["train.csv", "--test_file={}/new.csv"], GOOD_BAD, 6, "not learnt, such as '?'"),
    ("15", ["train.parquet"], ("single_label", ("negative", "positive")), 6, ""),
    (
        "16",
        ["train.csv", "--text_columns=comment_text", "--label_columns=toxic,obscene,threat"],
        ("multi_label", ("toxic", "obscene", "threat")),
        6,
        "",
    ),
    ("17", ["train"], ("single_label", ("neg", "pos")), 6, ""),
    ("17", ["train/*/*.txt"], ("single_label", ("neg", "pos")), 6, ""),
    ("18", ["train.csv"], GOOD_BAD, 6, "blanks around column names"),
    ("19", ["quotes.tsv"], GOOD_BAD, 4, "--quoting=minimal"),
    ("25", ["train.jsonl"], GOOD_BAD, 6, "1 row of train without a label left out"),
    ("27", ["train.tsv"], GOOD_BAD, 6, "carriage return"),
    ("30", ["train.jsonl"], ("multi_label", ("Food, drinks", "Travel")), 4, ""),
]


def folder(number: str) -> Path:
    found = list(CASES.glob(f"{number}-*"))
    if not found:
        pytest.skip(f"no reported files at {CASES}")
    return found[0]


@pytest.mark.parametrize(("number", "flags", "problem", "rows", "said"), RIGHT)
def test_reported_files_are_read(
    number: str,
    flags: Sequence[str],
    problem: tuple[str, tuple[str, ...]],
    rows: int,
    said: str,
) -> None:
    path = folder(number)
    argv = ["", f"--train_file={path}/{flags[0]}", *(flag.format(path) for flag in flags[1:])]
    config, _ = parse_flags(Config, argv) or (Config(), ())
    data = load_data(config.data, config.labels)
    assert (data.problem.problem_type, data.problem.label_names) == problem
    assert data.train and len(data.train) == rows
    assert any(said in notice for notice in data.notices) if said else not data.notices


def test_texts_of_a_quoted_file() -> None:
    path = folder("19")
    config, _ = parse_flags(Config, ["", f"--train_file={path}/quotes.tsv"]) or (Config(), ())
    train = load_data(config.data, config.labels).train
    assert train and train.texts[0] == ['he said "great"', "plain", '"so-called" plot', "ok"]


@pytest.mark.parametrize(
    ("number", "flags", "said"),
    [
        ("11", ["train.csv"], "--header=none"),
        ("16", ["train.csv", "--text_columns=comment_text"], "--label_columns"),
    ],
)
def test_reported_files_that_need_a_flag_name_it(
    number: str, flags: Sequence[str], said: str
) -> None:
    path = folder(number)
    argv = ["", f"--train_file={path}/{flags[0]}", *flags[1:]]
    config, _ = parse_flags(Config, argv) or (Config(), ())
    with pytest.raises(UserError) as caught:
        load_data(config.data, config.labels)
    assert said in str(caught.value)
