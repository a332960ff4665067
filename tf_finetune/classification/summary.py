"""What a run says at its end: the results, some predictions, what to type next."""

from collections.abc import Sequence
from typing import Any

from tf_finetune.classification.fields import escape
from tf_finetune.classification.predict import Predictions
from tf_finetune.data.problem import Problem
from tf_finetune.data.wording import aligned
from tf_finetune.runs.model_dir import ModelDir

WIDTH = 72


def results_table(results: dict[str, dict[str, Any]]) -> str:
    """Lays out metrics, one row each and one column for each part (`eval`, `test`)."""
    names = [name for name in next(iter(results.values())) if name != "per_class"]
    lines = [["", *results]]
    lines += [[name, *(_number(part[name]) for part in results.values())] for name in names]
    return "\n".join(aligned(lines))


def example_predictions(
    texts: Sequence[Sequence[str]], predictions: Predictions, problem: Problem, count: int = 3
) -> str:
    """Shows the first predictions with their texts.

    Args:
        texts: One sequence for each text column.
        predictions: Of these texts.
        problem: What was learnt.
        count: How many.
    """
    lines = []
    for row in range(min(count, len(predictions))):
        text = escape(" | ".join(column[row] for column in texts))
        shown = text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."
        if problem.problem_type == "regression":
            answer = f"{predictions.values[row]:.3f}"
        else:
            score = predictions.probabilities[row].max()
            answer = f"{escape(', '.join(predictions.labels[row])) or '(none)'} ({score:.3f})"
        lines.append(f"  {shown}\n    -> {answer}")
    return "\n".join(lines)


def next_steps(model_dir: ModelDir, exported: str | None, checkpoint: str | None = None) -> str:
    """Says what to do after a run.

    Args:
        model_dir: Its folder.
        exported: The folder of its export, if there is one.
        checkpoint: The checkpoint of transformers that was used as it is, without training.
    """
    used = (
        f"--init_from={checkpoint} --model_dir=<new>" if checkpoint else f"--model_dir={model_dir}"
    )
    lines = [
        "next:",
        *([] if checkpoint else [f"  tensorboard --logdir={model_dir}"]),
        f"  python run_classifier.py {used} --test_file=<your file> --do_predict",
    ]
    if exported:
        lines.append(f"  {exported} is a SavedModel that takes raw strings: see README")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
