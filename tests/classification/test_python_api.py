"""What is wrong in a call from Python is said by that call, with the row and the value."""

import numpy as np
import pytest

from tf_finetune import (
    EncoderConfig,
    Examples,
    Problem,
    UserError,
    build_classifier,
    load_encoder,
    make_train_dataset,
    plan_batches,
    predict,
)

SINGLE = Problem("single_label", ("text",), ("bad", "good"))
MULTI = Problem("multi_label", ("text",), ("joy", "fear", "love"))
NUMBER = Problem("regression", ("text",))
PAIR = Problem("single_label", ("left", "right"), ("no", "yes"))
TEXTS = ["what a good film", "a boring plot"] * 4
NAN = float("nan")


@pytest.fixture(scope="module")
def encoder(tiny_bert_dir):
    return load_encoder(str(tiny_bert_dir))


@pytest.fixture(scope="module")
def make(encoder):
    made = {
        problem: build_classifier(encoder, problem, max_seq_length=16)
        for problem in (SINGLE, MULTI, NUMBER, PAIR)
    }
    return made.get


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ("binary", ("text",), ("a", "b")),
            "problem_type='binary': allowed are single_label",
        ),
        ((None, ("text",), ("a", "b")), "problem_type=None: allowed are"),
        (("Single_Label", ("text",), ("a", "b")), "problem_type='Single_Label'"),
        (("single_label", (), ("a", "b")), r"text_columns=\(\): give the names of one or two"),
        (("single_label", ("a", "b", "c"), ("a", "b")), "give the names of one or two"),
        (("single_label", "text", ("a", "b")), r"text_columns='text': .* \('text',\)"),
        (("single_label", ("a", "a"), ("a", "b")), "text_columns: 'a' stands there twice"),
        (("single_label", (0,), ("a", "b")), r"text_columns\[0\] is 0, not a string"),
        (("single_label", ("text",), ("a", "b", "a")), "label_names: 'a' stands there twice"),
        (("multi_label", ("text",), "ab"), "label_names='ab': give a tuple of names"),
        (("single_label", ("text",), (0, 1)), r"label_names\[0\] is 0, not a string"),
        (("single_label", ("text",), ("a", None)), r"label_names\[1\] is None, not a string"),
        (("single_label", ("text",)), "label_names is empty"),
        (("multi_label", ("text",), ()), "label_names is empty"),
        (("regression", ("text",), ("a",)), r"label_names=\('a',\): a regression has none"),
        (("multi_label", ("text",), ("a",), 0.0), r"threshold=0\.0: must be > 0 and < 1"),
        (("multi_label", ("text",), ("a",), 1), "threshold=1: must be"),
        (("multi_label", ("text",), ("a",), 50), "threshold=50: must be"),
        (("multi_label", ("text",), ("a",), NAN), "threshold=nan: must be"),
    ],
)
def test_a_wrong_problem(arguments, complaint):
    with pytest.raises(UserError, match=complaint):
        Problem(*arguments)


def test_lists_of_names_are_as_good_as_tuples():
    problem = Problem("single_label", ["text"], ["bad", "good"])  # type: ignore[arg-type]
    assert problem == SINGLE and hash(problem) == hash(SINGLE)


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (TEXTS, r"texts\[0\] is 'what a good film'; .* Write \(texts,\)"),
        (tuple(TEXTS), "it must be the sequence of strings of a text column"),
        ("great fun", "it must be the sequence of strings"),
        (np.array(TEXTS), "it must be the sequence of strings"),
        ([None, "a"], r"texts\[0\] is None; it must be the sequence"),
        ((TEXTS, TEXTS[1:]), r"texts holds columns of the lengths \[8, 7\]"),
        ((), r"texts holds columns of the lengths \[\]"),
        (([*TEXTS, None],), r"texts\[0\]\[8\] is None, not a string\. Give '' for a text"),
        ((TEXTS, [*TEXTS[1:], NAN]), r"texts\[1\]\[7\] is nan, not a string"),
        ((["a", b"b"],), r"texts\[0\]\[1\] is b'b', not a string"),
        (([TEXTS],), r"texts\[0\]\[0\] is \['what a good film"),
        ((["a", "b\ud83d"],), r"texts\[0\]\[1\] is not Unicode: .* at character 1\."),
        (([1, 2],), r"texts\[0\]\[0\] is 1, not a string"),
    ],
)
def test_wrong_texts(texts, complaint):
    with pytest.raises(UserError, match=complaint):
        Examples(texts)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        (1, "1 labels were given for 8 texts"),
        ([1, 0], "2 labels were given for 8 texts"),
        (np.zeros((0, 3)), "0 labels were given for 8 texts"),
        (np.zeros(9, np.int32), "9 labels were given for 8 texts"),
        (["good", "bad"] * 4, r"labels\[0\] is 'good', not a number\. .* Problem\.label_names"),
        (np.array(["1", "0"] * 4), r"labels\[0\] is '1', not a number"),
        ([0, 1, None, 0] * 2, r"labels\[2\] is None, not a number"),
        ([[0], [0, 1], ["joy"], []] * 2, r"labels\[2\] is \['joy'\], not a number"),
        ([("joy",), ()] * 4, r"labels\[0\] is \('joy',\), not a number"),
    ],
)
def test_labels_that_are_no_numbers_or_too_few(labels, complaint):
    with pytest.raises(UserError, match=complaint):
        Examples((TEXTS,), labels)


@pytest.mark.parametrize(
    ("problem", "labels", "complaint"),
    [
        (SINGLE, [2, 0] * 4, r"labels\[0\] is 2\. .*the index of its name, from 0 to 1; -1 if"),
        (SINGLE, [0, -2] * 4, r"labels\[1\] is -2\. "),
        (SINGLE, [0.5, 0.0] * 4, r"labels\[0\] is 0\.5\. "),
        (SINGLE, [0, np.inf] * 4, r"labels\[1\] is inf\. "),
        (SINGLE, [[1, 0]] * 8, r"the shape \(8, 2\), not \(8,\)"),
        (SINGLE, [[1]] * 8, r"the shape \(8, 1\), not \(8,\)"),
        (MULTI, [0, 1] * 4, r"the shape \(8,\), not \(8, 3\)\. .* 3 zeros and ones"),
        (MULTI, [[0, 1]] * 8, r"the shape \(8, 2\), not \(8, 3\)"),
        (MULTI, [[0, 0, 1]] * 7 + [[0, 0, 2]], r"labels\[7\] is \[0 0 2\]\. "),
        (MULTI, [[0, 0, 0.5]] * 8, r"labels\[0\] is \[0\. +0\. +0\.5\]\. "),
        (MULTI, [[0, 0, -1]] * 8, r"labels\[0\] is \[ 0 +0 -1\]\. "),
        (MULTI, [[0, 0, NAN]] * 8, r"labels\[0\] is \[ 0\. +0\. +nan\]\. "),
        (NUMBER, [1.5, np.inf] * 4, r"labels\[1\] is inf\. .* a finite number; NaN if"),
        (NUMBER, [1.5, 1e300] * 4, r"labels\[1\] is 1e\+300\. "),
        (NUMBER, [[1.5]] * 8, r"the shape \(8, 1\), not \(8,\)"),
    ],
)
def test_labels_that_the_problem_has_not(make, problem, labels, complaint):
    examples = Examples((TEXTS,), labels)
    for call in (make(problem).tokenize, make(problem).evaluate):
        with pytest.raises(UserError, match=complaint):
            call(examples)


@pytest.mark.parametrize(
    ("problem", "labels", "expected"),
    [
        (SINGLE, [1, 0] * 4, np.array([1, 0] * 4, np.int32)),
        (SINGLE, [True, False] * 4, np.array([1, 0] * 4, np.int32)),
        (SINGLE, np.array([1, 0] * 4, np.uint8), np.array([1, 0] * 4, np.int32)),
        (SINGLE, [1.0, 0.0, NAN, -1] * 2, np.array([1, 0, -1, -1] * 2, np.int32)),
        (MULTI, [[True, False, True]] * 8, np.array([[1, 0, 1]] * 8, np.float32)),
        (MULTI, [[1, 0, 1], [NAN] * 3] * 4, np.array([[1, 0, 1], [NAN] * 3] * 4, np.float32)),
        (NUMBER, [1, 2] * 4, np.array([1, 2] * 4, np.float32)),
        (NUMBER, [-1.5, NAN] * 4, np.array([-1.5, NAN] * 4, np.float32)),
    ],
)
def test_other_dtypes_and_labels_that_are_not_known(make, problem, labels, expected):
    rows = make(problem).tokenize(Examples((TEXTS,), labels))
    found = rows.columns["label"].numpy()
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert len(make(problem).logits(rows)) == 8


@pytest.mark.parametrize(
    ("problem", "labels", "value"),
    [
        (SINGLE, [1, -1] * 4, "-1"),
        (MULTI, [[1.0, 0, 1], [NAN] * 3] * 4, r"\[nan nan nan\]"),
        (NUMBER, [1.5, NAN] * 4, "nan"),
    ],
)
def test_no_training_on_labels_that_are_not_known(encoder, problem, labels, value):
    complaint = rf"labels\[1\] is {value}: the label is not known, as in 4 of 8 rows\. Leave"
    with pytest.raises(UserError, match=complaint):
        build_classifier(encoder, problem, labels=np.array(labels), max_seq_length=16)
    classifier = build_classifier(
        encoder, problem, EncoderConfig(freeze="encoder"), max_seq_length=16
    )
    rows = classifier.tokenize(Examples((TEXTS,), labels))
    for plan in (plan_batches, make_train_dataset):
        with pytest.raises(UserError, match=complaint):
            plan(rows, 8)


@pytest.mark.parametrize("labels", [["good", "bad"], [2, 0], [0.5, 1.0], [[0, 1], [1, 0]]])
def test_wrong_labels_for_the_weights_of_classes(encoder, labels):
    with pytest.raises(UserError, match=r"labels\[0\] is |The labels have the shape"):
        build_classifier(encoder, SINGLE, labels=np.array(labels))


@pytest.mark.parametrize(("problem", "columns"), [(SINGLE, 2), (PAIR, 1), (PAIR, 3)])
def test_another_number_of_columns_than_the_problems(make, problem, columns):
    needed = len(problem.text_columns)
    complaint = f"The examples have {columns} text columns, the problem {needed}: "
    with pytest.raises(UserError, match=complaint):
        make(problem).tokenize(Examples((TEXTS,) * columns, [0, 1] * 4))


@pytest.mark.parametrize(
    ("problem", "texts", "complaint"),
    [
        (SINGLE, "great fun", r"One text is given as a list of one: \['great fun'\]"),
        (PAIR, "great fun", "One text is given as a list of one"),
        (SINGLE, b"great", "One text is given as a list of one"),
        (SINGLE, ["a", b"b"], r"texts\[0\]\[1\] is b'b'"),
        (SINGLE, ["a", None], r"texts\[0\]\[1\] is None"),
        (SINGLE, [None], r"texts\[0\]\[0\] is None"),
        (SINGLE, [TEXTS, TEXTS], "text columns text: give one list .* 2 values, of which 2 are"),
        (SINGLE, ["a", TEXTS], "given were 2 values, of which 1 are lists"),
        (PAIR, ["a", "b"], "text columns left, right: .* of which 0 are lists"),
        (PAIR, [TEXTS, TEXTS[1:]], r"of lengths \[8, 7\]"),
        (PAIR, [("a", "b")] * 3, "given were 3 values, of which 3 are lists"),
        (PAIR, [TEXTS, None], "given were 2 values, of which 1 are lists"),
    ],
)
def test_wrong_texts_to_predict(make, problem, texts, complaint):
    classifier = make(problem)
    with pytest.raises(UserError, match=complaint):
        classifier.predict(texts)
    with pytest.raises(UserError, match=complaint):
        predict(
            *(classifier.forward, classifier.encoder.preprocessor, problem, texts),
            max_seq_length=16,
        )


def test_any_sequence_of_texts_is_predicted(make):
    pandas = pytest.importorskip("pandas")
    series = pandas.Series(TEXTS, index=range(3, 11))
    for texts in (TEXTS, tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, object), series):
        assert len(make(SINGLE).predict(texts)) == len(make(SINGLE).predict([texts])) == 8
        assert len(make(PAIR).predict([texts, texts])) == 8
        assert len(Examples((texts,), [0, 1] * 4)) == 8
    for empty in ([], [[]], np.array([], str)):
        assert len(make(SINGLE).predict(empty)) == 0
    with pytest.raises(UserError, match="batch_size=0: must be >= 1"):
        make(SINGLE).predict(TEXTS, batch_size=0)
