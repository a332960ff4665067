"""What a run says at its end: the losses, and what to type next."""

from collections.abc import Mapping, Sequence
from typing import Any

from tf_finetune.data.wording import aligned
from tf_finetune.runs.model_dir import ModelDir

_NAMES = ("examples", "answer_tokens", "loss", "perplexity", "bits_per_byte", "token_accuracy")


def losses_table(results: Mapping[str, Any]) -> str:
    """Lays out the losses of each part of the results, one column each."""
    columns = {part: results[part] for part in ("eval", "test") if part in results}
    for name, found in results.get("general", {}).items():
        columns[f"general, {name}"] = found
    return _table(columns, _NAMES)


def preferences_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Lays out the results of `preference_metrics`, one column for each split."""
    columns = {f"preferences, {split}": found for split, found in results.items()}
    return _table(columns, list(next(iter(results.values()))))


def next_steps(model_dir: ModelDir, is_exported: bool) -> str:
    """Says what to do with a finished model directory."""
    lines = [
        "next:",
        f"  tensorboard --logdir={model_dir}",
        f"  python run_generator.py --model_dir={model_dir} --interactive",
        f"  python run_generator.py --model_dir={model_dir} --test_file=<your file> --do_predict",
    ]
    if is_exported:
        lines.append(f"  {model_dir.export} is a model in Hugging Face's format: see README")
    return "\n".join(lines)


def _table(columns: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    lines = [[name, *(_number(column[name]) for column in columns.values())] for name in names]
    return "\n".join(aligned([["", *columns], *lines]))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
