"""The sections of settings that every kind of run has. Each wing adds its own to them."""

from dataclasses import dataclass
from typing import ClassVar

from tf_finetune.errors import UserError
from tf_finetune.runs.settings import auto_setting, check_values, setting

# The order of all examples of a training is planned beforehand and must fit in memory.
MOST_STEPS = 10_000_000
MOST_ROWS = 100_000


@dataclass(frozen=True)
class DataConfig:
    """Where the rows come from and how they are batched."""

    title: ClassVar[str] = "Data"

    data_dir: str | None = setting(
        None,
        "folder with files named train, validation or dev, and test; or the files of --task_name",
        names_data=True,
        path="one",
    )
    train_file: str | None = setting(
        None,
        "training examples: .tsv .csv .jsonl .json .parquet .xlsx .tfrecord, texts compressed too, "
        "or a folder of .txt for each class; comma-separated, globs",
        names_data=True,
        path="list",
    )
    validation_file: str | None = setting(
        None, "examples to evaluate on during training", names_data=True, path="list"
    )
    test_file: str | None = setting(
        None,
        "examples for the final evaluation and predictions",
        names_data=True,
        may_change=True,
        path="list",
    )
    validation_fraction: float | None = setting(
        None,
        "share of the training rows to hold back for evaluation, in place of --validation_file",
        above=0,
        below=1,
        names_data=True,
    )
    test_fraction: float | None = setting(
        None,
        "share of the training rows to hold back as test examples, in place of --test_file",
        above=0,
        below=1,
        names_data=True,
    )
    field_separator: str = setting(
        "auto",
        "between the cells of .csv and .tsv: a character, or tab, space, comma, semicolon, bar; "
        "auto: as the file's first lines show",
    )
    quoting: str = setting(
        "auto",
        "minimal: cells of .csv and .tsv may stand in double quotes; none: quotes are text; auto: "
        "as the file's first lines show",
        choices=("auto", "minimal", "none"),
        may_change=True,
    )
    header: str = setting(
        "auto",
        "first_row: it names the columns; none: they are named 1, 2, ...; auto: first_row, with a "
        "notice if it looks like data",
        choices=("auto", "first_row", "none"),
    )
    id_column: str | None = setting(
        None, "column that identifies a row; it is copied into the predictions", may_change=True
    )
    tfds_name: str | None = setting(
        None, "TensorFlow Datasets name, e.g. glue/mrpc", names_data=True
    )
    tfds_data_dir: str | None = setting(
        None, "folder of prepared TensorFlow Datasets", names_data=True, path="one"
    )
    max_seq_length: int = setting(
        128, "longest input in tokens, special tokens included; longer ones are cut", minimum=1
    )
    train_batch_size: int = setting(
        32, "examples per optimizer step, over all replicas", minimum=1, maximum=MOST_ROWS
    )
    eval_batch_size: int = setting(64, "examples per evaluation batch", minimum=1, may_change=True)
    predict_batch_size: int = setting(
        64, "examples per prediction batch", minimum=1, may_change=True
    )
    max_train_samples: int | None = setting(
        None, "use only the first N examples", minimum=1, names_data=True
    )
    max_eval_samples: int | None = setting(
        None, "use only the first N examples", minimum=1, names_data=True
    )
    max_predict_samples: int | None = setting(
        None, "use only the first N examples", minimum=1, names_data=True, may_change=True
    )
    streaming: str = setting(
        "auto",
        "true: training rows stay in their files (.jsonl, .tsv, .tfrecord) and are read again "
        "each epoch; auto: where these are larger than 512 MiB",
        choices=("auto", "true", "false"),
    )
    tokenized_cache_dir: str | None = setting(
        None,
        "folder that keeps token ids for later runs on the same texts",
        may_change=True,
        path="one",
    )

    def __post_init__(self) -> None:
        check_values(self)
        if (self.validation_fraction or 0) + (self.test_fraction or 0) >= 1:
            raise UserError(
                f"--validation_fraction={self.validation_fraction} and "
                f"--test_fraction={self.test_fraction} leave no row to train on."
            )
        for split in ("validation", "test"):
            if getattr(self, f"{split}_fraction") and getattr(self, f"{split}_file"):
                raise UserError(f"--{split}_fraction and --{split}_file: give one of them.")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its learning rate."""

    title: ClassVar[str] = "Optimizer"

    learning_rate: float = auto_setting(5e-5, "peak rate; auto: by model and method", above=0)
    warmup_proportion: float = setting(
        0.1, "share of the steps that warm up linearly", minimum=0, maximum=1
    )
    lr_scheduler_type: str = setting(
        "linear",
        "decay of the learning rate after warm-up",
        choices=("linear", "cosine", "constant"),
    )
    weight_decay: float = setting(
        0.01, "decoupled weight decay; biases and layer norms are left out", minimum=0
    )
    layerwise_lr_decay: float = setting(
        1.0, "learning rate factor per layer below the head", above=0, maximum=1
    )
    max_grad_norm: float = setting(1.0, "clip gradients to this global norm; 0: never", minimum=0)

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True)
class LoopConfig:
    """How long the training is, when it is evaluated and saved, and when it stops."""

    title: ClassVar[str] = "Training"

    num_train_epochs: float = auto_setting(
        3.0, "passes over the training data; auto: by its size", above=0, maximum=10_000
    )
    max_steps: int | None = setting(
        None, "optimizer steps, in place of epochs", minimum=1, maximum=MOST_STEPS
    )
    gradient_accumulation_steps: int = setting(
        1, "slices each batch is worked through in, to save memory; divides it", minimum=1
    )
    eval_steps: int | None = setting(
        None, "steps between evaluations; none: every epoch", minimum=1
    )
    save_checkpoints_steps: int | None = setting(
        None, "steps between checkpoints; none: at each evaluation", minimum=1, may_change=True
    )
    keep_checkpoint_max: int = setting(
        2, "checkpoints kept beside the best one", minimum=1, may_change=True
    )
    log_steps: int = setting(
        10, "steps between two points of log.jsonl and of the curves", minimum=1, may_change=True
    )
    metric_for_best_model: str | None = setting(
        None, "validation metric that picks the best checkpoint; none: the task's"
    )
    load_best_model_at_end: bool = setting(
        True, "keep the best checkpoint and end with its weights; false: with the last step's"
    )
    early_stopping_patience: int | None = setting(
        None, "evaluations without improvement before training stops; none: never", minimum=1
    )

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True)
class RuntimeConfig:
    """The hardware and how it computes."""

    title: ClassVar[str] = "Hardware"

    seed: int = setting(
        42, "of new weights, dropout and the order of examples", minimum=0, maximum=2**32 - 1
    )
    deterministic: bool = setting(
        False, "only operations that give the same bits in every run, which may be slower"
    )
    precision: str = setting(
        "auto",
        "auto: mixed_bfloat16 where the hardware has it, else float32",
        choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    )
    jit_compile: str = setting(
        "auto",
        "compile the step with XLA; auto: on GPU and TPU",
        choices=("auto", "true", "false"),
        may_change=True,
    )
    steps_per_loop: int | None = setting(
        None,
        "steps per call of the compiled loop; signals are heeded between calls; none: 1 on CPU, "
        "20 on GPU and TPU",
        minimum=1,
        may_change=True,
    )
    distribution_strategy: str = setting(
        "auto",
        "auto: tpu if --tpu is given, multi_worker if TF_CONFIG or Slurm names several workers, "
        "mirrored for several GPUs",
        choices=("auto", "one_device", "mirrored", "multi_worker", "tpu"),
        may_change=True,
    )
    tpu: str | None = setting(None, "TPU name, grpc:// address, or local", may_change=True)

    def __post_init__(self) -> None:
        check_values(self)
        if self.tpu and self.distribution_strategy not in ("auto", "tpu"):
            raise UserError(
                f"--tpu={self.tpu} does not go with "
                f"--distribution_strategy={self.distribution_strategy}. Leave one of them out."
            )


@dataclass(frozen=True)
class RunConfig:
    """The actions of a run, and its folder."""

    title: ClassVar[str] = "Run"

    model_dir: str | None = setting(
        None, "folder for the model and all results", may_change=True, path="one"
    )
    do_train: bool = setting(False, "train on --train_file", may_change=True)
    do_eval: bool = setting(False, "evaluate on validation and test examples", may_change=True)
    do_predict: bool = setting(
        False, "write predictions.tsv and .jsonl for the test examples", may_change=True
    )
    do_export: bool = setting(
        False,
        "write export/: a classifier as a SavedModel that takes raw strings, a language model "
        "in Hugging Face's format",
        may_change=True,
    )
    data_report: str | None = setting(
        None, "JSON file that gets all that is known of the data", may_change=True, path="one"
    )
    export_version: int | None = setting(
        None,
        "write export/N/ instead, as TensorFlow Serving reads it, beside other versions",
        minimum=1,
        maximum=2**63 - 1,
        may_change=True,
    )
    overwrite: bool = setting(
        False, "replace another run's model in --model_dir; numbered exports stay", may_change=True
    )

    def __post_init__(self) -> None:
        check_values(self)
        if self.export_version and not self.do_export:
            raise UserError("--export_version is a part of --do_export. Give both or none.")

    @property
    def actions(self) -> tuple[bool, ...]:
        """Whether to train, evaluate, predict and export."""
        return self.do_train, self.do_eval, self.do_predict, self.do_export


def check_slices(data: DataConfig, loop: LoopConfig) -> None:
    """Checks that a batch can be cut into the slices of gradient accumulation.

    Raises:
        UserError: It cannot.
    """
    if data.train_batch_size % loop.gradient_accumulation_steps:
        raise UserError(
            f"--gradient_accumulation_steps={loop.gradient_accumulation_steps} does not divide "
            f"--train_batch_size={data.train_batch_size}. Choose a divisor."
        )
