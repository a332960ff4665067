"""Texts in files of their own, one folder a class."""

from pathlib import Path

import pytest

from tf_finetune.data.file_format import find_format
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import load_data
from tf_finetune.data.paths import find_files
from tf_finetune.data.readers import read_file
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig

TEXTS = {"neg/1.txt": "bad\n", "neg/more/2.TXT": "dull", "pos/1.txt": "güt\r\nand long"}


def make(folder: Path, files: dict[str, str | bytes]) -> str:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(folder)


def test_the_folder_of_a_text_is_its_label(tmp_path: Path) -> None:
    others: dict[str, str | bytes] = {"urls.feat": "x", "neg/.hidden.txt": "x", ".git/a.txt": "x"}
    others |= {"urls_pos.txt": "http://", "pos/notes.md": "x"}
    folder = make(tmp_path / "train", {**TEXTS, **others})
    assert find_files(folder) == [folder]
    [notice] = find_format(folder).notices
    assert "2 of its files are not read" in notice and f"{folder}/pos/notes.md" in notice
    assert list(read_file(folder)) == [
        (f"{folder}/neg/1.txt", {"text": "bad\n", "label": "neg", "file": "neg/1.txt"}),
        (f"{folder}/neg/more/2.TXT", {"text": "dull", "label": "neg", "file": "neg/more/2.TXT"}),
        (f"{folder}/pos/1.txt", {"text": "güt\r\nand long", "label": "pos", "file": "pos/1.txt"}),
    ]


def test_the_classes_of_keras(tmp_path: Path) -> None:
    import keras

    folder = make(tmp_path / "train", {k.replace("TXT", "txt"): v for k, v in TEXTS.items()})
    theirs = keras.utils.text_dataset_from_directory(folder, batch_size=None, shuffle=False)
    data = load_data(DataConfig(train_file=folder), LabelConfig())
    assert list(data.problem.label_names) == theirs.class_names
    expected = [(text.numpy().decode(), int(label)) for text, label in theirs]
    assert data.train
    assert sorted(zip(data.train.texts[0], data.train.labels, strict=True)) == sorted(expected)


def test_folders_by_name_and_by_pattern(tmp_path: Path) -> None:
    make(tmp_path / "train", dict(TEXTS))
    make(tmp_path / "test", dict(TEXTS))
    data = load_data(DataConfig(data_dir=str(tmp_path)), LabelConfig())
    assert data.train and data.test and len(data.train) == len(data.test) == 3
    config = DataConfig(train_file=f"{tmp_path}/train/*/*.txt", id_column="file")
    data = load_data(config, LabelConfig())
    assert data.train and data.train.labels.tolist() == [0, 1]
    assert data.train.ids == ["1.txt", "1.txt"]


def test_texts_may_lie_deeper_and_links_are_not_followed(tmp_path: Path) -> None:
    folder = make(tmp_path / "train", {"pos/a/1.txt": "a", "neg/b/2.txt": "b"})
    (tmp_path / "train" / "pos" / "self").symlink_to(tmp_path / "train" / "pos")
    assert find_files(folder) == [folder]
    assert [row["label"] for _, row in read_file(folder)] == ["neg", "pos"]


def test_texts_without_a_class_are_predicted(tmp_path: Path) -> None:
    train = make(tmp_path / "train", dict(TEXTS))
    new = make(tmp_path / "new", {"b.txt": "b", "a.txt": "a"})
    data = load_data(DataConfig(train_file=train, test_file=new), LabelConfig())
    assert data.test and data.test.texts == (["a", "b"],) and data.test.labels is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"pos/b.txt": b"\xff"}, "pos/b.txt: not UTF-8 at byte 0"),
        ({"pos/b.txt": b"a\0"}, "pos/b.txt: a NUL byte"),
    ],
)
def test_texts_that_cannot_be_used(tmp_path: Path, files: dict, message: str) -> None:
    folder = make(tmp_path / "train", files)
    with pytest.raises(UserError) as caught:
        list(read_file(folder))
    assert message in str(caught.value)


def test_the_unlabelled_part_of_the_reviews_is_told(tmp_path: Path) -> None:
    folder = make(tmp_path / "train", {**TEXTS, "unsup/1.txt": "so"})
    data = load_data(DataConfig(train_file=folder), LabelConfig())
    assert any("'unsup'" in notice and "--ignore_labels=unsup" in notice for notice in data.notices)
    data = load_data(DataConfig(train_file=folder), LabelConfig(ignore_labels=("unsup",)))
    assert data.problem.label_names == ("neg", "pos")


def test_one_text_is_asked_about(tmp_path: Path) -> None:
    make(tmp_path, dict(TEXTS))
    with pytest.raises(UserError, match="is this one text, or one a line"):
        find_files(f"{tmp_path}/neg/1.txt")
