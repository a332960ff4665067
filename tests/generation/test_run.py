"""`run_generator.py` from data to answers, on a tiny model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from tests.generation.conftest import day_rows, write_lines
from tests.programs import Program
from tf_finetune.training.checkpoints import find

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    for name, count, seed in (("train", 48, 0), ("validation", 9, 1), ("test", 6, 2)):
        write_lines(folder / f"{name}.jsonl", day_rows(count, seed))
    return folder


def run(folder: Path, *flags: str, status: int = 0) -> str:
    """Runs the program, and returns what it has said."""
    said = Program("run_generator", flags, folder / "log").finish(status)
    assert "Traceback" not in said
    return said


@pytest.fixture(scope="module")
def trained(data, tiny_llama, tmp_path_factory) -> tuple[Path, str]:
    """A model directory of a whole run, and what the run has said."""
    model_dir = tmp_path_factory.mktemp("run") / "out"
    said = run(
        model_dir.parent,
        f"--model={tiny_llama}",
        f"--data_dir={data}",
        f"--model_dir={model_dir}",
        *("--do_train", "--do_eval", "--do_predict"),
        *("--num_train_epochs=2", "--train_batch_size=8", "--learning_rate=3e-2"),
        *("--lora_rank=4", "--precision=float32", "--max_new_tokens=8", "--max_seq_length=96"),
        *("--base_prompt=Answer with a day.", "--num_fewshot=1"),
        "--nodo_report",
    )
    return model_dir, said


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def summaries(folder: Path, tag: str) -> list[tuple[int, Any]]:
    """Returns the steps and values of a tag in TensorBoard's files."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            found += [
                (event.step, tf.make_ndarray(value.tensor).item())
                for value in event.summary.value
                if value.tag == tag
            ]
    return found


@pytest.mark.slow
def test_a_whole_run_leaves_metrics_answers_and_curves(trained):
    model_dir, said = trained
    metrics = read(model_dir / "metrics.json")
    assert metrics["train"]["steps"] == 12 and metrics["train"]["targets_per_second"] > 0
    assert metrics["test"]["examples"] == 6
    columns = metrics["comparison"]["columns"]
    assert list(columns) == ["base", "base + prompt", "base + 1 examples", "tuned"]
    assert columns["tuned"]["loss"] < columns["base"]["loss"]
    lines = (model_dir / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == 6
    first = json.loads(lines[0])
    assert first["prompt"][0]["role"] == "user" and first["reference"] and first["tokens"] >= 1
    assert "[[" in said and "<|end|>]]" in said  # One example with its learnt tokens marked.
    log = [json.loads(line) for line in (model_dir / "log.jsonl").read_text().splitlines()]
    (first,) = [line for line in log if line["split"] == "train"]
    assert {"token_accuracy", "targets_per_second", "gradient_norm"} <= set(first)
    assert [line["split"] for line in log].count("validation") == 2
    assert said.count("answers (why they ended, tokens):") == 2
    texts = summaries(model_dir / "validation", "answers")
    assert [step for step, _ in texts] == [6, 12]
    assert all(b"reference" in text for _, text in texts)


@pytest.mark.slow
def test_checkpoints_hold_the_adapters_alone(trained):
    path = find(str(trained[0] / "checkpoints"), "best")[-1]
    # 7 adapters of rank 4 a layer: 36 kB a layer at most, where the whole model has 130 kB.
    size = sum(file.stat().st_size for file in Path(path).parent.glob(Path(path).name + "*"))
    assert size < 60_000


@pytest.mark.slow
def test_a_trained_model_answers_and_evaluates_later_by_itself(trained, tmp_path):
    model_dir, _ = trained
    questions = [{"messages": row["messages"][:1]} for row in day_rows(3, seed=5)]
    path = write_lines(tmp_path / "new.jsonl", questions)
    before = (model_dir / "predictions.jsonl").read_text()
    run(tmp_path, f"--model_dir={model_dir}", f"--test_file={path}", "--do_predict")
    lines = [json.loads(x) for x in (model_dir / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and all(line["reference"] is None for line in lines)
    # In half precision, the default here, adapters are rounded.
    run(tmp_path, f"--model_dir={model_dir}", "--do_predict", "--precision=float32")
    again = [json.loads(x) for x in (model_dir / "predictions.jsonl").read_text().splitlines()]
    expected = [json.loads(line)["answer"] for line in before.splitlines()]
    assert [line["answer"] for line in again] == expected


@pytest.mark.slow
def test_the_same_command_goes_on_and_other_flags_are_refused(trained, data, tiny_llama, tmp_path):
    model_dir, _ = trained
    said = run(
        tmp_path,
        f"--model={tiny_llama}",
        f"--data_dir={data}",
        f"--model_dir={model_dir}",
        *("--do_train", "--lora_rank=8"),
        status=2,
    )
    assert "--lora_rank: 4 there, 8 now" in said


@pytest.mark.slow
def test_examples_are_shown_and_nothing_is_trained(data, tiny_llama, tmp_path):
    said = run(tmp_path, f"--model={tiny_llama}", f"--data_dir={data}", "--show_examples=2")
    assert said.count("what is learnt is marked") == 2


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "Nothing to do: give one or more of --do_train"),
        (["--do_train"], "--model_dir is missing"),
        (["--interactive"], "--interactive needs a terminal"),
        (["--interactive", "--do_train"], "--interactive is an action of its own"),
        (["--do_train", "--model_dir=x"], "--model is missing"),
        (["--do_eval", "--model_dir=nowhere"], "nowhere holds no model"),
        (["--do_train", "--model_dir=x", "--export_version=3"], "--export_version"),
        (["--lora_rnk=3"], "--lora_rnk: no such flag. Did you mean --lora_rank"),
        (["--method=ppo"], "--method=ppo: allowed are sft, dpo"),
    ],
)
def test_bad_requests_end_with_status_2_and_the_remedy(flags, complaint, tmp_path):
    command = [sys.executable, str(REPOSITORY / "run_generator.py"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2 and complaint in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_all_weights_are_trained_where_the_rank_is_0(data, tiny_llama, tmp_path):
    run(
        tmp_path,
        f"--model={tiny_llama}",
        f"--data_dir={data}",
        f"--model_dir={tmp_path / 'out'}",
        *("--do_train", "--do_eval", "--lora_rank=0", "--learning_rate=1e-2"),
        *("--max_steps=6", "--train_batch_size=8", "--precision=float32", "--max_new_tokens=4"),
        *("--num_fewshot=0", "--packing", "--nodo_report"),
    )
    columns = read(tmp_path / "out" / "metrics.json")["comparison"]["columns"]
    assert columns["tuned"]["loss"] < columns["base"]["loss"]
