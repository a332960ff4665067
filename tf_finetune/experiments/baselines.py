"""The simplest things that work: always saying the most frequent label, and TF-IDF."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import Problem
from tf_finetune.experiments.judged import Judged

# Of more training rows a sample is fitted.
MOST_ROWS = 20_000
FOLDS = 3


def judge(outputs: np.ndarray, truth: np.ndarray, problem: Problem) -> Judged:
    """Turns probabilities, float [n, num_labels], or a regression's numbers into predictions."""
    if problem.problem_type == "regression":
        return Judged("regression", truth, outputs)
    if problem.problem_type == "multi_label":
        return Judged("multi_label", truth, outputs >= problem.threshold, outputs)
    return Judged("single_label", truth, outputs.argmax(axis=1), outputs)


def majority(labels: np.ndarray, rows: int, problem: Problem) -> np.ndarray:
    """Returns what always saying the most frequent training label (the mean) is, for each row.

    Of several labels it says those of at least half of the training rows, else the most frequent.
    """
    if problem.problem_type == "regression":
        return np.full(rows, labels.mean(dtype=np.float64))
    if problem.problem_type == "multi_label":
        shares = labels.mean(axis=0, dtype=np.float64)
        said = shares >= min(0.5, shares.max())
    else:
        counts = np.bincount(labels, minlength=problem.num_outputs)
        said = np.arange(problem.num_outputs) == counts.argmax()
    return np.tile(said.astype(np.float64), (rows, 1))


@dataclass(frozen=True)
class Tfidf:
    """TF-IDF of words and pairs of words, and a linear model on it, of scikit-learn.

    Of two texts it has each one's words, those of only one of them, and those of both.

    Attributes:
        problem: What it learns: by logistic regression, of a number by ridge regression.
        vectorizer: The fitted vectorizer.
        features: The training rows' sparse features.
        labels: The training rows' labels.
    """

    problem: Problem
    vectorizer: Any
    features: Any
    labels: np.ndarray

    def predict(self, texts: Sequence[Sequence[str]]) -> np.ndarray:
        """Learns from all training rows; returns probabilities or numbers for other texts."""
        return self._outputs(self.features, self.labels, self.transform(texts))

    def out_of_fold(self, seed: int) -> np.ndarray:
        """Returns the same for each training row, from a model that was not fitted on it."""
        shape = len(self.labels) if self.labels.ndim == 1 else self.labels.shape
        outputs = np.zeros(shape)
        if self.problem.problem_type == "single_label":
            outputs = np.zeros((len(self.labels), self.problem.num_outputs))
        fold = np.random.default_rng(seed).permutation(len(self.labels)) % FOLDS
        for held_out in range(FOLDS):
            rest, rows = np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)
            outputs[rows] = self._outputs(
                self.features[rest], self.labels[rest], self.features[rows]
            )
        return outputs

    def transform(self, texts: Sequence[Sequence[str]]) -> Any:
        """Returns the sparse features of texts, given by column."""
        return _features(self.vectorizer, texts)

    def _outputs(self, features: Any, labels: np.ndarray, rows: Any) -> np.ndarray:
        if self.problem.problem_type == "regression":
            from sklearn.linear_model import Ridge

            return Ridge(alpha=1.0).fit(features, labels).predict(rows)
        if self.problem.problem_type == "multi_label":
            columns = [
                _logistic(features, column.astype(int), rows, 2)[:, 1] for column in labels.T
            ]
            return np.stack(columns, axis=1)
        return _logistic(features, labels, rows, self.problem.num_outputs)


def _logistic(features: Any, labels: np.ndarray, rows: Any, num_labels: int) -> np.ndarray:
    """Learns labels by logistic regression; returns the probabilities of other rows."""
    from sklearn.linear_model import LogisticRegression

    outputs, known = np.zeros((rows.shape[0], num_labels)), np.unique(labels)
    if len(known) == 1:  # scikit-learn refuses to learn nothing.
        outputs[:, known] = 1
        return outputs
    # By single rows, which for 77 labels takes seconds where solvers by all rows take minutes; few
    # rows are seen more often.
    passes = int(np.clip(200_000 / features.shape[0], 20, 1_000))
    model = LogisticRegression(C=10, solver="saga", max_iter=passes, tol=1e-3, random_state=0)
    with warnings.catch_warnings():
        # Of passes that were too few to converge, and of many labels.
        warnings.simplefilter("ignore", UserWarning)
        model.fit(features, labels)
    outputs[:, model.classes_] = model.predict_proba(rows)
    return outputs


def fit_tfidf(train: Examples, problem: Problem) -> Tfidf | None:
    """Reads the words of training rows; None: they hold none.

    Args:
        train: Labelled rows.
        problem: What they teach.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"
    )
    try:
        vectorizer.fit([text for column in train.texts for text in column])
    except ValueError:  # An empty vocabulary.
        return None
    assert train.labels is not None
    labels = train.labels > 0.5 if problem.problem_type == "multi_label" else train.labels
    return Tfidf(problem, vectorizer, _features(vectorizer, train.texts), labels)


def sampled(examples: Examples, count: int, seed: int) -> tuple[Examples, np.ndarray]:
    """Returns at most so many rows, drawn by chance, in their order, and their places."""
    if len(examples) <= count:
        return examples, np.arange(len(examples))
    rows = np.sort(np.random.default_rng(seed).permutation(len(examples))[:count])
    texts = tuple([column[row] for row in rows] for column in examples.texts)
    labels = None if examples.labels is None else examples.labels[rows]
    locations = [examples.locations[row] for row in rows] if len(examples.locations) else []
    return Examples(texts, labels, locations), rows


def _features(vectorizer: Any, texts: Sequence[Sequence[str]]) -> Any:
    from scipy import sparse

    parts = [vectorizer.transform(column) for column in texts]
    if len(parts) == 2:
        one, other = parts
        parts += [abs(one - other), one.multiply(other)]
        # How alike they are.
        parts.append(sparse.csr_matrix(parts[-1].sum(axis=1)))
    return sparse.csr_matrix(sparse.hstack(parts))
