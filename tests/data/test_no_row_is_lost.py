"""Rows are counted in and out: what is not an example of a split is told with its number."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import load_data
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig

LABELS = st.sampled_from(["good", "bad", "so so", "", None, "-", "N/A"])
LEFT_OUT = re.compile(r"([\d,]+) rows? of train (?:without a label|with the label .*) left out")


def told(notices: Any) -> int:
    """The rows that notices say to be left out of training."""
    found = filter(None, map(LEFT_OUT.match, notices))
    return sum(int(match[1].replace(",", "")) for match in found)


def write(path: Path, rows: list[tuple[str, Any]]) -> str:
    """Writes rows in the form of the file's extension."""
    if path.suffix == ".tsv":
        lines = ["text\tlabel", *(f"{text}\t{label or ''}" for text, label in rows)]
    elif path.suffix == ".csv":
        lines = ["text;label", *(f'"{text}";{label or ""}' for text, label in rows)]
    else:
        objects = [{"text": t, **({} if y is None else {"label": y})} for t, y in rows]
        lines = list(map(json.dumps, objects))
        if path.suffix == ".json":
            lines = [json.dumps(objects, indent=1)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)


@settings(max_examples=400, deadline=None)
@given(
    labels=st.lists(LABELS, min_size=2, max_size=40),
    kind=st.sampled_from(["csv", "tsv", "jsonl", "json"]),
    ignored=st.sampled_from([(), ("-",), ("-", "N/A"), ("so so",)]),
    shares=st.sampled_from([(None, None), (0.2, None), (0.1, 0.2)]),
)
def test_every_row_is_an_example_or_is_told(
    tmp_path_factory: pytest.TempPathFactory,
    labels: list[Any],
    kind: str,
    ignored: tuple[str, ...],
    shares: tuple[float | None, float | None],
) -> None:
    # Each text twice, so that duplicates are among them.
    rows = [(f"text {number // 2}", label) for number, label in enumerate(labels)]
    path = write(tmp_path_factory.mktemp("rows") / f"a.{kind}", rows)
    config = DataConfig(train_file=path, validation_fraction=shares[0], test_fraction=shares[1])
    try:
        data = load_data(config, LabelConfig(label_column="label", ignore_labels=ignored))
    except UserError:
        return
    names = data.problem.label_names
    kept: Counter[tuple[str, str | None]] = Counter()
    for examples in data.splits.values():
        assert examples.labels is not None
        found = [names[label] if label >= 0 else None for label in examples.labels.tolist()]
        kept.update(zip(examples.texts[0], found, strict=True))
        assert len(set(examples.locations)) == len(examples)
    expected = Counter((t, y) for t, y in rows if y and y not in ignored)
    assert +(Counter({key: n for key, n in kept.items() if key[1]}) - expected) == Counter()
    assert expected - kept == Counter()
    if shares == (None, None):
        assert sum(kept.values()) + told(data.notices) == len(rows)


def test_the_reference_data_are_whole(shared_data: Path) -> None:
    config = DataConfig(
        train_file=str(shared_data / "banking77/train.csv"),
        validation_fraction=0.1,
        test_fraction=0.2,
    )
    data = load_data(config, LabelConfig(label_column="category"))
    sizes = {split: len(examples) for split, examples in data.splits.items()}
    assert sum(sizes.values()) == 10_003
    assert sizes["validation"] == pytest.approx(1000, abs=77)
    assert sizes["test"] == pytest.approx(2000, abs=77)
    assert data.train and data.test and data.train.labels is not None
    counts = Counter(data.train.labels.tolist()) + Counter(data.test.labels.tolist())
    for label, held in Counter(data.test.labels.tolist()).items():
        assert held / counts[label] == pytest.approx(0.22, abs=0.06)
    split_of: dict[str, str] = {}
    for split, examples in data.splits.items():
        for text in examples.texts[0]:
            assert split_of.setdefault(" ".join(text.lower().split()), split) == split
