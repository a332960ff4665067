"""The report of runs whose files were written by hand."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tf_finetune.experiments.report import main
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.report import report_files

WORDS = {"good": "great fine lovely", "bad": "awful dull boring"}


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """Rows whose words tell their label, which TF-IDF learns."""
    random = np.random.default_rng(seed)
    rows = []
    for place in range(count):
        label = ("good", "bad")[place % 2]
        noise = "".join(random.choice(list("abcdefgh"), 6))
        rows.append((f"a {random.choice(WORDS[label].split())} film {noise}", label))
    return rows


def judged(rows: list[tuple[str, str]], wrong: int = 0, sure: float = 0.9) -> list:
    """Rows with the probabilities of a model that errs in the first `wrong` ones."""
    found = []
    for place, (text, label) in enumerate(rows):
        right = label if place >= wrong else ("good" if label == "bad" else "bad")
        other = "good" if right == "bad" else "bad"
        found.append((text, label, {right: sure, other: 1 - sure}))
    return found


def report_of(model_dir: ModelDir, *flags: str) -> tuple[dict, str]:
    assert main([str(model_dir), *flags]) == 0
    page = Path(report_files(model_dir).html).read_text(encoding="utf-8")
    return json.loads(Path(report_files(model_dir).json).read_text(encoding="utf-8")), page


class Parsed(HTMLParser):
    """Collects tags with their attributes, and the text outside of styles and scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_a_model_that_tfidf_beats_says_so_first(make_run, capsys):
    model_dir = make_run(sentences(60, 0), judged(sentences(40, 1), wrong=20))
    report, page = report_of(model_dir)
    first = "This model does not beat TF-IDF with logistic regression: accuracy 0.500 against 1.000"
    assert report["headline"].startswith(first)
    assert re.search(r"<body>\s*<main>\s*<h1>([^<]*)", page)[1].startswith(first)
    assert first in capsys.readouterr().out
    assert any("linear model" in part["seen"] for part in report["advice"])
    test = report["comparison"]["paired"]["tfidf"]["mcnemar"]
    assert (test["only_base"], test["only_tuned"], test["both_right"]) == (20, 0, 20)
    assert test["p_value"] == pytest.approx(2 * 0.5**20)


def test_a_model_that_is_better_or_as_good_is_told_apart(make_run):
    # Labels that the words do not tell.
    blind, rows = ([("a film", label) for _, label in sentences(n, 0)] for n in (60, 40))
    assert report_of(make_run(blind, judged(rows)))[0]["headline"].startswith(
        "This model beats TF-IDF with logistic regression: accuracy 1.000 against"
    )
    seen = sentences(60, 0)
    report, _ = report_of(make_run(seen, judged(sentences(40, 1), wrong=0)))
    assert report["headline"].startswith("This model does not beat TF-IDF")


def test_texts_of_the_data_are_only_texts(make_run):
    hostile = (
        "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e\x00\"'&amp;$x^2$ %s {{7*7}}"
    )
    names = ("bad</title><b>", "go\"od' onload='x")
    rows = [(f"{hostile} {n}", names[n % 2]) for n in range(20)]
    said = [(text, label, {names[0]: 0.9, names[1]: 0.1}) for text, label in rows]
    report, page = report_of(make_run(rows, said, names))
    parsed = Parsed(page)
    assert not parsed.of("script") and not parsed.of("img") and not parsed.of("b")
    assert not [tag for tag, attributes in parsed.tags if set(attributes) & {"onerror", "onload"}]
    assert "<script>alert(1)</script>" in parsed.text and "{{7*7}}" in parsed.text
    assert "\u202e" not in page and "\x00" not in page
    assert report["errors"][0]["texts"]["text"].startswith(hostile)


def test_the_page_is_whole_and_can_be_read_aloud(make_run):
    _, page = report_of(make_run(sentences(60, 0), judged(sentences(40, 1), wrong=5)))
    parsed = Parsed(page)
    # Nothing is fetched.
    links = [a.get(name, "") for _, a in parsed.tags for name in ("src", "href", "xlink:href")]
    assert all(link.startswith(("#", "data:")) for link in links if link)
    assert "url(http" not in page and "@import" not in page
    assert len(parsed.of("h1")) == 1 and len(parsed.of("h2")) > 6
    assert len(parsed.of("caption")) == len(parsed.of("table")) > 3
    drawn = parsed.of("svg")
    assert len(drawn) > 3 and all(svg["role"] == "img" and svg["aria-label"] for svg in drawn)
    assert len(parsed.of("desc")) == len(drawn)
    assert parsed.of("html") == [{"lang": "en"}]
    assert {a["scope"] for a in parsed.of("th")} == {"row", "col"}
    # Every colour of a figure is the page's, so that it is light and dark.
    assert not re.findall(
        r"(?:fill|stroke): ?#(?!ffffff|000000)", "".join(re.findall(r"<svg.*?</svg>", page, re.S))
    )
    # Each target of a link within the page is there, once.
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_77_labels(make_run):
    random = np.random.default_rng(0)
    names = [f"label_{n:02}" for n in range(77)]
    train = [(f"word{n % 77} a b", names[n % 77]) for n in range(77 * 4)]
    rows = []
    for n in range(77 * 5):
        shares = random.dirichlet(np.full(77, 0.1)) + 2.0 * (np.arange(77) == n % 77)
        # 5 and 60 are taken for each other.
        if n % 77 in (5, 60):
            shares[65 - n % 77] += 3
        rows.append(
            (f"word{n % 77}", names[n % 77], dict(zip(names, shares / shares.sum(), strict=True)))
        )
    report, page = report_of(make_run(train, rows, names))
    matrix = np.array(report["confusion"]["counts"])
    assert matrix.shape == (77, 77) and matrix.sum() == len(rows)
    order = report["confusion"]["labels"]
    assert sorted(order) == names and abs(order.index("label_05") - order.index("label_60")) == 1
    assert {(p["truth"], p["said"]) for p in report["confusion"]["pairs"][:2]} == {
        ("label_05", "label_60"),
        ("label_60", "label_05"),
    }
    assert len(report["by_label"]) == 77 and len(page) < 2_000_000


def test_what_exports_lose_and_cost_is_told(make_run):
    model_dir = make_run(sentences(60, 0), judged(sentences(40, 1)))
    numbers = {"score": 0.875, "loss": 0.25, "rows_per_second": 1234.6, "milliseconds": 3.21}
    one = {"quantization": "int8", **numbers, "megabytes": 23.5}
    model_dir.save_metrics({"exports": {"openvino": one}})
    report, page = report_of(model_dir)
    assert report["exports"]["openvino"] == one
    text = " ".join(Parsed(page).text.split())
    assert "What an answer costs" in text
    assert re.search(r"openvino, int8\s+0.8750\s+0.25\s+1,235\s+3.2\s+23.5", text)


def test_a_teacher_the_model_and_its_exports_stand_in_one_table(make_run):
    model_dir = make_run(sentences(60, 0), judged(sentences(40, 1)))
    speed = {"rows_per_second": 50.2, "milliseconds": 21.5}
    teacher = {"quantization": "float32", "score": 0.9, "loss": -2.5, **speed, "megabytes": 90.9}
    own = {**teacher, "score": 0.875, "loss": 0.0, "milliseconds": 11.25, "weights": 17_420_000}
    export = {**own, "quantization": "int8", "loss": 0.25, "megabytes": 17.6}
    del export["weights"]
    model_dir.save_metrics(
        {"prices": {"model": own, "teacher": {**teacher, "weights": 22_740_000}}}
    )
    model_dir.save_metrics({"exports": {"onnx": export}})
    report, page = report_of(model_dir)
    assert report["prices"]["model"] == own
    text = " ".join(Parsed(page).text.split())
    rows = ("the teacher, float32 0.9000 -2.50 50 21.5 90.9 22,740,000",)
    rows += ("this model, float32 0.8750 0.00 50 11.2 90.9 17,420,000",)
    rows += ("onnx, int8 0.8750 0.25 50 11.2 17.6 17,420,000",)
    assert " ".join(rows) in text


def test_what_is_not_there_is_said(make_run):
    model_dir = make_run(sentences(20, 0))
    report, page = report_of(model_dir)
    assert report["headline"] == "This run was not evaluated."
    assert "--do_eval writes them." in page and "no log of the training" in page
    # The training file has gone.
    model_dir = make_run(sentences(20, 0), judged(sentences(10, 1)))
    (Path(model_dir.path).parent / "train.jsonl").unlink()
    report, page = report_of(model_dir)
    assert report["headline"] == "Accuracy 1.000 on 10 test rows."
    assert "cannot be read any more" in page and set(report["comparison"]["models"]) == {"tuned"}


def test_predictions_serve_where_no_evaluation_was_kept(make_run):
    model_dir = make_run(sentences(20, 0), judged(sentences(10, 1)))
    Path(report_files(model_dir).evaluated).rename(model_dir.predictions_jsonl)
    assert report_of(model_dir)[0]["comparison"]["models"]["tuned"]["rows"] == 10


def test_what_cannot_be_read_is_an_error(make_run, tmp_path, capsys, monkeypatch):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere holds no" in capsys.readouterr().err
    model_dir = make_run(sentences(20, 0), judged(sentences(10, 1)))
    for damage in (
        "{",
        '{"label": "good"}',
        '{"texts": {"text": ""}, "label": "ugly", "probabilities": {"bad": 1, "good": 0}}',
    ):
        Path(report_files(model_dir).evaluated).write_text(damage + "\n")
        assert main([str(model_dir)]) == 2
        error = capsys.readouterr().err
        assert "evaluated.jsonl" in error and "--do_eval" in error and "Traceback" not in error
    assert not Path(report_files(model_dir).html).exists()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([str(model_dir)]) == 2
    assert "pip install 'tf-finetune[report]'" in capsys.readouterr().err


def test_several_labels_and_numbers_have_reports_too(make_run):
    names = ("joy", "anger", "fear")
    rows = [(f"word{n % 3} text {n % 7}", [names[n % 3]] * (n % 4 > 0)) for n in range(48)]
    said = []
    for n, (text, true) in enumerate(rows):
        # Every eighth row has a label too many, and lacks its own.
        shares = {name: 0.9 if (name in true) != (n % 8 == 1) else 0.1 for name in names}
        said.append((text, true, shares))
    model_dir = make_run(rows, said, names, problem_type="multi_label", label_format="list")
    evaluated = Path(report_files(model_dir).evaluated)
    records = [json.loads(line) for line in evaluated.read_text().splitlines()]
    reports = []
    for threshold in (0.05, 0.5):
        for record in records:
            shares = record["probabilities"]
            record["prediction"] = [name for name in names if shares[name] >= threshold]
        evaluated.write_text("".join(json.dumps(record) + "\n" for record in records))
        reports.append(report_of(model_dir)[0])
    every, report = reports
    told = [part for part in every["advice"] if "144 labels are predicted" in part["seen"]]
    assert "--tune_thresholds=true" in told[0]["command"]
    assert "--validation_fraction=0.1" in told[0]["command"]  # The run has no validation rows.
    assert not any("labels are predicted" in part["seen"] for part in report["advice"])
    assert report["comparison"]["metric"] == "micro_f1"
    assert report["comparison"]["models"]["tuned"]["scores"]["accuracy"]["value"] == 42 / 48
    assert report["confusion"]["pairs"] and "counts" not in report["confusion"]
    assert sum(part["rows"] for part in report["by_label"]) == sum(len(true) for _, true in rows)


def test_a_number_has_a_report_too(make_run):
    random = np.random.default_rng(0)
    rows = [(f"word{n % 5} text", float(n % 5)) for n in range(60)]
    said = [(text, true, true + random.normal(0, 2)) for text, true in rows]
    report, page = report_of(make_run(rows, said, (), problem_type="regression"))
    first = "This model does not beat TF-IDF with ridge regression: Pearson 0."
    assert report["headline"].startswith(first)
    assert report["comparison"]["models"]["majority"]["scores"]["pearson"]["value"] is None
    assert set(report["comparison"]["paired"]) == {"tfidf"} and "mcnemar" not in str(report)
    assert len(report["numbers"]) == 60 and "Predicted and true numbers" in page
    worst = max(abs(number - true) for _, true, number in said)
    assert report["errors"][0]["by"] == pytest.approx(worst)
