"""The settings of a run: four frozen dataclasses, each field with its help, and their checks.

The fields are also the command line: `flags.py` makes one flag of each. Standard library only, so
that `--help` and a wrong value answer before TensorFlow is imported.
"""

import dataclasses
import json
import math
import re
import types
import typing
from dataclasses import dataclass
from typing import Any

from tf_finetune.data.tasks import TASKS
from tf_finetune.errors import UserError

ENCODER_HELP = (
    "TF Hub or Kaggle handle, KerasHub preset (name, kaggle://, hf://), local directory of any of "
    "these kinds, or package:<python module>"
)


# The order of all examples of a training is planned beforehand: it must fit in memory.
MOST_STEPS = 10_000_000
MOST_ROWS = 100_000


def _setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
) -> Any:
    metadata = {
        "help": help,
        "choices": choices,
        "bounds": {">=": minimum, ">": above, "<=": maximum, "<": below},
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DataConfig:
    """Where the examples come from and how they are batched."""

    task_name: str | None = _setting(
        None,
        "known data set: gives columns, labels, metric and file names",
        choices=tuple(TASKS),
    )
    data_dir: str | None = _setting(None, "folder with the files of --task_name")
    train_file: str | None = _setting(
        None, "training examples: .tsv .csv .jsonl .parquet .tfrecord, .gz; comma-separated, globs"
    )
    validation_file: str | None = _setting(None, "examples to evaluate on during training")
    test_file: str | None = _setting(None, "examples for the final evaluation and predictions")
    tfds_name: str | None = _setting(None, "TensorFlow Datasets name, e.g. glue/mrpc")
    tfds_data_dir: str | None = _setting(None, "folder of prepared TensorFlow Datasets")
    text_columns: tuple[str, ...] = _setting((), "one or two text columns, comma-separated")
    label_column: str | None = _setting(None, "the column to learn")
    problem_type: str = _setting(
        "auto",
        "what the labels are; auto infers it from them",
        choices=("auto", "single_label", "multi_label", "regression"),
    )
    label_names: tuple[str, ...] = _setting(
        (), "all labels, comma-separated, in order of their index; empty: learnt from training data"
    )
    label_separator: str = _setting(
        ",", "between the labels of one multi-label row; a blank is written space, a tab tab"
    )
    max_seq_length: int = _setting(
        128, "longest input in tokens, special tokens included; longer ones are cut", minimum=1
    )
    train_batch_size: int = _setting(
        32, "examples per optimizer step, over all replicas", minimum=1, maximum=MOST_ROWS
    )
    eval_batch_size: int = _setting(64, "examples per evaluation batch", minimum=1)
    predict_batch_size: int = _setting(64, "examples per prediction batch", minimum=1)
    max_train_samples: int | None = _setting(None, "use only the first N examples", minimum=1)
    max_eval_samples: int | None = _setting(None, "use only the first N examples", minimum=1)
    max_predict_samples: int | None = _setting(None, "use only the first N examples", minimum=1)
    streaming: str = _setting(
        "auto",
        "true: training rows stay in their files (.jsonl, .tsv, .tfrecord) and are read again "
        "each epoch; auto: where these are larger than 512 MiB",
        choices=("auto", "true", "false"),
    )
    tokenized_cache_dir: str | None = _setting(
        None, "folder that keeps token ids for later runs on the same texts"
    )
    class_weights: str = _setting(
        "none",
        "balanced: weigh each class by the inverse of its share",
        choices=("none", "balanced"),
    )


@dataclass(frozen=True)
class ModelConfig:
    """The encoder and the head on it."""

    encoder: str | None = _setting(None, ENCODER_HELP)
    encoder_mode: str = _setting(
        "auto",
        "native: as Keras layers; saved_model: wrapped as it is; auto: native where possible",
        choices=("auto", "native", "saved_model"),
    )
    preprocessor: str | None = _setting(
        None, "TF Hub preprocessor; only for an encoder that carries no vocabulary"
    )
    init_from: str | None = _setting(
        None, "model_dir of an earlier run: start from its encoder, and its head if labels agree"
    )
    head: str = _setting("linear", "linear, mlp, or your own as module:Class")
    pooling: str = _setting(
        "pooled",
        "the head's input: pooled (the encoder's pooler), cls (first token), mean or max of tokens",
        choices=("pooled", "cls", "mean", "max"),
    )
    dropout: float = _setting(0.1, "share of the head's inputs dropped", minimum=0, below=1)
    encoder_dropout: float | None = _setting(
        None, "the encoder's dropout rate; none: its own", minimum=0, below=1
    )
    freeze: str = _setting("none", "none, encoder, embeddings, or first_N_layers")
    threshold: float = _setting(
        0.5, "multi_label: probability from which a label is predicted", above=0, below=1
    )


@dataclass(frozen=True)
class TrainConfig:
    """The optimizer and the loop."""

    learning_rate: float = _setting(5e-5, "peak learning rate", above=0)
    num_train_epochs: float = _setting(
        3.0, "passes over the training data", above=0, maximum=10_000
    )
    max_steps: int | None = _setting(
        None, "optimizer steps, in place of epochs", minimum=1, maximum=MOST_STEPS
    )
    warmup_proportion: float = _setting(
        0.1, "share of the steps that warm up linearly", minimum=0, maximum=1
    )
    lr_scheduler_type: str = _setting(
        "linear",
        "decay of the learning rate after warm-up",
        choices=("linear", "cosine", "constant"),
    )
    weight_decay: float = _setting(
        0.01, "decoupled weight decay; biases and layer norms are left out", minimum=0
    )
    layerwise_lr_decay: float = _setting(
        1.0, "learning rate factor per layer below the head", above=0, maximum=1
    )
    max_grad_norm: float = _setting(1.0, "clip gradients to this global norm; 0: never", minimum=0)
    gradient_accumulation_steps: int = _setting(
        1, "slices each batch is worked through in, to save memory; divides it", minimum=1
    )
    label_smoothing_factor: float = _setting(
        0.0, "share of the target spread over all labels", minimum=0, below=1
    )
    eval_steps: int | None = _setting(
        None, "steps between evaluations; none: every epoch", minimum=1
    )
    save_checkpoints_steps: int | None = _setting(
        None, "steps between checkpoints; none: at each evaluation", minimum=1
    )
    keep_checkpoint_max: int = _setting(2, "checkpoints kept beside the best one", minimum=1)
    metric_for_best_model: str | None = _setting(
        None, "validation metric that picks the best checkpoint; none: the task's"
    )
    load_best_model_at_end: bool = _setting(
        True, "keep the best checkpoint and end with its weights; false: with the last step's"
    )
    early_stopping_patience: int | None = _setting(
        None, "evaluations without improvement before training stops; none: never", minimum=1
    )
    steps_per_loop: int | None = _setting(
        None, "steps between two looks of the host; none: 1 on CPU, 20 on GPU and TPU", minimum=1
    )


@dataclass(frozen=True)
class RuntimeConfig:
    """What to do, where, and on which hardware."""

    model_dir: str | None = _setting(None, "folder for the model and all results")
    do_train: bool = _setting(False, "train on --train_file")
    do_eval: bool = _setting(False, "evaluate on the validation and the test examples")
    do_predict: bool = _setting(False, "write predictions.tsv for the test examples")
    do_export: bool = _setting(False, "write export/, a SavedModel that takes raw strings")
    export_encoder: bool = _setting(False, "with --do_export: the encoder too, in TF Hub format")
    overwrite: bool = _setting(False, "replace another run's model in --model_dir")
    seed: int = _setting(
        42,
        "of the head's weights, dropout and the order of examples",
        minimum=0,
        maximum=2**32 - 1,
    )
    deterministic: bool = _setting(
        False, "only operations that give the same bits in every run, which may be slower"
    )
    precision: str = _setting(
        "auto",
        "auto: mixed_bfloat16 where the hardware has it, else float32",
        choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    )
    jit_compile: str = _setting(
        "auto",
        "compile the step with XLA; auto: on GPU and TPU",
        choices=("auto", "true", "false"),
    )
    distribution_strategy: str = _setting(
        "auto",
        "auto: tpu if --tpu is given, multi_worker if TF_CONFIG or Slurm names several workers, "
        "mirrored for several GPUs",
        choices=("auto", "one_device", "mirrored", "multi_worker", "tpu"),
    )
    tpu: str | None = _setting(None, "TPU name, grpc:// address, or local")


@dataclass(frozen=True)
class Config:
    """A whole run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    def __post_init__(self) -> None:
        _check(self)

    def to_json(self) -> str:
        """Returns the settings as a JSON object of one object per section."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Returns the configuration that `to_json` wrote; unknown settings are left out.

        Raises:
            ValueError, KeyError, TypeError, AttributeError, UserError: It is damaged.
        """
        saved = json.loads(text)
        sections = {}
        for section in dataclasses.fields(cls):
            names = {field.name for field in dataclasses.fields(section.type)}  # type: ignore[arg-type]
            values = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in saved[section.name].items()
                if name in names
            }
            for name, value in values.items():
                kind, may_be_none = value_type(section.type, name)  # type: ignore[arg-type]
                kinds = (int, float) if kind is float else kind
                if not (isinstance(value, kinds) or (value is None and may_be_none)):
                    raise TypeError(f"{name} is {value!r}")
            sections[section.name] = section.type(**values)  # type: ignore[operator]
        return cls(**sections)


SECTIONS: tuple[tuple[str, type], ...] = (
    ("data", DataConfig),
    ("model", ModelConfig),
    ("train", TrainConfig),
    ("runtime", RuntimeConfig),
)


def value_type(section: type, name: str) -> tuple[type, bool]:
    """Returns a setting's type and whether None is allowed.

    Args:
        section: The dataclass that has the setting.
        name: The setting.

    Returns:
        `str`, `int`, `float`, `bool` or `tuple`, and True where the setting may be None.
    """
    annotation = typing.get_type_hints(section)[name]
    if isinstance(annotation, types.UnionType):
        inner = next(a for a in typing.get_args(annotation) if a is not types.NoneType)
        return inner, True
    return typing.get_origin(annotation) or annotation, False


def _check(config: Config) -> None:
    for name, section in SECTIONS:
        values = getattr(config, name)
        for field in dataclasses.fields(section):
            _check_value(field, getattr(values, field.name))
    data, model, train, runtime = config.data, config.model, config.train, config.runtime
    if len(data.text_columns) > 2:
        raise UserError(
            f"--text_columns={','.join(data.text_columns)}: {len(data.text_columns)} columns; "
            "one or two are allowed. Join further ones into these beforehand."
        )
    if data.train_batch_size % train.gradient_accumulation_steps:
        raise UserError(
            f"--gradient_accumulation_steps={train.gradient_accumulation_steps} does not divide "
            f"--train_batch_size={data.train_batch_size}. Choose a divisor."
        )
    if data.task_name and data.tfds_name:
        raise UserError("--task_name and --tfds_name both name the data. Give one of them.")
    if len(set(data.text_columns)) < len(data.text_columns):
        raise UserError(
            f"--text_columns={','.join(data.text_columns)}: a column stands there twice."
        )
    if not re.fullmatch(r"none|encoder|embeddings|first_[0-9]{1,4}_layers", model.freeze):
        raise UserError(
            f"--freeze={model.freeze}: allowed are none, encoder, embeddings and first_N_layers, "
            "e.g. first_3_layers."
        )
    if model.head not in ("linear", "mlp") and model.head.count(":") != 1:
        raise UserError(
            f"--head={model.head}: allowed are linear, mlp, and your own as module:Class."
        )
    if runtime.export_encoder and not runtime.do_export:
        raise UserError("--export_encoder is a part of --do_export. Give both or none.")
    if runtime.tpu and runtime.distribution_strategy not in ("auto", "tpu"):
        raise UserError(
            f"--tpu={runtime.tpu} does not go with "
            f"--distribution_strategy={runtime.distribution_strategy}. Leave one of them out."
        )


def _check_value(field: "dataclasses.Field[Any]", value: Any) -> None:
    if value is None:
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"--{field.name}={value}: must be a finite number.")
    for text in value if isinstance(value, tuple) else [value]:
        # A flagfile could not hold it.
        if isinstance(text, str) and (not text or text != text.strip() or set(text) & {*"\r\n"}):
            raise UserError(
                f"--{field.name}={value!r}: no part of it may be empty, begin or end with a blank, "
                "or hold a line end."
            )
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise UserError(f"--{field.name}={value}: allowed are {', '.join(choices)}.")
    for sign, bound in field.metadata["bounds"].items():
        if bound is None:
            continue
        good = {
            ">=": value >= bound,
            ">": value > bound,
            "<=": value <= bound,
            "<": value < bound,
        }[sign]
        if not good:
            raise UserError(f"--{field.name}={value}: must be {allowed_range(field)}.")


def allowed_range(field: "dataclasses.Field[Any]") -> str:
    """Returns a setting's bounds as text such as `>= 0 and < 1`, or an empty string."""
    bounds = field.metadata["bounds"]
    return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None)
