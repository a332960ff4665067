import numpy as np
import pytest

from tf_finetune.data.label_format import LabelFormat
from tf_finetune.data.labels import (
    encode_labels,
    infer_problem_type,
    learn_label_names,
    unknown_label,
)
from tf_finetune.data.problem import Problem, ProblemType
from tf_finetune.errors import UserError


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", "b", "a"], "single_label"),
        (["0", "1", "1"], "single_label"),
        ([1.0, 2.0, 1.0], "single_label"),
        ([True, False], "single_label"),
        (["1", "2.5"], "regression"),
        ([0.25, 1], "regression"),
        # The notice of placeholders names its line; of amounts the check of numbers does.
        (["1", "nan"], "single_label"),
        (["1.5", "nan"], "regression"),
        ([str(number) for number in range(1000)], "regression"),
        # 150 classes with 20 rows each.
        ([str(number) for number in range(150)] * 20, "single_label"),
        ([["a"], ["a", "b"]], "multi_label"),
        ([[], "a"], "multi_label"),
        # Commas alone say nothing: this may be one label.
        (["a,b", "a", "b"], "single_label"),
        (["1,2", "1", "2"], "single_label"),
        ([], "single_label"),
        (["", ""], "single_label"),
    ],
)
def test_problem_type_of_unknown_labels(values: list, expected: str) -> None:
    assert infer_problem_type(values) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["joy", "fear"], "single_label"),
        (["0", "1"], "single_label"),
        (["joy,fear", "joy"], "multi_label"),
        (["0,1", "1", ""], "multi_label"),
        (["joy,hope", "joy"], "single_label"),
        (["0.5", "1"], "single_label"),
    ],
)
def test_problem_type_with_known_labels(values: list, expected: str) -> None:
    assert infer_problem_type(values, ("joy", "fear")) == expected


def test_separator_between_labels() -> None:
    bars = LabelFormat("|")
    assert infer_problem_type(["a|b", "b"], ("a", "b"), bars) == "multi_label"
    assert learn_label_names(["b | c", "a"], "multi_label", bars) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["10", "9", "-1", "9"], ("-1", "9", "10")),
        ([10, 9, 1.0], ("1", "9", "10")),
        (["b", "10", "9"], ("10", "9", "b")),
        ([" a", "a ", b"a"], ("a",)),
        ([True, False], ("false", "true")),
        (["a", "", None, float("nan")], ("a",)),
    ],
)
def test_learnt_names_are_sorted(values: list, expected: tuple[str, ...]) -> None:
    assert learn_label_names(values, "single_label") == expected


def encode(
    values: list, names: tuple[str, ...], kind: ProblemType = "single_label", by_index: bool = False
) -> np.ndarray:
    problem = Problem(kind, ("text",), names)
    encoded = encode_labels(values, problem, by_index=by_index)
    for label, row in encoded.unknown.items():
        raise unknown_label(label, f"f.tsv:{row + 2}", problem, LabelFormat())
    return encoded.labels


def test_single_labels() -> None:
    labels = encode(["b", "a", b"b ", "b"], ("a", "b"))
    assert labels.dtype == np.int32 and labels.tolist() == [1, 0, 1, 1]
    assert encode([3, 3.0, "3", "1"], ("1", "3")).tolist() == [1, 1, 1, 0]


def test_indices_stand_for_names_only_where_that_is_safe() -> None:
    assert encode(["0", 1, "no"], ("no", "yes"), by_index=True).tolist() == [0, 1, 0]
    with pytest.raises(UserError, match="'0' is not one of"):
        encode(["0"], ("no", "yes"))
    # "1" is a name here, and 0 no index.
    assert encode(["1", "2"], ("1", "2"), by_index=True).tolist() == [0, 1]
    with pytest.raises(UserError, match="'0' is not one of"):
        encode(["0"], ("1", "2"), by_index=True)


def test_multi_labels() -> None:
    labels = encode(["a, c", "", "b", ["c"], []], ("a", "b", "c"), "multi_label")
    assert labels.dtype == np.float32
    assert labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert encode(["0,2"], ("a", "b", "c"), "multi_label", True).tolist() == [[1, 0, 1]]


def test_numbers() -> None:
    labels = encode(["1.5", 2, b"-3e-1"], (), "regression")
    assert labels.dtype == np.float32
    np.testing.assert_allclose(labels, [1.5, 2, -0.3], rtol=1e-6)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "high", "1,5", [1]])
def test_label_that_is_no_finite_number(value: object) -> None:
    with pytest.raises(UserError, match=r"^f\.tsv:3: the label is .* needs a finite number"):
        encode(["1.5", value], (), "regression")


@pytest.mark.parametrize("value", ["", "  ", None, float("nan"), b""])
def test_a_missing_label_is_no_label(value: object) -> None:
    assert encode(["a", value], ("a", "b")).tolist() == [0, -1]
    assert np.isnan(encode([1.5, value], (), "regression")).tolist() == [False, True]


def test_an_empty_cell_of_several_labels_has_none_of_them_and_no_cell_is_unknown() -> None:
    labels = encode(["", [], None], ("a", "b"), "multi_label")
    assert labels[:2].tolist() == [[0, 0], [0, 0]] and np.isnan(labels[2]).all()


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_unknown_label(kind: ProblemType) -> None:
    with pytest.raises(UserError, match=r"^f\.tsv:4: the label 'x' is not one of the 2 labels"):
        encode(["a", "b", "x"], ("a", "b"), kind)


def test_list_where_one_label_belongs() -> None:
    with pytest.raises(UserError, match=r"^f\.tsv:3: the label .*'a'"):
        encode(["a", ["a", "b"]], ("a", "b"))
