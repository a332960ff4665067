import json
from pathlib import Path

import pytest
import tensorflow as tf

from tf_finetune.data.file_format import find_format
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import load_data
from tf_finetune.data.row_stream import SAMPLE_BLOCKS, is_streamed, open_stream
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def all_rows(stream):
    raw = [row for number in range(len(stream.blocks)) for row in stream.raw_rows(number)]
    return stream.rows(raw)


def test_rows_of_all_blocks_of_all_files(tmp_path):
    paths = [
        write(tmp_path / f"{name}.tsv", "text\tlabel", *(f"a {i}\t{name}{i}" for i in range(9_000)))
        for name in "xy"
    ]
    stream = open_stream(paths)
    assert len(stream.blocks) > 3
    rows = all_rows(stream)
    assert [row["label"] for _, row in rows] == [f"{n}{i}" for n in "xy" for i in range(9_000)]
    assert rows[0] == (f"{paths[0]}:byte 11", {"text": "a 0", "label": "x0"})
    assert stream.num_rows == 18_000


def test_files_without_a_header_and_with_ragged_rows(tmp_path):
    path = write(tmp_path / "a.tsv", "1\tx", "broken", "2\ty")
    columns = ("text", "label")
    stream = open_stream([find_format(path, columns=columns, skip_ragged=True)])
    assert [row for _, row in all_rows(stream)] == [
        {"text": "1", "label": "x"},
        {"text": "2", "label": "y"},
    ]
    with pytest.raises(UserError, match=rf"^{path}:byte 4: "):
        open_stream([find_format(path, columns=columns)])


def test_records_and_lines_give_the_same_rows(tmp_path):
    lines = [{"text": f"n{i}", "label": i} for i in range(50)]
    write(tmp_path / "rows.jsonl", *map(json.dumps, lines))
    with tf.io.TFRecordWriter(str(tmp_path / "rows.tfrecord")) as writer:
        for line in lines:
            text = tf.train.Feature(bytes_list=tf.train.BytesList(value=[line["text"].encode()]))
            label = tf.train.Feature(int64_list=tf.train.Int64List(value=[line["label"]]))
            features = tf.train.Features(feature={"text": text, "label": label})
            writer.write(tf.train.Example(features=features).SerializeToString())
    for kind in ("jsonl", "tfrecord"):
        rows = [row for _, row in all_rows(open_stream([f"{tmp_path}/rows.{kind}"]))]
        texts = [t if isinstance(t := row["text"], str) else t.decode() for row in rows]
        assert texts == [line["text"] for line in lines]
        assert [row["label"] for row in rows] == list(range(50))


def test_blank_rows_are_left_out(tmp_path):
    path = write(tmp_path / "rows.jsonl", '{"text": "a"}', "", "  ", '{"text": "b"}')
    assert [row["text"] for _, row in all_rows(open_stream([path]))] == ["a", "b"]


def test_the_sample_is_of_all_parts_and_of_few_blocks(tmp_path):
    path = write(tmp_path / "rows.tsv", "text\tlabel", *(f"a\t{i:06}" for i in range(400_000)))
    stream = open_stream([path])
    numbers = [int(row["label"]) for _, row in stream.sample]
    assert numbers == sorted(numbers) and 1_000 <= len(numbers) < 400_000 / 2
    assert len(stream.blocks) > 2 * SAMPLE_BLOCKS
    for tenth in range(0, 400_000, 100_000):
        assert any(tenth <= number < tenth + 100_000 for number in numbers)
    assert stream.estimated_rows == pytest.approx(400_000, rel=0.01)
    assert stream.num_rows == 400_000


@pytest.mark.parametrize(("name", "lines"), [("a.tsv", ["text\tlabel"]), ("a.jsonl", ["", " "])])
def test_a_file_without_rows(tmp_path, name, lines):
    path = write(tmp_path / name, *lines)
    with pytest.raises(UserError, match=rf"^{path}: the file has no rows"):
        open_stream([path])


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"train_file": "{}/rows.csv"}, "rows.csv can only be read from its beginning"),
        (
            {"needs_all_rows": {"class_weights": "balanced"}},
            "class_weights=balanced needs all rows beforehand",
        ),
        ({"max_train_samples": 5}, "max_train_samples=5 needs all rows"),
        ({"problem_type": "auto"}, "Give --label_names"),
    ],
)
def test_what_cannot_be_streamed_is_said(tmp_path, more, complaint):
    write(
        tmp_path / "rows.jsonl",
        *(json.dumps({"text": f"t{i}", "label": "xy"[i % 2]}) for i in range(9)),
    )
    write(tmp_path / "rows.csv", "text,label", "a,1")
    path = more.get("train_file", "{}/rows.jsonl").format(tmp_path)
    config = DataConfig(
        streaming="true", train_file=path, max_train_samples=more.get("max_train_samples")
    )
    labels = LabelConfig(problem_type="single_label", label_names=("x", "y"))
    if "problem_type" in more:
        labels = LabelConfig(problem_type=more["problem_type"])
    with pytest.raises(UserError, match=complaint):
        load_data(config, labels, needs_all_rows=more.get("needs_all_rows"))


def test_what_comes_from_no_file_cannot_be_streamed():
    with pytest.raises(UserError, match="--streaming=true: only --train_file can be streamed"):
        is_streamed(DataConfig(streaming="true"), None, {})
    assert not is_streamed(DataConfig(), None, {})


def test_small_files_are_kept_in_memory(tmp_path):
    path = write(
        tmp_path / "rows.jsonl", *(json.dumps({"text": "a", "label": i}) for i in range(10))
    )
    data = load_data(DataConfig(train_file=path), LabelConfig(problem_type="regression"))
    assert data.stream is None


@pytest.mark.parametrize(
    ("config", "needs_all_rows"),
    [({}, {"class_weights": "balanced"}), ({"max_train_samples": 5}, {}), ({}, {})],
)
def test_large_files_are_streamed_unless_all_rows_are_needed(
    tmp_path, monkeypatch, config, needs_all_rows
):
    monkeypatch.setattr("tf_finetune.data.row_stream.STREAM_BYTES", 100)
    lines = (json.dumps({"text": f"t{i}", "label": "xy"[i % 2]}) for i in range(50))
    path = write(tmp_path / "rows.jsonl", *lines)
    labels = LabelConfig(label_names=("x", "y"))
    data = load_data(DataConfig(train_file=path, **config), labels, needs_all_rows=needs_all_rows)
    assert (data.stream is None) == bool(config or needs_all_rows)
    assert len(data.train) == config.get("max_train_samples", 50)
    kept = load_data(DataConfig(train_file=path, streaming="false"), labels)
    assert kept.stream is None
