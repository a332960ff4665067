import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.data import streamed_batches as stream_module
from tf_finetune.data.batches import tokenize
from tf_finetune.data.labelled import load_data
from tf_finetune.data.streamed_batches import StreamedBatches
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig
from tf_finetune.text.wordpiece import BertPreprocessor

ROWS, BATCH = 3000, 32
STEPS = -(-ROWS // BATCH)  # an epoch's


def write(path: Path, rows: int = ROWS) -> str:
    """Row i has the number i for its label; lengths differ; the file ends without a line end."""
    lines = [json.dumps({"text": "a " * (i % 7) + f"n{i}", "label": float(i)}) for i in range(rows)]
    path.write_text("\n".join(lines))
    return str(path)


def open_stream(path: str, steps: int, **more) -> StreamedBatches:
    data = load_data(
        DataConfig(train_file=path, streaming="true", problem_type="regression", **more)
    )
    sample = tokenize(data.train, BertPreprocessor(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"]), 32)
    return StreamedBatches(data.stream, 1, sample, BATCH, steps, seed=1)


def batches(streamed, worker=0, workers=1, replicas=1, start=0):
    context = tf.distribute.InputContext(workers, worker)
    dataset = streamed.batches(context, start, replicas)
    return [(y.numpy(), w.numpy()) for _, y, w in dataset]


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    """A file of some blocks has some groups of them too."""
    monkeypatch.setattr(stream_module, "GROUP_BLOCKS", 2)


@pytest.mark.parametrize(("workers", "replicas"), [(1, 1), (1, 2), (2, 2), (2, 4), (4, 4)])
def test_every_epoch_has_each_row_once_on_any_number_of_workers(tmp_path, workers, replicas):
    streamed = open_stream(write(tmp_path / "rows.jsonl"), 2 * STEPS)
    found = [batches(streamed, worker, workers, replicas) for worker in range(workers)]
    each = replicas // workers
    assert [len(part) for part in found] == [2 * STEPS * each] * workers
    orders = []
    for epoch in range(2):
        places = slice(epoch * STEPS * each, (epoch + 1) * STEPS * each)
        rows = [y[w > 0] for part in found for y, w in part[places]]
        orders.append(np.concatenate(rows))
        assert sorted(orders[-1]) == list(range(ROWS))
    assert not np.array_equal(*orders)
    assert all(len(y) == BATCH // replicas for part in found for y, _ in part)


@pytest.mark.parametrize("start", [1, 49, 50, 51, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS - 1])
def test_it_goes_on_at_any_step(tmp_path, start):
    streamed = open_stream(write(tmp_path / "rows.jsonl"), 2 * STEPS)
    for worker in range(2):
        whole = batches(streamed, worker, 2, 4)
        rest = batches(streamed, worker, 2, 4, start)
        assert len(rest) == len(whole) - 2 * start
        for (y, w), (same, weights) in zip(rest, whole[2 * start :], strict=True):
            np.testing.assert_array_equal(y, same)
            np.testing.assert_array_equal(w, weights)


def test_a_sorted_file_is_shuffled(tmp_path, monkeypatch):
    """Labels of a group of blocks as mixed as those of rows drawn at random are, nearly.

    Measured by the variance of the share of the file's first half in a batch, against that of a
    binomial, 1/(4 * 32). Rows sorted by length share batches; here all are equally long.
    """
    path = tmp_path / "rows.jsonl"
    rows = [json.dumps({"text": f"a a n{i:06}", "label": float(i)}) for i in range(40_000)]
    path.write_text("\n".join(rows))
    monkeypatch.setattr(stream_module, "GROUP_BLOCKS", 256)
    streamed = open_stream(str(path), 1250)
    labels = np.stack([y for y, _ in batches(streamed)])
    shares = (labels < 20_000).mean(axis=1)
    assert shares.var() == pytest.approx(1 / (4 * BATCH), rel=0.2)
    # Neighbours in a batch are no neighbours in the file.
    assert np.median(np.abs(np.diff(labels, axis=1))) > 8_000


def test_fewer_rows_than_workers(tmp_path):
    streamed = open_stream(write(tmp_path / "rows.jsonl", 3), 4)
    found = [batches(streamed, worker, 4, 4) for worker in range(4)]
    for step in range(4):
        rows = np.concatenate([y[w > 0] for y, w in (part[step] for part in found)])
        assert sorted(rows) == [0, 1, 2]


def test_tsv_and_tfrecord_stream_the_same_rows(tmp_path):
    labels = []
    lines = [f"a n{i}\t{i}" for i in range(ROWS)]
    (tmp_path / "rows.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    with tf.io.TFRecordWriter(str(tmp_path / "rows.tfrecord")) as writer:
        for i in range(ROWS):
            text = tf.train.Feature(bytes_list=tf.train.BytesList(value=[f"a n{i}".encode()]))
            label = tf.train.Feature(float_list=tf.train.FloatList(value=[i]))
            features = tf.train.Features(feature={"text": text, "label": label})
            writer.write(tf.train.Example(features=features).SerializeToString())
    for name in ("rows.tsv", "rows.tfrecord"):
        streamed = open_stream(str(tmp_path / name), STEPS)
        assert streamed.stream.num_rows == ROWS
        labels.append(np.concatenate([y[w > 0] for y, w in batches(streamed)]))
        assert sorted(labels[-1]) == list(range(ROWS))


def test_a_bad_row_far_down_is_named(tmp_path):
    path = Path(write(tmp_path / "rows.jsonl"))
    lines = path.read_text().split("\n")
    offset = sum(len(line) + 1 for line in lines[:2000])
    lines[2000] = "{"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=f"rows.jsonl:byte {offset}: not valid JSON"):
        streamed = open_stream(str(path), STEPS)
        with stream_module.plain_errors(streamed):
            batches(streamed)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"train_file": "{}/rows.csv"}, "rows.csv can only be read from its beginning"),
        ({"class_weights": "balanced"}, "class_weights=balanced needs all rows beforehand"),
        ({"max_train_samples": 5}, "max_train_samples=5 needs all rows"),
        ({"problem_type": "auto"}, "Give --label_names"),
    ],
)
def test_what_cannot_be_streamed_is_said(tmp_path, more, complaint):
    lines = [json.dumps({"text": f"t{i}", "label": "xy"[i % 2]}) for i in range(9)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    (tmp_path / "rows.csv").write_text("text,label\na,1\n")
    options = {"train_file": "{}/rows.jsonl", "problem_type": "single_label"}
    options |= {"label_names": ("x", "y")} if "problem_type" not in more else {}
    options |= more
    options["train_file"] = options["train_file"].format(tmp_path)
    with pytest.raises(UserError, match=complaint):
        load_data(DataConfig(streaming="true", **options))


def test_small_files_are_kept_in_memory(tmp_path):
    path = write(tmp_path / "rows.jsonl", 10)
    assert load_data(DataConfig(train_file=path, problem_type="regression")).stream is None


@pytest.mark.parametrize("more", [{"class_weights": "balanced"}, {"max_train_samples": 5}, {}])
def test_large_files_are_streamed_unless_all_rows_are_needed(tmp_path, monkeypatch, more):
    monkeypatch.setattr("tf_finetune.data.labelled.STREAM_BYTES", 100)
    lines = [json.dumps({"text": f"t{i}", "label": "xy"[i % 2]}) for i in range(50)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    config = DataConfig(train_file=f"{tmp_path}/rows.jsonl", label_names=("x", "y"), **more)
    data = load_data(config)
    assert (data.stream is None) == bool(more)
    assert len(data.train) == more.get("max_train_samples", 50)


def test_shards_are_streamed_and_their_rows_estimated(tmp_path):
    lines = ["text\tlabel", *(f"a n{i:06}\t{i}" for i in range(20_000))]
    for shard in range(2):
        path = tmp_path / f"rows.tsv-0000{shard}-of-00002"
        path.write_text("\n".join([lines[0], *lines[1 + shard :: 2]]) + "\n")
    streamed = open_stream(f"{tmp_path}/rows.tsv-*", 625)
    assert streamed.stream.num_rows == 20_000
    assert streamed.stream.estimated_rows == pytest.approx(20_000, rel=0.01)
    labels = np.concatenate([y[w > 0] for y, w in batches(streamed)])
    assert sorted(labels) == list(range(20_000))


def test_rows_longer_than_many_blocks(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [json.dumps({"text": "word " * 60_000, "label": float(i)}) for i in range(40)]
    path.write_text("\n".join(rows))
    streamed = open_stream(str(path), 2)
    labels = np.concatenate([y[w > 0] for y, w in batches(streamed)])
    assert sorted(labels) == list(range(40))


def test_a_file_that_goes_away_is_named(tmp_path):
    path = write(tmp_path / "rows.jsonl")
    streamed = open_stream(path, STEPS)
    Path(path).unlink()
    gone = pytest.raises(FileNotFoundError, match=r"rows\.jsonl")
    with gone, stream_module.plain_errors(streamed):
        batches(streamed)
