"""The README.md of an exported classifier: what its request, its data and its results say."""

from collections.abc import Mapping
from typing import Any

import yaml

from tf_finetune.classification.config import Config
from tf_finetune.classification.export import argument_names
from tf_finetune.classification.hugging_face import SEQUENCE_CLASSIFICATION, Layout
from tf_finetune.classification.prepare import Request
from tf_finetune.classification.summary import results_table
from tf_finetune.data.problem import Problem
from tf_finetune.formats.model_card import hub_name, last_part, read_license, table
from tf_finetune.runs.settings import told_settings

# Settings that a card tells even where they have their defaults.
_ALWAYS = ("encoder", "max_seq_length", "train_batch_size", "learning_rate", "num_train_epochs")
_USAGE = {
    "transformers": """\
from transformers import pipeline

classify = pipeline("text-classification", "<this folder>", truncation=True)
print(classify({text}))
""",
    "sentence-transformers": """\
import json
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("<this folder>")
logits = model.encode([{row}])[0]  # Its "embedding" is a number for each label.
names = json.load(open("<this folder>/config.json"))["id2label"]
print(names[str(logits.argmax())])
""",
    "peft": """\
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

base = AutoModelForSequenceClassification.from_pretrained("{base}", num_labels={outputs})
model = PeftModel.from_pretrained(base, "<this folder>")
""",
}
_SAVED_MODEL = """\
import tensorflow as tf, tensorflow_text

serve = tf.saved_model.load("<folder of the SavedModel>").signatures["serving_default"]
print(serve({arguments}))
"""
_LIMITS = (
    "The scores hold for rows like those that were tested; on other texts the model may be wrong, "
    "and its probabilities with it."
)


def make_card(
    request: Request, layout: Layout, base_card: str | None, *, adapter: bool = False
) -> str:
    """Writes the README.md of a classifier.

    Args:
        request: Of its run. The scores are those in the model directory's results.
        layout: What is written.
        base_card: The content of the encoder's README.md; its licence is this model's too.
        adapter: Whether it is of the adapters alone.
    """
    config, problem = request.config, request.data.problem
    base, results = config.encoder.encoder or "", request.model_dir.load_metrics()
    is_transformers = layout.kind == SEQUENCE_CLASSIFICATION
    library = "transformers" if is_transformers else "sentence-transformers"
    library = "peft" if adapter else library
    header: dict[str, Any] = {}
    name = hub_name(base)
    if name:
        relation = "adapter" if adapter else "finetune"
        header |= {"base_model": name, "base_model_relation": relation}
    header |= {
        "library_name": library,
        "pipeline_tag": "text-classification",
        "tags": ["tf-finetune", *(["lora"] if config.lora.lora_rank else [])],
        **read_license(base_card or ""),
    }
    parts_scored = [part for part in ("eval", "test") if part in results]
    scores: dict[str, Any] = {part: results[part] for part in parts_scored}
    columns = problem.text_columns
    usage = _USAGE[library].format(
        text='"a text"' if len(columns) == 1 else '{"text": "a text", "text_pair": "another"}',
        row='"a text"' if len(columns) == 1 else '["a text", "another"]',
        base=name or last_part(base),
        outputs=problem.num_outputs,
    )
    arguments = ", ".join(f'{name}=tf.constant(["a text"])' for name in argument_names(columns))
    is_whole = is_transformers and not adapter
    ours = "--init_from" if is_whole else "--encoder"
    ours_flags = (
        "--test_file=new.tsv --do_predict" if is_whole else "--train_file=train.tsv --do_train"
    )
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---",
        f"# {last_part(base)}, fine-tuned",
        "## Data",
        table(("", "value"), _data(request)),
        "## Settings",
        table(
            ("flag", "value"),
            {
                f"--{name}": value
                for name, value in told_settings(config, Config(), _ALWAYS).items()
            },
        ),
        "## Scores",
        f"```\n{results_table(scores)}\n```" if scores else "Not evaluated.",
        *_thresholds(problem),
        "## How to use",
        f"With {library}:\n\n```python\n{usage}```",
        "With tf_finetune:\n\n```\npython run_classifier.py "
        f"{ours}=<this folder> {ours_flags} --model_dir=out\n```",
        "With TensorFlow, from the SavedModel of the same run (`--export_formats=saved_model`):\n\n"
        f"```python\n{_SAVED_MODEL.format(arguments=arguments)}```",
        "## Limitations",
        _LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def _thresholds(problem: Problem) -> list[str]:
    """Tells what the scores of many labels go by, for which these formats have no place."""
    if problem.problem_type != "multi_label":
        return []
    told = "A row has the labels whose probability, the sigmoid of the logit, reaches "
    if not problem.thresholds:
        return [f"{told}{problem.threshold:g}."]
    each = zip(problem.label_names, problem.thresholds, strict=True)
    return [
        f"{told}these thresholds:",
        table(("label", "threshold"), {name: f"{value:.3g}" for name, value in each}),
    ]


def _data(request: Request) -> Mapping[str, Any]:
    problem = request.data.problem
    names = problem.label_names
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    found = {"problem": problem.problem_type, "text columns": ", ".join(problem.text_columns)}
    if names:
        found["labels"] = f"{len(names)}: {shown}"
    for split, described in request.facts["splits"].items() if request.facts else ():
        found[f"{split} rows"] = f"{described['rows']:,}"
    return found
