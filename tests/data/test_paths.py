from pathlib import Path

import pytest

from tf_finetune.data.paths import find_files
from tf_finetune.data.readers import read_file
from tf_finetune.errors import UserError


def test_several_files_and_globs(tmp_path: Path) -> None:
    for name in ("b1.tsv", "b2.tsv", "a.tsv", "with,comma.tsv", "odd[1].tsv"):
        (tmp_path / name).write_text(f"text\n{name}\n")
    folder = str(tmp_path)
    assert find_files(f"{folder}/b2.tsv, {folder}/b*.tsv,{folder}/a.tsv") == [
        f"{folder}/b2.tsv",
        f"{folder}/b1.tsv",
        f"{folder}/a.tsv",
    ]
    for name in ("with,comma.tsv", "odd[1].tsv"):
        assert find_files(f"{folder}/{name}") == [f"{folder}/{name}"]
    paths = find_files(f"{folder}/b*.tsv")
    rows = [row["text"] for path in paths for _, row in read_file(path)]
    assert rows == ["b1.tsv", "b2.tsv"]
    assert find_files("") == []


def complaint(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        find_files(str(path))
    return str(caught.value)


def test_missing_file_suggests_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").touch()
    message = complaint(tmp_path / "trian.tsv")
    assert "no such file" in message and "Did you mean train.tsv?" in message
    assert "folder" in complaint(tmp_path / "none" / "train.tsv")
    assert "this is a folder" in complaint(tmp_path)
    assert "no file matches" in complaint(tmp_path / "*.csv")
