"""What can be imported before TensorFlow."""

import subprocess
import sys


def test_what_scores_and_writes_answers_needs_no_tensorflow() -> None:
    rooms = ("answers", "comparison", "few_shot", "metrics", "model_card", "predictions")
    names = [f"tf_finetune.generation.{name}" for name in (*rooms, "samples", "scores")]
    program = f"import importlib, sys; [importlib.import_module(n) for n in {names}]"
    program += "; print([n for n in ('tensorflow', 'keras', 'scipy') if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
