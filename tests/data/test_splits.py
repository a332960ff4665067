import gzip
from pathlib import Path

import pytest

from tf_finetune.data.file_format import find_format
from tf_finetune.data.splits import (
    SPLITS,
    file_tables,
    find_split_files,
    max_samples,
    passed_over,
)
from tf_finetune.data.tasks import Layout
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig

KNOWN = Layout().known_files


def test_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("train.csv", "train.tsv", "dev.tsv", "unlabelled.tsv"):
        (tmp_path / name).write_text(f"text\tlabel\n{name}\tx\n")
    files = find_split_files(DataConfig(data_dir=str(tmp_path)), KNOWN)
    tables = {split: file_tables(paths) for split, paths in files.items()}
    first = {split: next(table())[1]["text"] for split, [table] in tables.items()}
    assert first == {"train": "train.tsv", "validation": "dev.tsv"}
    config = DataConfig(data_dir=str(tmp_path), test_file=str(tmp_path / "unlabelled.tsv"))
    assert list(find_split_files(config, KNOWN)) == ["train", "validation", "test"]
    assert list(find_split_files(config, KNOWN, ["test"])) == ["test"]


def test_a_flag_counts_before_the_folder_and_may_name_several_files(tmp_path: Path) -> None:
    for name in ("train.tsv", "a.tsv", "b.tsv"):
        (tmp_path / name).write_text(f"text\tlabel\n{name}\tx\n")
    config = DataConfig(data_dir=str(tmp_path), train_file=f"{tmp_path}/a.tsv,{tmp_path}/b.tsv")
    paths = [f"{tmp_path}/a.tsv", f"{tmp_path}/b.tsv"]
    assert find_split_files(config, KNOWN) == {"train": paths}
    texts = [row["text"] for table in file_tables(paths) for _, row in table()]
    assert texts == ["a.tsv", "b.tsv"]


def test_names_of_a_folder_in_capitals_compressed_and_in_shards(tmp_path: Path) -> None:
    (tmp_path / "Train.CSV").write_text("text,label\na,x\n")
    (tmp_path / "test.csv.gz").write_bytes(gzip.compress(b"text,label\na,x\n"))
    for number in range(2):
        (tmp_path / f"validation-0000{number}-of-00002.jsonl").write_text('{"text": "a"}\n')
    found = find_split_files(DataConfig(data_dir=str(tmp_path)), KNOWN)
    assert {split: [Path(path).name for path in paths] for split, paths in found.items()} == {
        "train": ["Train.CSV"],
        "validation": [f"validation-0000{number}-of-00002.jsonl" for number in range(2)],
        "test": ["test.csv.gz"],
    }


def test_files_of_other_names_are_told(tmp_path: Path) -> None:
    for name in ("train.tsv", "train.csv", "dev.csv", "val.csv"):
        (tmp_path / name).write_text("text\na\n")
    config = DataConfig(data_dir=str(tmp_path))
    files = {
        split: [find_format(path) for path in paths]
        for split, paths in find_split_files(config, KNOWN).items()
    }
    one, other = passed_over(config, KNOWN, files)
    assert one.startswith(f"{tmp_path}/train.tsv: taken for train, and not train.csv beside it")
    assert "dev.csv: taken for validation, and not val.csv" in other
    named = DataConfig(data_dir=str(tmp_path), train_file="a.csv", validation_file="b.csv")
    assert passed_over(named, KNOWN, files) == []


def test_copies_and_broken_sets_are_not_joined(tmp_path: Path) -> None:
    content = "text,label\na,x\n"
    (tmp_path / "train.csv").write_text(content)
    (tmp_path / "train.csv.gz").write_bytes(gzip.compress(content.encode()))
    (tmp_path / "Train.csv").write_text(content)
    (tmp_path / "train-00000-of-00001.csv").write_text(content)
    config = DataConfig(data_dir=str(tmp_path))
    found = find_split_files(config, KNOWN)
    assert len(found["train"]) == 1
    [notice] = passed_over(config, KNOWN, {"train": [find_format(found["train"][0])]})
    assert "train.csv.gz" in notice and "train-*-of-00001.csv" in notice
    (tmp_path / "test-00000-of-00002.csv").write_text(content)
    with pytest.raises(UserError, match=r"test-\*-of-00002.csv: 1 of 2 shards are there"):
        find_split_files(config, KNOWN)


def test_unknown_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--data_dir=.*none: no such folder"):
        find_split_files(DataConfig(data_dir=str(tmp_path / "none")), KNOWN)


def test_a_table_is_read_from_its_first_row_each_time(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("1\tx\nbroken\n2\ty\n")
    file = find_format(f"{tmp_path}/a.tsv", columns=("text", "label"), skip_ragged=True)
    [table] = file_tables([file])
    assert [row["text"] for _, row in table()] == [row["text"] for _, row in table()] == ["1", "2"]


def test_every_split_has_its_limit() -> None:
    config = DataConfig(max_train_samples=1, max_eval_samples=2, max_predict_samples=3)
    assert [max_samples(config, split) for split in SPLITS] == [1, 2, 3]
    assert [max_samples(DataConfig(), split) for split in SPLITS] == [None] * 3
