import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.thorough import mostly
from tf_finetune.classification.tokenize import ExampleTokenizer, tokenize
from tf_finetune.data import streamed_batches as stream_module
from tf_finetune.data.batches import Batches
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import load_data
from tf_finetune.data.row_stream import RowStream
from tf_finetune.data.streamed_batches import StreamedRows, stream_batches
from tf_finetune.data.tokenized import TokenizedRows
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig, LoopConfig
from tf_finetune.text.wordpiece import BertPreprocessor

ROWS, BATCH = 3000, 32
STEPS = -(-ROWS // BATCH)  # an epoch's


def write(path: Path, rows: int = ROWS) -> str:
    """Row i has the number i for its label; lengths differ; the file ends without a line end."""
    lines = [json.dumps({"text": "a " * (i % 7) + f"n{i}", "label": float(i)}) for i in range(rows)]
    path.write_text("\n".join(lines))
    return str(path)


def open_rows(path: str, **labels) -> tuple[RowStream, ExampleTokenizer, TokenizedRows]:
    labels = {"problem_type": "regression", **labels}
    data = load_data(DataConfig(train_file=path, streaming="true"), LabelConfig(**labels))
    preprocessor = BertPreprocessor(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"])
    sample = tokenize(data.train, preprocessor, 32)
    return data.stream, ExampleTokenizer(data.read, preprocessor, 32), sample


def open_stream(path: str, steps: int) -> StreamedRows:
    return StreamedRows(*open_rows(path), BATCH, steps, seed=1)


def plan(path: str, **loop) -> Batches:
    return stream_batches(*open_rows(path), BATCH, LoopConfig(**loop), seed=1)


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


@pytest.mark.parametrize(
    "start", mostly(1, 50, STEPS, STEPS + 1, others=[49, 51, STEPS - 1, 2 * STEPS - 1])
)
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
        planned = plan(str(path), num_train_epochs=1)
        with planned.own_errors():
            list(planned.start(tf.distribute.get_strategy(), 0))


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
    planned = plan(path, num_train_epochs=1)
    Path(path).unlink()
    with pytest.raises(FileNotFoundError, match=r"rows\.jsonl"), planned.own_errors():
        list(planned.start(tf.distribute.get_strategy(), 0))


def test_a_whole_training_is_planned(tmp_path):
    path = write(tmp_path / "rows.jsonl")
    planned = plan(path, num_train_epochs=1.5)
    assert (planned.num_steps, planned.steps_per_epoch) == (int(1.5 * STEPS), STEPS)
    streamed = open_stream(path, planned.num_steps)
    assert list(planned.shapes) == [(BATCH, length) for length in streamed.lengths]
    assert streamed.lengths[-1] == 32
    expected = [y for y, _ in batches(streamed, start=50)]
    found = list(planned.start(tf.distribute.get_strategy(), 50))
    np.testing.assert_array_equal(np.stack([y for _, y, _ in found]), np.stack(expected))
    # Every batch has one of these shapes, and its tokens are counted.
    assert {tuple(x["input_word_ids"].shape) for x, *_ in found} <= set(planned.shapes)
    features, _, weights = found[0]
    mask = features["input_mask"].numpy()[weights.numpy() > 0]
    assert float(planned.count_tokens(*found[0])) == mask.sum()


def test_rows_are_not_counted_where_nobody_asks_for_epochs(tmp_path, monkeypatch):
    path = write(tmp_path / "rows.jsonl")
    monkeypatch.setattr("tf_finetune.data.row_stream.count_rows", lambda paths: 1 / 0)
    planned = plan(path, max_steps=5)
    assert planned.num_steps == 5 and len(list(planned.start(tf.distribute.get_strategy(), 0))) == 5
    assert planned.steps_per_epoch == pytest.approx(STEPS, rel=0.1)
    with pytest.raises(ZeroDivisionError):
        plan(path, num_train_epochs=1)


@pytest.mark.parametrize(
    ("label", "options", "dtype", "shape"),
    [
        ("x", {"problem_type": "single_label", "label_names": ("x", "y")}, np.int32, ()),
        (["y"], {"problem_type": "multi_label", "label_names": ("x", "y")}, np.float32, (2,)),
        (0.5, {}, np.float32, ()),
    ],
)
def test_labels_of_every_problem_and_pairs_of_texts(tmp_path, label, options, dtype, shape):
    """With more workers than rows, so that one of them has nothing but filling rows."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"sentence1": "a", "sentence2": "a a", "label": label}))
    streamed = StreamedRows(*open_rows(str(path), **options), BATCH, 2, seed=1)
    for worker, real in ((0, 1), (1, 0)):
        found = batches(streamed, worker, 2, 2)
        assert len(found) == 2
        for labels, weights in found:
            assert labels.shape == (BATCH // 2, *shape) and labels.dtype == dtype
            assert weights.sum() == real
