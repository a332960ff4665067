"""Fine-tune text encoders and language models with TensorFlow and Keras 3.

The public names are loaded when they are first used: importing the package does not import
TensorFlow.
"""

import importlib
from typing import Any

from tf_finetune.process import prefer_onednn, uncollected_imports

__version__ = "0.1.0"

_HOME = {
    "Batches": "data.batches:Batches",
    "ChatDataConfig": "data.chat_config:ChatDataConfig",
    "Classifier": "classification.classifier:Classifier",
    "DataConfig": "runs.config:DataConfig",
    "EncoderConfig": "classification.config:EncoderConfig",
    "Evaluation": "training.loop:Evaluation",
    "Examples": "data.labelled:Examples",
    "Generator": "generation.generator:Generator",
    "LabelConfig": "data.label_config:LabelConfig",
    "LoopConfig": "runs.config:LoopConfig",
    "Lora": "models.lora:Lora",
    "ModelDir": "runs.model_dir:ModelDir",
    "OptimizerConfig": "runs.config:OptimizerConfig",
    "Problem": "data.problem:Problem",
    "Runtime": "runtime.hardware:Runtime",
    "RuntimeConfig": "runs.config:RuntimeConfig",
    "SamplingConfig": "generation.sampling_config:SamplingConfig",
    "UserError": "errors:UserError",
    "build_classifier": "classification.classifier:build_classifier",
    "build_generator": "generation.generator:build_generator",
    "build_optimizer": "training.optimizer:build_optimizer",
    "evaluate": "classification.predict:evaluate",
    "export": "classification.export:export",
    # A folder for transformers or sentence-transformers.
    "export_hugging_face": "classification.hugging_face_export:write_classifier",
    "from_dataset": "data.batches:from_dataset",
    "load_classifier": "classification.load:load_classifier",
    "load_data": "data.labelled:load_data",
    "load_decoder": "formats.decoders:load_decoder",
    "load_dialogues": "data.dialogues:load_dialogues",
    "load_encoder": "formats.encoders:load_encoder",
    "load_generator": "generation.load:load_generator",
    "make_eval_dataset": "data.batches:make_eval_dataset",
    # The forward pass of a classifier gives logits.
    "make_logits_fn": "training.forward:make_forward",
    "make_runtime": "runtime.hardware:make_runtime",
    "make_train_dataset": "data.batches:make_train_dataset",
    "plan_batches": "data.batches:plan_batches",
    "predict": "classification.predict:predict",
    "tokenize": "classification.tokenize:tokenize",
    "train": "training.loop:train",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    prefer_onednn()
    module, _, attribute = _HOME[name].partition(":")
    with uncollected_imports():
        value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
