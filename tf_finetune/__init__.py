"""Fine-tune text encoders with TensorFlow and Keras 3.

The public names are loaded when they are first used: importing the package does not import
TensorFlow.
"""

import importlib
from typing import Any

from tf_finetune.process import uncollected_imports

__version__ = "0.1.0"

_HOME = {
    "Examples": "tf_finetune.data.labelled",
    "Problem": "tf_finetune.data.tasks",
    "UserError": "tf_finetune.errors",
    "build_classifier": "tf_finetune.classification.classifier",
    "build_optimizer": "tf_finetune.training.optimizer",
    "evaluate": "tf_finetune.classification.evaluate",
    "export": "tf_finetune.classification.export",
    "load_encoder": "tf_finetune.formats.encoders",
    "make_eval_dataset": "tf_finetune.data.batches",
    "make_logits_fn": "tf_finetune.training.forward",
    "make_train_dataset": "tf_finetune.data.batches",
    "predict": "tf_finetune.classification.predict",
    "tokenize": "tf_finetune.data.batches",
    "train": "tf_finetune.training.loop",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with uncollected_imports():
        value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
