from pathlib import Path

import pytest

from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import TextData, load_data
from tf_finetune.data.problem import DEFAULT_METRICS, Problem
from tf_finetune.data.tasks import TASKS
from tf_finetune.runs.config import DataConfig

# Task, folder, rows, number of labels, metric.
REFERENCE = [
    ("banking77", "banking77", (10_003, None, 3_080), 77, "accuracy"),
    ("cola", "cola", (8_551, 1_043, None), 2, "matthews_correlation"),
    ("mrpc", "mrpc", (4_076, None, 1_725), 2, "f1"),
    ("sst2", "sst2", (60_614, 6_735, 872), 2, "accuracy"),
    ("goemotions", "goemotions", (43_410, 5_426, 5_427), 28, "micro_f1"),
    ("sick_entailment", "sick", (4_500, 500, 4_927), 3, "accuracy"),
    ("sick_relatedness", "sick", (4_500, 500, 4_927), 1, "pearson"),
]


def load(task: str, folder: Path) -> TextData:
    return load_data(DataConfig(data_dir=str(folder)), LabelConfig(task_name=task))


@pytest.mark.parametrize(("task", "folder", "rows", "outputs", "metric"), REFERENCE)
def test_reference_data(
    shared_data: Path, task: str, folder: str, rows: tuple, outputs: int, metric: str
) -> None:
    data = load(task, shared_data / folder)
    splits = (data.train, data.validation, data.test)
    assert tuple(split and len(split) for split in splits) == rows
    assert data.problem.num_outputs == outputs
    assert data.metric_for_best_model == metric
    assert data.problem.problem_type == TASKS[task].problem_type
    for split in splits:
        if split:
            assert len(split.texts) == len(data.problem.text_columns)
            assert len(split.labels) == len(split.locations) == len(split.texts[0])


def test_label_names_of_the_reference_data(shared_data: Path) -> None:
    data = load("mrpc", shared_data / "mrpc")
    assert data.train and data.train.labels[:2].tolist() == [1, 0]
    assert data.problem.label_names == ("not_equivalent", "equivalent")
    data = load("goemotions", shared_data / "goemotions")
    assert data.validation and data.validation.labels[1].nonzero()[0].tolist() == [4, 27]
    assert data.problem.label_names[27] == "neutral"


# The columns of the files that GLUE's own download script leaves behind.
GLUE = {
    "cola": ["gj04\t1\t\tA text.", "gj04\t0\t*\tB text."],
    "sst2": ["sentence\tlabel", "A text.\t1", "B text.\t0"],
    "mrpc": [
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        '1\t70\t71\tA text.\tB "text',
        "0\t72\t73\tC text.\tD text.",
    ],
    "qqp": [
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        "1\t2\t3\tA text.\tB text.\t1",
        "4\t5\t6\tbroken off",
        "7\t8\t9\tC text.\tD text.\t0",
    ],
    "stsb": [
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "0\tg\tf\t2012\t1\tnone\tnone\tA text.\tB text.\t5.000",
        "1\tg\tf\t2012\t4\tnone\tnone\tC text.\tD text.\t3.800",
    ],
    "mnli": [
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
        "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
        "0\t1\t1n\tg\tp\tp\tp\tp\tA text.\tB text.\tneutral\tneutral",
        "1\t2\t2e\tg\tp\tp\tp\tp\tC text.\tD text.\tentailment\tentailment",
    ],
    "qnli": [
        "index\tquestion\tsentence\tlabel",
        "0\tA text.\tB text.\tentailment",
        "1\tC text.\tD text.\tnot_entailment",
    ],
    "rte": [
        "index\tsentence1\tsentence2\tlabel",
        "0\tA text.\tB text.\tnot_entailment",
        "1\tC text.\tD text.\tentailment",
    ],
    "wnli": ["index\tsentence1\tsentence2\tlabel", "0\tA text.\tB text.\t1", "1\tC\tD\t0"],
}
GLUE_LABELS = {
    "cola": [1, 0],
    "sst2": [1, 0],
    "mrpc": [1, 0],
    "qqp": [1, 0],
    "stsb": [5.0, 3.8],
    "mnli": [1, 0],
    "qnli": [0, 1],
    "rte": [1, 0],
    "wnli": [1, 0],
}
GLUE_TEST = {
    "cola": ["index\tsentence", "0\tE text."],
    "mrpc": ["index\t#1 ID\t#2 ID\t#1 String\t#2 String", "0\t70\t71\tE text.\tF text."],
    "qqp": ["id\tquestion1\tquestion2", "0\tE text.\tF text."],
    "mnli": [GLUE["mnli"][0].rsplit("\t", 2)[0], "0\t1\t1n\tg\tp\tp\tp\tp\tE text.\tF text."],
}


@pytest.mark.parametrize("task", GLUE)
def test_glue_files(tmp_path: Path, task: str) -> None:
    dev, test = (
        ("dev_matched.tsv", "test_matched.tsv") if task == "mnli" else ("dev.tsv", "test.tsv")
    )
    (tmp_path / "train.tsv").write_text("\n".join(GLUE[task]) + "\n", "utf-8")
    (tmp_path / dev).write_text("\n".join(GLUE[task]) + "\n", "utf-8")
    if task in GLUE_TEST:
        (tmp_path / test).write_text("\n".join(GLUE_TEST[task]) + "\n", "utf-8")
    data = load(task, tmp_path)
    assert data.train and data.validation
    assert data.train.labels.tolist() == pytest.approx(GLUE_LABELS[task])
    assert [column[0] for column in data.train.texts] == (
        ["A text."] if task in ("cola", "sst2") else ["A text.", data.train.texts[1][0]]
    )
    assert len(data.validation) == 2
    if task in GLUE_TEST:
        assert data.test and data.test.labels is None and data.test.texts[0] == ["E text."]


def test_rows_are_skipped_only_where_the_damage_is_known(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("\n".join(GLUE["qqp"]) + "\n", "utf-8")
    data = load("qqp", tmp_path)
    assert data.train and data.train.locations == [
        f"{tmp_path}/train.tsv:2",
        f"{tmp_path}/train.tsv:4",
    ]
    assert [name for name, task in TASKS.items() if task.skip_ragged] == ["qqp"]


@pytest.mark.parametrize("name", TASKS)
def test_tasks_are_consistent(name: str) -> None:
    task = TASKS[name]
    assert task.problem_type in DEFAULT_METRICS and task.metric_for_best_model
    assert len(task.text_columns) in (1, 2) and task.label_column
    assert set(task.aliases) <= {*task.text_columns, task.label_column}
    if task.problem_type == "regression":
        assert not task.label_names


def test_number_of_outputs() -> None:
    assert Problem("regression", ("a",)).num_outputs == 1
    assert Problem("multi_label", ("a",), ("x", "y", "z")).num_outputs == 3
