"""`Layout`: the columns, labels and files of a data set; `TASKS`: the layouts of known ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tf_finetune.data.problem import ProblemType
from tf_finetune.data.splits import USUAL_FILES


@dataclass(frozen=True)
class Layout:
    """The columns, labels and files of a data set; `Layout()` is that of an unknown one.

    Attributes:
        text_columns: One or two columns; empty: inferred from the files' columns.
        label_column: None: inferred.
        label_columns: A column of 0 and 1 for each label, in place of `label_column`.
        problem_type: None: inferred from the labels.
        label_names: By index; empty: learnt from the training data or read from `labels.txt`.
        metric_for_best_model: None: by the problem type.
        train_file: File names in the folder `data_dir`; the first that exists is taken.
        validation_file: The same.
        test_file: The same.
        tfds_name: Name in TensorFlow Datasets.
        aliases: Other names of the columns above in some distributions of the data.
        header: The columns of files that come without a header line.
        skip_ragged: Leave out rows with too few columns: known damage in the original files.
    """

    text_columns: tuple[str, ...] = ()
    label_column: str | None = None
    problem_type: ProblemType | None = None
    label_names: tuple[str, ...] = ()
    metric_for_best_model: str | None = None
    train_file: tuple[str, ...] = USUAL_FILES["train"]
    validation_file: tuple[str, ...] = USUAL_FILES["validation"]
    test_file: tuple[str, ...] = USUAL_FILES["test"]
    tfds_name: str | None = None
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    header: tuple[str, ...] = ()
    skip_ragged: bool = False
    label_columns: tuple[str, ...] = ()

    @property
    def known_files(self) -> dict[str, tuple[str, ...]]:
        """The file names of each split."""
        return {
            "train": self.train_file,
            "validation": self.validation_file,
            "test": self.test_file,
        }


# GLUE: columns and label names as in TensorFlow Datasets and Hugging Face; the aliases and headers
# are those of the original .tsv files (https://gluebenchmark.com). Metrics as GLUE reports them.
TASKS: dict[str, Layout] = {
    "cola": Layout(
        ("sentence",),
        "label",
        "single_label",
        ("unacceptable", "acceptable"),
        "matthews_correlation",
        tfds_name="glue/cola",
        header=("source", "label", "original_mark", "sentence"),
    ),
    "sst2": Layout(
        ("sentence",),
        "label",
        "single_label",
        ("negative", "positive"),
        "accuracy",
        tfds_name="glue/sst2",
    ),
    "mrpc": Layout(
        ("sentence1", "sentence2"),
        "label",
        "single_label",
        ("not_equivalent", "equivalent"),
        "f1",
        tfds_name="glue/mrpc",
        aliases={
            "sentence1": ("#1 String",),
            "sentence2": ("#2 String",),
            "label": ("Quality",),
        },
    ),
    "qqp": Layout(
        ("question1", "question2"),
        "label",
        "single_label",
        ("not_duplicate", "duplicate"),
        "f1",
        tfds_name="glue/qqp",
        aliases={"label": ("is_duplicate",)},
        skip_ragged=True,
    ),
    "stsb": Layout(
        ("sentence1", "sentence2"),
        "label",
        "regression",
        metric_for_best_model="pearson",
        tfds_name="glue/stsb",
        aliases={"label": ("score",)},
    ),
    "mnli": Layout(
        ("premise", "hypothesis"),
        "label",
        "single_label",
        ("entailment", "neutral", "contradiction"),
        "accuracy",
        validation_file=("dev_matched.tsv",),
        test_file=("test_matched.tsv",),
        tfds_name="glue/mnli",
        aliases={
            "premise": ("sentence1",),
            "hypothesis": ("sentence2",),
            "label": ("gold_label",),
        },
    ),
    "qnli": Layout(
        ("question", "sentence"),
        "label",
        "single_label",
        ("entailment", "not_entailment"),
        "accuracy",
        tfds_name="glue/qnli",
    ),
    "rte": Layout(
        ("sentence1", "sentence2"),
        "label",
        "single_label",
        ("entailment", "not_entailment"),
        "accuracy",
        tfds_name="glue/rte",
    ),
    "wnli": Layout(
        ("sentence1", "sentence2"),
        "label",
        "single_label",
        ("not_entailment", "entailment"),
        "accuracy",
        tfds_name="glue/wnli",
    ),
    "banking77": Layout(("text",), "category", "single_label", metric_for_best_model="accuracy"),
    # The 28 names are in the labels.txt next to the data; the label column holds their indices.
    "goemotions": Layout(("text",), "labels", "multi_label", metric_for_best_model="micro_f1"),
    "sick_entailment": Layout(
        ("sentence_A", "sentence_B"),
        "entailment",
        "single_label",
        ("ENTAILMENT", "NEUTRAL", "CONTRADICTION"),
        "accuracy",
    ),
    "sick_relatedness": Layout(
        ("sentence_A", "sentence_B"),
        "relatedness",
        "regression",
        metric_for_best_model="pearson",
    ),
}
