r"""Loads, trains and exports a checkpoint of each architecture, beside transformers in one process.

    .venv-bench/bin/python -m benchmarks.families

The checkpoints are transformers' own, of random weights in the shape 6 x 384; see
`encoder_checkpoint.py`. Prints a Markdown table; speeds are those of `benchmarks.encoders`.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from benchmarks.encoder_step import Steps
from benchmarks.encoders import MODEL_TYPES, encoder_dir
from tf_finetune import (
    EncoderConfig,
    Examples,
    LoopConfig,
    OptimizerConfig,
    Problem,
    build_classifier,
    export_hugging_face,
    load_encoder,
    plan_batches,
)
from tf_finetune.formats.saved_model import TOKEN_INPUTS

_TITLES = ("encoder", "hidden states", "loss of a training", "exported: logits")
_SHAPE, _ROWS, _LENGTH = "small", 8, 48
# The tokens that `encoder_checkpoint.py` writes have one word: rows differ by its number.
_TEXTS = [" ".join(["a"] * (3 if row % 2 else 30)) for row in range(64)]


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_types", default=",".join(MODEL_TYPES), help="default: %(default)s")
    lines = [f"| {' | '.join(_TITLES)} |", "|" + " --- |" * len(_TITLES)]
    for kind in parser.parse_args().model_types.split(","):
        with tempfile.TemporaryDirectory() as folder:
            cells = measure(encoder_dir(kind, _SHAPE), Path(folder) / "exported")
        lines.append(f"| `{kind}` | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    print("\n" + "\n".join(lines))


def measure(directory: Path, exported: Path) -> list[str]:
    """Returns the cells of an architecture.

    Args:
        directory: Its checkpoint.
        exported: A folder that is made.
    """
    encoder = load_encoder(str(directory))
    # The last batch is a padded one.
    *_, batch = Steps(directory, _ROWS, _LENGTH, num_steps=1).batches()
    ids, mask = batch.ids, batch.mask
    with torch.no_grad():
        theirs = AutoModel.from_pretrained(directory).eval()(
            torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long()
        )
    inputs = dict(zip(TOKEN_INPUTS, (ids, mask, np.zeros_like(ids)), strict=True))
    ours = encoder.network({name: tf.constant(value) for name, value in inputs.items()})
    states = difference(ours["sequence_output"].numpy()[mask > 0], theirs[0].numpy()[mask > 0])

    problem = Problem("single_label", ("text",), ("long", "short"))
    classifier = build_classifier(
        encoder, problem, EncoderConfig(head="native"), max_seq_length=_LENGTH
    )
    labels = np.array([row % 2 for row in range(len(_TEXTS))], np.int32)
    examples = Examples((_TEXTS,), labels)
    before = classifier.evaluate(examples)["loss"]
    loop = LoopConfig(num_train_epochs=10)
    batches = plan_batches(classifier.tokenize(examples), 8, loop)
    classifier.fit(batches, OptimizerConfig(learning_rate=1e-4), loop=loop)
    after = classifier.evaluate(examples)["loss"]

    export_hugging_face(str(exported), classifier)
    model = AutoModelForSequenceClassification.from_pretrained(exported).eval()
    with torch.no_grad():
        read = model(torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long()).logits
    features = {name: tf.constant(inputs[name]) for name in classifier.model.input}
    logits = difference(classifier.model(features).numpy(), read.numpy())
    return [f"{states:.0e}", f"{before:.3f} -> {after:.3f}", f"{logits:.0e}"]


def difference(ours: np.ndarray, theirs: np.ndarray) -> Any:
    """Returns the largest difference."""
    return np.abs(ours - theirs).max()


if __name__ == "__main__":
    main()
