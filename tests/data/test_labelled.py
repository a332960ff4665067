from pathlib import Path

import numpy as np
import pytest

from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import ExampleReader, Examples, TextData, load_data
from tf_finetune.data.problem import Problem
from tf_finetune.data.tasks import Layout
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig

YES_NO = Problem("single_label", ("text",), ("no", "yes"))


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)


@pytest.fixture
def train_file(tmp_path: Path) -> str:
    return write(tmp_path / "a.tsv", "text\tlabel", "good\tpos", "bad\tneg", "so\tneutral")


def test_label_names_are_learnt_from_train(train_file: str, tmp_path: Path) -> None:
    validation = write(tmp_path / "b.tsv", "label\ttext", "pos\tfine")
    data = load_data(DataConfig(train_file=train_file, validation_file=validation), LabelConfig())
    assert data.problem == Problem("single_label", ("text",), ("neg", "neutral", "pos"))
    assert data.metric_for_best_model == "accuracy"
    assert data.train and data.validation
    assert data.train.labels.tolist() == [2, 0, 1]
    assert data.train.texts == (["good", "bad", "so"],)
    assert data.train.locations[1] == f"{train_file}:3"
    assert len(data.train) == 3
    assert data.validation.labels.tolist() == [2]
    assert data.test is None


def test_label_that_train_lacks(train_file: str, tmp_path: Path) -> None:
    other = write(tmp_path / "b.tsv", "text\tlabel", "x\tpos", "y\tposs")
    with pytest.raises(UserError, match=rf"^{other}:3: the label 'poss' is not one of the 3"):
        load_data(DataConfig(train_file=train_file, validation_file=other), LabelConfig())
    data = load_data(DataConfig(train_file=train_file, test_file=other), LabelConfig())
    assert data.test and data.test.labels.tolist() == [2, -1]
    [notice] = data.notices
    assert (
        "1 row with a label that is not learnt" in notice and f"'poss' (first {other}:3)" in notice
    )


def test_learnt_names_have_no_indices(train_file: str, tmp_path: Path) -> None:
    other = write(tmp_path / "b.tsv", "text\tlabel", "x\t0")
    with pytest.raises(UserError, match=rf"^{other}:2: the label '0' is not one of"):
        load_data(DataConfig(train_file=train_file, validation_file=other), LabelConfig())


def test_label_not_in_the_list(train_file: str) -> None:
    with pytest.raises(UserError, match=rf"^{train_file}:4: the label 'neutral' is not one of"):
        load_data(DataConfig(train_file=train_file), LabelConfig(label_names=("pos", "neg")))


def test_given_label_names_keep_their_order(train_file: str) -> None:
    names = ("pos", "neutral", "neg", "mixed")
    data = load_data(DataConfig(train_file=train_file), LabelConfig(label_names=names))
    assert data.problem.label_names == names
    assert data.train and data.train.labels.tolist() == [0, 2, 1]
    with pytest.raises(UserError, match="twice"):
        load_data(DataConfig(train_file=train_file), LabelConfig(label_names=("pos", "neg", "pos")))


def test_multi_label_with_indices_into_labels_txt(tmp_path: Path) -> None:
    write(tmp_path / "labels.txt", "joy", "fear", "anger")
    write(tmp_path / "train.tsv", "text\tlabels", "a\t0,2", "b\t1")
    data = load_data(DataConfig(data_dir=str(tmp_path)), LabelConfig())
    assert data.problem == Problem("multi_label", ("text",), ("joy", "fear", "anger"))
    assert data.metric_for_best_model == "micro_f1"
    assert data.train and data.train.labels.tolist() == [[1, 0, 1], [0, 1, 0]]


def test_multi_label_by_flag(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "text\tlabel", "a\tx;y", "b\tz")
    labels = LabelConfig(problem_type="multi_label", label_separator=";")
    assert load_data(DataConfig(train_file=path), labels).problem.label_names == ("x", "y", "z")


def test_regression(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "text\tlabel", "a\t1.5", "b\t3")
    data = load_data(DataConfig(train_file=path), LabelConfig())
    assert data.problem == Problem("regression", ("text",))
    assert data.problem.num_outputs == 1 and data.metric_for_best_model == "pearson"
    assert data.train and data.train.labels.dtype == np.float32
    path = write(tmp_path / "a.tsv", "text\tlabel", "a\t1.5", "b\tnan")
    with pytest.raises(UserError, match=rf"^{path}:3: the label is 'nan'"):
        load_data(DataConfig(train_file=path), LabelConfig())


def test_whole_numbers_as_regression_by_flag(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "text\tlabel", "a\t1", "b\t3")
    assert (
        load_data(DataConfig(train_file=path), LabelConfig()).problem.problem_type == "single_label"
    )
    data = load_data(DataConfig(train_file=path), LabelConfig(problem_type="regression"))
    assert data.train and data.train.labels.tolist() == [1, 3]


def test_one_class_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "text\tlabel", "a\tx", "b\tx")
    for names in ((), ("x", "y")):
        with pytest.raises(UserError, match=rf"^{path}:2: every training example .*'x'"):
            load_data(DataConfig(train_file=path), LabelConfig(label_names=names))


def test_empty_label(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "text\tlabel", "a\tx", "b\t", "c\ty")
    data = load_data(DataConfig(train_file=path), LabelConfig())
    assert data.train and data.train.texts == (["a", "c"],) and data.train.labels.tolist() == [0, 1]
    assert data.notices == [f"1 row of train without a label left out (first {path}:3)."]


def test_training_data_without_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "text", "a")
    with pytest.raises(UserError):
        load_data(DataConfig(train_file=path), LabelConfig())
    with pytest.raises(UserError, match=rf"^{path}:2: the training data have no labels"):
        load_data(DataConfig(train_file=path), LabelConfig(label_names=("x", "y")))


def test_no_data(train_file: str) -> None:
    with pytest.raises(UserError, match="There are no training data"):
        load_data(DataConfig(validation_file=train_file), LabelConfig())
    with pytest.raises(UserError, match="There are no training data"):
        load_data(DataConfig(test_file=train_file), LabelConfig(label_names=("x", "y")))


def test_unlabelled_test_data(train_file: str, tmp_path: Path) -> None:
    test_file = write(tmp_path / "b.tsv", "id\ttext", "7\tx")
    data = load_data(DataConfig(train_file=train_file, test_file=test_file), LabelConfig())
    assert data.test and data.test.labels is None and len(data.test) == 1
    with pytest.raises(UserError, match=r"no column 'label'"):
        load_data(DataConfig(train_file=train_file, validation_file=test_file), LabelConfig())


def test_limits_take_the_first_rows_after_all_were_checked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "text\tlabel", "a\tx", "b\tx", "c\ty")
    config = DataConfig(
        train_file=path,
        validation_file=path,
        test_file=path,
        max_train_samples=2,
        max_eval_samples=1,
        max_predict_samples=9,
    )
    data = load_data(config, LabelConfig())
    assert data.train and data.validation and data.test
    assert [len(split) for split in (data.train, data.validation, data.test)] == [2, 1, 3]
    assert data.problem.label_names == ("x", "y")
    assert data.train.labels.tolist() == [0, 0] and data.train.texts == (["a", "b"],)
    assert data.train.locations == [f"{path}:2", f"{path}:3"]


def test_data_for_a_trained_model(tmp_path: Path) -> None:
    test_file = write(tmp_path / "b.tsv", "text\tlabel", "a\tyes", "b\t0")
    config = DataConfig(train_file="gone.tsv", test_file=test_file)
    data = load_data(config, LabelConfig(), problem=YES_NO)
    assert data.problem == YES_NO and data.train is None
    assert data.test and data.test.labels.tolist() == [1, 0]
    nothing = load_data(DataConfig(), LabelConfig(), problem=YES_NO)
    assert nothing.test is None and nothing.problem == YES_NO
    other = write(tmp_path / "b.tsv", "text\tlabel", "a\tmaybe", "b\t", "c\tyes")
    config = DataConfig(validation_file=other, test_file=other)
    data = load_data(config, LabelConfig(), problem=YES_NO)
    assert data.test and data.test.labels.tolist() == [-1, -1, 1]
    assert data.validation and data.validation.labels.tolist() == [-1, -1, 1]


@pytest.mark.parametrize("order", [1, -1])
def test_one_file_of_a_trained_model_may_lack_labels(tmp_path: Path, order: int) -> None:
    without = write(tmp_path / "a.tsv", "text\tid", "a\t1")
    labelled = write(tmp_path / "b.tsv", "text\tlabel", "b\tyes")
    files = ",".join([without, labelled][::order])
    data = load_data(DataConfig(test_file=files), LabelConfig(), problem=YES_NO)
    assert data.test and data.test.labels.tolist() == [-1, 1][::order]
    config = DataConfig(validation_file=without, test_file=labelled)
    data = load_data(config, LabelConfig(), problem=YES_NO)
    assert data.test and data.test.labels.tolist() == [1]
    assert data.validation and data.validation.labels is None


def test_ids_may_be_in_the_predicted_file_alone(train_file: str, tmp_path: Path) -> None:
    other = write(tmp_path / "b.tsv", "id\ttext", "7\tx")
    config = DataConfig(train_file=train_file, test_file=other, id_column="id")
    data = load_data(config, LabelConfig())
    assert data.test and data.test.ids == ["7"] and data.train and not data.train.ids
    with pytest.raises(UserError, match="--id_column=idd: no file has such a column"):
        load_data(DataConfig(train_file=train_file, id_column="idd"), LabelConfig())
    config = DataConfig(train_file=train_file, test_file=train_file, id_column="id")
    with pytest.raises(UserError, match=r"no column 'id'; .*--id_column"):
        load_data(config, LabelConfig())


def test_columns_for_a_trained_model(tmp_path: Path) -> None:
    problem = Problem("single_label", ("question", "answer"), ("no", "yes"))
    test_file = write(tmp_path / "b.tsv", "answer\tquestion\tid", "a\tq\t7")
    config = DataConfig(test_file=test_file)
    labels = LabelConfig(label_column="label")
    data = load_data(config, labels, problem=problem)
    assert data.test and data.test.texts == (["q"], ["a"])
    labels = LabelConfig(label_column="label", text_columns=("id", "answer"))
    data = load_data(config, labels, problem=problem)
    assert data.test and data.test.texts == (["7"], ["a"])
    assert data.problem.text_columns == ("question", "answer")
    labels = LabelConfig(label_column="label", text_columns=("id",))
    with pytest.raises(UserError, match=r"--text_columns=id: .* 2 text column"):
        load_data(config, labels, problem=problem)


@pytest.mark.parametrize(("name", "separator"), [("space", " "), ("tab", "\t"), (";", ";")])
def test_separators_that_cannot_be_written(tmp_path: Path, name: str, separator: str) -> None:
    path = write(tmp_path / "a.csv", "text,label", f"a,x{separator}y", "b,z")
    labels = LabelConfig(problem_type="multi_label", label_separator=name)
    data = load_data(DataConfig(train_file=path), labels)
    assert data.problem.label_names == ("x", "y", "z")
    assert data.train and data.train.labels.tolist() == [[1, 1, 0], [0, 0, 1]]


def test_the_threshold_is_a_part_of_the_problem(train_file: str) -> None:
    data = load_data(DataConfig(train_file=train_file), LabelConfig(threshold=0.25))
    assert data.problem.threshold == 0.25


def test_further_rows_are_read_as_the_first_were(train_file: str) -> None:
    read = load_data(DataConfig(train_file=train_file), LabelConfig()).read
    examples = read(
        [("x:1", {"text": "fine", "label": "pos"}), ("x:2", {"text": 7, "label": "neg"})]
    )
    assert examples.texts == (["fine", "7"],) and examples.labels.tolist() == [2, 0]
    assert examples.locations == ["x:1", "x:2"]
    with pytest.raises(UserError, match=r"^x:3: the label 'none' is not one of the 3"):
        read([("x:3", {"text": "a", "label": "none"})])
    with pytest.raises(UserError, match=r"^x:4: there is no column 'text'"):
        read([("x:4", {"label": "pos"})])


def test_the_splits_that_are_there() -> None:
    train, test = Examples((["a"],), np.array([0])), Examples((["b"],))
    data = TextData(train, None, test, ExampleReader(Layout(), YES_NO), "accuracy")
    assert data.splits == {"train": train, "test": test}
    assert data.problem == YES_NO and data.stream is None
