import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import load_data
from tf_finetune.data.readers import read_file
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig

NAMES = ("not_equivalent", "equivalent")


def test_parquet(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    columns = {"text": ["a", "b", "c"], "label": [0, 2, 1], "tags": [["x"], [], ["x", "y"]]}
    pq.write_table(pa.table(columns), path, row_group_size=2)
    assert list(read_file(path)) == [
        (f"{path}:row 1", {"text": "a", "label": 0, "tags": ["x"]}),
        (f"{path}:row 2", {"text": "b", "label": 2, "tags": []}),
        (f"{path}:row 3", {"text": "c", "label": 1, "tags": ["x", "y"]}),
    ]


def test_damaged_and_empty_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(UserError, match=r"a\.parquet: cannot be read as Parquet"):
        list(read_file(str(path)))
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    with pytest.raises(UserError, match="no rows"):
        list(read_file(str(path)))


def write_classes(path: Path, table: pa.Table, feature: dict) -> str:
    info = {"info": {"features": {"label": feature, "dropped": feature}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), path)
    return str(path)


CLASS_LABEL = {"names": ["bad", "good"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    ("values", "feature", "expected"),
    [
        ([1, 0, -1], CLASS_LABEL, ["good", "bad", None]),
        ([1.0, 0.0, None], CLASS_LABEL, ["good", "bad", None]),
        ([1.0, 0.0, float("nan")], CLASS_LABEL, ["good", "bad", None]),
        ([[1, 0], []], {"feature": CLASS_LABEL, "_type": "Sequence"}, [["good", "bad"], []]),
        ([[1], [], [0]], {"feature": CLASS_LABEL, "_type": "List"}, [["good"], [], ["bad"]]),
        ([[1], [], [0]], [CLASS_LABEL], [["good"], [], ["bad"]]),
        (["x", "y", "z"], CLASS_LABEL, ["x", "y", "z"]),
        ([1, 0, 1], {"dtype": "int64", "_type": "Value"}, [1, 0, 1]),
        ([1, 0, 1], {"names": [], "_type": "ClassLabel"}, [1, 0, 1]),
    ],
)
def test_class_names_of_the_schema(
    tmp_path: Path, values: list, feature: dict, expected: list
) -> None:
    table = pa.table({"text": ["a", "b", "c"][: len(values)], "label": values})
    path = write_classes(tmp_path / "a.parquet", table, feature)
    assert [row["label"] for _, row in read_file(path)] == expected


def test_class_names_keep_the_order_of_the_schema(tmp_path: Path) -> None:
    feature = {"names": ["positive", "negative"], "_type": "ClassLabel"}
    table = pa.table({"text": ["a", "b", "c"], "label": [1, 0, 1]})
    path = write_classes(tmp_path / "a.parquet", table, feature)
    data = load_data(DataConfig(train_file=path), LabelConfig())
    assert data.problem.label_names == ("positive", "negative")
    assert data.train and data.train.labels.tolist() == [1, 0, 1]
    other = write_classes(tmp_path / "b.parquet", table, CLASS_LABEL)
    with pytest.raises(UserError, match="name the classes differently: positive, negative"):
        load_data(DataConfig(train_file=f"{path},{other}"), LabelConfig())
    # A file whose schema has another order means the same names.
    feature = {"names": ["negative", "positive"], "_type": "ClassLabel"}
    other = write_classes(tmp_path / "b.parquet", table, feature)
    data = load_data(DataConfig(train_file=path, validation_file=other), LabelConfig())
    assert data.validation and data.validation.labels.tolist() == [0, 1, 0]


def test_a_class_beyond_the_schema_and_a_column_twice(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "label": [1, 2]})
    path = write_classes(tmp_path / "a.parquet", table, CLASS_LABEL)
    with pytest.raises(UserError, match=r"a\.parquet:row 2: the class 2, but the schema names 2"):
        list(read_file(path))
    table = pa.table([["a"], ["x"], ["y"]], names=["text", "label", "label"])
    pq.write_table(table, tmp_path / "b.parquet")
    with pytest.raises(UserError, match="two columns are named 'label'"):
        list(read_file(f"{tmp_path}/b.parquet"))


def test_a_date_that_python_does_not_have(tmp_path: Path) -> None:
    far = pa.array([2**62], pa.timestamp("us"))
    pq.write_table(pa.table({"text": ["a"], "when": far}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        list(read_file(f"{tmp_path}/a.parquet"))


def write_examples(path: Path, examples: list[dict]) -> None:
    import tensorflow as tf

    def feature(values: list) -> tf.train.Feature:
        if values and isinstance(values[0], str):
            encoded = [value.encode() for value in values]
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))
        if values and isinstance(values[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            features = {
                name: feature(value if isinstance(value, list) else [value])
                for name, value in example.items()
            }
            message = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(message.SerializeToString())


@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecords", "a.tfrecord-00000-of-00001"])
def test_tfrecord(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_examples(
        path,
        [
            {"text": "é", "label": 3, "score": 0.5, "tags": ["x", "y"]},
            {"text": "", "label": 0, "score": 2.0, "tags": []},
        ],
    )
    assert list(read_file(str(path))) == [
        (
            f"{path}:record 1",
            {"text": "é".encode(), "label": 3, "score": 0.5, "tags": [b"x", b"y"]},
        ),
        (f"{path}:record 2", {"text": b"", "label": 0, "score": 2.0, "tags": []}),
    ]


def test_damaged_tfrecord(tmp_path: Path) -> None:
    import tensorflow as tf

    path = tmp_path / "a.tfrecord"
    write_examples(path, [{"text": "a"}, {"text": "b"}])
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"a\.tfrecord:byte \d+: damaged here"):
        list(read_file(str(path)))
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"no message")
    with pytest.raises(UserError, match=r"a\.tfrecord:record 1: not a tf\.train\.Example"):
        list(read_file(str(path)))


def test_every_format_loads_alike(tmp_path: Path) -> None:
    texts, labels = ["good", "bad", "wörse"], [1, 0, 0]
    examples = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    write_examples(tmp_path / "a.tfrecord", examples)
    pq.write_table(pa.table({"text": texts, "label": labels}), tmp_path / "a.parquet")
    cells = [("text", "label"), *zip(texts, map(str, labels), strict=True)]
    for kind, mark in (("tsv", "\t"), ("csv", ",")):
        (tmp_path / f"a.{kind}").write_text("\n".join(map(mark.join, cells)), "utf-8")
    lines = (f'{{"text": "{text}", "label": {label}}}' for text, label in cells[1:])
    (tmp_path / "a.jsonl").write_text("\n".join(lines), "utf-8")
    for kind in ("tsv", "csv", "jsonl", "parquet", "tfrecord"):
        data = load_data(DataConfig(train_file=str(tmp_path / f"a.{kind}")), LabelConfig())
        assert data.train is not None and data.train.labels is not None
        assert data.problem.label_names == ("0", "1")
        assert list(data.train.texts[0]) == texts
        assert data.train.labels.tolist() == labels


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Data sets in the format of TensorFlow Datasets, written with its own writer."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")

    def write(name: str, config: str | None, features: dict, splits: dict[str, list]) -> None:
        path = folder.joinpath(name, *filter(None, [config]), "2.0.0")
        path.mkdir(parents=True)
        identity = tfds.core.dataset_info.DatasetIdentity(
            name=name,
            version=tfds.core.Version("2.0.0"),
            data_dir=str(path),
            module_name="test",
            config_name=config,
        )
        info = tfds.core.DatasetInfo(
            builder=identity, features=tfds.features.FeaturesDict(features)
        )
        writer = tfds.core.SequentialWriter(info, max_examples_per_shard=2)
        writer.initialize_splits(list(splits))
        writer.add_examples(splits)
        writer.close_all()

    text, label = tfds.features.Text(), tfds.features.ClassLabel(names=NAMES)

    def pairs(labels: list[int]) -> list[dict]:
        return [
            {"idx": row, "sentence1": f"a{row}", "sentence2": f"b{row}", "label": label}
            for row, label in enumerate(labels)
        ]

    pair = {"idx": tf.int32, "sentence1": text, "sentence2": text, "label": label}
    splits = {"train": pairs([1, 0, 1]), "validation": pairs([0, 1]), "test": pairs([-1, -1])}
    write("glue", "mrpc", pair, splits)
    tags = [{"body": "a", "tags": [0, 1]}, {"body": "b", "tags": []}]
    write("own", None, {"body": text, "tags": tfds.features.Sequence(label)}, {"train": tags})
    nli = {"premise": text, "hypothesis": text, "label": label}
    rows = [{"premise": "p", "hypothesis": "h", "label": row % 2} for row in range(4)]
    write("nli", None, nli, {"train": rows, "validation_matched": rows[:1], "test_other": rows[:2]})
    return str(folder)


@pytest.mark.parametrize("by_task", [True, False])
def test_tfds(tfds_dir: str, by_task: bool) -> None:
    config = DataConfig(tfds_name=None if by_task else "glue/mrpc", tfds_data_dir=tfds_dir)
    data = load_data(config, LabelConfig(task_name="mrpc" if by_task else None))
    assert data.train and data.validation and data.test
    assert data.problem.text_columns == ("sentence1", "sentence2")
    assert data.problem.label_names == NAMES
    assert data.metric_for_best_model == "f1"
    texts = sorted(zip(*data.train.texts, data.train.labels, strict=True))
    assert texts == [("a0", "b0", 1), ("a1", "b1", 0), ("a2", "b2", 1)]
    assert len(data.validation) == 2
    # Labels of -1 were not published.
    assert data.test.labels is None and sorted(data.test.texts[0]) == ["a0", "a1"]
    assert data.test.locations[0] == "glue/mrpc/2.0.0/test:1"


def test_tfds_features_name_columns_and_labels(tfds_dir: str) -> None:
    data = load_data(DataConfig(tfds_name="own:2.0.0", tfds_data_dir=tfds_dir), LabelConfig())
    assert data.train and data.problem.problem_type == "multi_label"
    assert data.problem.text_columns == ("body",) and data.problem.label_names == NAMES
    order = np.argsort(data.train.texts[0])
    assert data.train.labels[order].tolist() == [[1, 1], [0, 0]]


def test_tfds_split_names_and_files_beside_it(tfds_dir: str, tmp_path: Path) -> None:
    data = load_data(DataConfig(tfds_name="nli", tfds_data_dir=tfds_dir), LabelConfig())
    assert data.validation and data.test
    assert data.problem.text_columns == ("hypothesis", "premise")
    assert (len(data.validation), len(data.test)) == (1, 2)
    path = tmp_path / "test.tsv"
    path.write_text("premise\thypothesis\tlabel\nx\ty\tequivalent\n")
    config = DataConfig(tfds_name="nli", tfds_data_dir=tfds_dir, test_file=str(path))
    test = load_data(config, LabelConfig()).test
    assert test and test.texts == (["y"], ["x"]) and test.labels.tolist() == [1]


def test_tfds_that_is_not_there(tfds_dir: str) -> None:
    with pytest.raises(UserError, match=r"not prepared in .*tfds build glue/cola --data_dir="):
        load_data(DataConfig(tfds_name="glue/cola", tfds_data_dir=tfds_dir), LabelConfig())
    for name in ("no_such_set", "glue/nope"):
        with pytest.raises(UserError, match=f"--tfds_name={name}: not a data set"):
            load_data(DataConfig(tfds_name=name, tfds_data_dir=tfds_dir), LabelConfig())
