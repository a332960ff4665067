"""A request without training is completed by the record of its model, setting by setting."""

from pathlib import Path

import numpy as np
import pytest

from tf_finetune.classification.config import Config
from tf_finetune.classification.prepare import Request, prepare
from tf_finetune.classification.record import save_run, split_record
from tf_finetune.errors import UserError
from tf_finetune.runs.flags import parse_flags
from tf_finetune.runs.model_dir import ModelDir


def request(*flags: str) -> Request:
    config, given = parse_flags(Config, ["", *flags]) or (Config(), frozenset())
    return prepare(config, given)


def trained(folder: Path, *flags: str) -> str:
    """Makes the record of a training and returns the flag that names it."""
    model_dir = f"--model_dir={folder}/out"
    made = request(model_dir, "--do_train", "--encoder=x", *flags)
    save_run(ModelDir(f"{folder}/out"), made.config, made.data.problem, split_record(made.data))
    return model_dir


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)


def test_labels_of_later_files_are_read_as_those_of_the_training(tmp_path: Path) -> None:
    train = write(tmp_path / "a.tsv", "text\tlabel", "a\tx;y", "b\ty", "c\tx")
    model = trained(tmp_path, f"--train_file={train}", "--problem_type=multi_label")
    assert "label_separator=;" in (tmp_path / "out" / "train.cfg").read_text()
    other = write(tmp_path / "b.tsv", "text\tlabel", "a\tx;y", "b\ty;zzz", "c\tx;zz")
    test = request(model, f"--test_file={other}", "--do_predict").data.test
    assert test and test.labels is not None
    assert test.labels[0].tolist() == [1, 1] and np.isnan(test.labels[1:]).all()


def test_vectors_that_alone_could_be_class_numbers(tmp_path: Path) -> None:
    train = write(
        tmp_path / "a.jsonl",
        *(f'{{"text": "{n}", "label": {v}}}' for n, v in enumerate(["[0, 1]", "[1, 1]", "[1, 0]"])),
    )
    model = trained(tmp_path, f"--train_file={train}")
    other = write(tmp_path / "b.jsonl", '{"text": "a", "label": [0, 1]}')
    test = request(model, f"--test_file={other}", "--do_predict").data.test
    assert test and test.labels is not None and test.labels.tolist() == [[0, 1]]


def test_a_later_call_may_name_ids_and_finds_the_rows_that_were_held_out(tmp_path: Path) -> None:
    rows = (f"{n},text {n},{'xy'[n % 2]}" for n in range(60))
    train = write(tmp_path / "a.csv", "id,text,label", *rows)
    model = trained(tmp_path, f"--train_file={train}", "--test_fraction=0.2")
    listed = (tmp_path / "out" / "split.tsv").read_text().splitlines()
    assert listed[0] == "split\tlocation\tid"
    test = request(model, "--do_predict", "--id_column=id").data.test
    assert test and [line.split("\t")[1] for line in listed[1:]] == test.locations
    assert [f"text {value}" for value in test.ids] == list(test.texts[0])
    with (tmp_path / "a.csv").open("a") as file:
        file.write("99,more,new class\n")
    again = request(model, "--do_predict").data.test
    assert again and again.locations == test.locations


def test_a_file_without_a_header_is_read_as_the_training_was(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", "x,good film", "y,bad film", "x,fine film")
    flags = ("--header=none", "--text_columns=2", "--label_column=1")
    model = trained(tmp_path, f"--train_file={train}", *flags)
    other = write(tmp_path / "b.csv", "y,no film")
    test = request(model, f"--test_file={other}", "--do_predict").data.test
    assert test and test.texts == (["no film"],)
    named = write(tmp_path / "c.csv", "text,label", "no film,y")
    new = ("--header=first_row", "--text_columns=text", "--label_column=label")
    test = request(model, f"--test_file={named}", "--do_predict", *new).data.test
    assert test and test.texts == (["no film"],)


def test_one_kind_of_label_columns_takes_the_place_of_the_other(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", "text,p,q", "a,0,1", "b,1,1")
    model = trained(tmp_path, f"--train_file={train}", "--label_columns=p,q")
    other = write(tmp_path / "b.csv", "text,labels", "a,q", 'b,"p,q"')
    flags = (f"--test_file={other}", "--label_column=labels", "--label_format=list", "--do_predict")
    test = request(model, *flags).data.test
    assert test and test.labels is not None and test.labels.tolist() == [[0, 1], [1, 1]]
    without = write(tmp_path / "c.csv", "text", "a")
    test = request(model, f"--test_file={without}", "--do_predict").data.test
    assert test and test.labels is None


def test_rows_without_a_label_cannot_be_streamed_away(tmp_path: Path) -> None:
    train = write(tmp_path / "a.tsv", "text\tlabel", "a\tx", "b\ty", "c\tN/A")
    flags = (f"--train_file={train}", "--streaming=true", "--label_names=x,y")
    with pytest.raises(UserError, match="--ignore_labels=N/A needs all rows beforehand"):
        trained(tmp_path, *flags, "--ignore_labels=N/A")
    write(tmp_path / "a.tsv", "text\tlabel", "a\tx", "b\ty", "c\t")
    with pytest.raises(UserError, match=r"a\.tsv:byte 19: the label is missing.*--streaming=false"):
        trained(tmp_path, *flags)
