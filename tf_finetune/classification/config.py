"""The settings of a classifier's run: shared sections, labels, the encoder with its head."""

import re
from dataclasses import dataclass
from typing import ClassVar

from tf_finetune.classification.distillation_config import DistillationConfig
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.errors import UserError
from tf_finetune.formats.runtime_formats import FORMATS
from tf_finetune.runs.config import (
    DataConfig,
    LoopConfig,
    OptimizerConfig,
    RunConfig,
    RuntimeConfig,
    check_slices,
)
from tf_finetune.runs.lora_config import LoraConfig
from tf_finetune.runs.report_config import ReportConfig
from tf_finetune.runs.settings import check_values, setting

ENCODER_HELP = (
    "an encoder in Hugging Face's format (a folder, hf://org/name, hf://org/name@revision), a TF "
    "Hub or Kaggle handle or its folder, a KerasHub preset, a BERT of Google's, or "
    "package:<python module>"
)

_FORMATS = ("saved_model", "hugging_face", *FORMATS)
_HEADS = ("auto", "native", "linear", "mlp")


@dataclass(frozen=True)
class EncoderConfig:
    """The encoder, the head on it, and the loss."""

    title: ClassVar[str] = "Model"

    encoder: str | None = setting(None, ENCODER_HELP, path="one")
    encoder_mode: str = setting(
        "auto",
        "native: as Keras layers; saved_model: wrapped as it is; auto: native where possible",
        choices=("auto", "native", "saved_model"),
    )
    preprocessor: str | None = setting(
        None, "TF Hub preprocessor; only for an encoder that carries no vocabulary", path="one"
    )
    init_from: str | None = setting(
        None,
        "start from the encoder, and from the head if labels agree, of the model_dir of an earlier "
        "run, or of a classification checkpoint of transformers (a folder, hf://org/name), which "
        "is evaluated and predicts without --do_train too",
        path="one",
    )
    head: str = setting(
        "auto",
        "linear, mlp, native (the architecture's own in transformers), or your own as "
        "module:Class; auto: native where the pooling is that head's, else linear",
    )
    pooling: str = setting(
        "auto",
        "the head's input: pooled (the encoder's pooler), cls (first token), mean or max of "
        "tokens; auto: what the encoder was trained with",
        choices=("auto", "pooled", "cls", "mean", "max"),
    )
    long_text: str = setting(
        "truncate",
        "a text of more than max_seq_length tokens: truncate keeps its beginning; head_tail "
        "beginning and end; window reads all of it, in overlapping pieces, and averages their "
        "logits",
        choices=("truncate", "head_tail", "window"),
    )
    dropout: float = setting(0.1, "share of the head's inputs dropped", minimum=0, below=1)
    encoder_dropout: float | None = setting(
        None, "the encoder's dropout rate; none: its own", minimum=0, below=1
    )
    hidden_act: str | None = setting(
        None,
        "in place of what the config.json of an encoder in Hugging Face's format says: gelu is the "
        "exact one, gelu_new the tanh formula; none: its own",
        choices=("gelu", "gelu_new"),
        before="gelu_new",  # All were computed by the tanh formula.
    )
    num_layers: int | None = setting(
        None,
        "keep only the lowest layers of the encoder, as many as this: a smaller and faster model; "
        "none: all",
        minimum=1,
    )
    freeze: str = setting("none", "none, encoder, embeddings, or first_N_layers")
    label_smoothing_factor: float = setting(
        0.0, "share of the target spread over all labels", minimum=0, below=1
    )
    class_weights: str = setting(
        "none",
        "balanced: weigh each class by the inverse of its share",
        choices=("none", "balanced"),
    )
    export_formats: tuple[str, ...] = setting(
        ("saved_model",),
        "of --do_export: saved_model, to export/; hugging_face, to hugging_face/, for transformers "
        "or sentence-transformers, and with adapters to adapter/, for PEFT; openvino, onnx and "
        "litert, to folders of these names, with a program that answers texts; comma-separated",
        may_change=True,
    )
    quantization: str = setting(
        "none",
        "of openvino, onnx and litert: int8 weights; OpenVINO's activations too, with ranges from "
        "the validation texts",
        choices=("none", "int8"),
        may_change=True,
    )
    max_quality_loss: float = setting(
        0.5,
        "openvino, onnx and litert are not written where they lose more points (hundredths) of "
        "metric_for_best_model on the validation file, or else the test file",
        minimum=0,
        may_change=True,
    )
    export_encoder: bool = setting(
        False,
        "with --do_export: the encoder too, to encoder/: in TF Hub format for saved_model, in "
        "Hugging Face's for hugging_face",
        may_change=True,
    )

    def __post_init__(self) -> None:
        check_values(self)
        if not re.fullmatch(r"none|encoder|embeddings|first_[0-9]{1,4}_layers", self.freeze):
            raise UserError(
                f"--freeze={self.freeze}: allowed are none, encoder, embeddings and "
                "first_N_layers, e.g. first_3_layers."
            )
        if self.head not in _HEADS and not self.has_own_head:
            raise UserError(
                f"--head={self.head}: allowed are {', '.join(_HEADS)}, and your own as "
                "module:Class."
            )

        strange = [name for name in self.export_formats if name not in _FORMATS]
        if strange or not self.export_formats:
            raise UserError(
                f"--export_formats={','.join(self.export_formats)}: allowed are "
                f"{', '.join(_FORMATS)}, comma-separated."
            )
        if self.quantization != "none" and not set(self.export_formats) & set(FORMATS):
            raise UserError(
                f"--quantization={self.quantization} is of the formats {', '.join(FORMATS)}; "
                f"--export_formats={','.join(self.export_formats)} has none of them."
            )

    @property
    def has_own_head(self) -> bool:
        """Whether the head is a class of the user's own."""
        return self.head.count(":") == 1


@dataclass(frozen=True)
class Config:
    """A whole run of a classifier."""

    program: ClassVar[str] = "run_classifier.py"

    data: DataConfig = DataConfig()
    labels: LabelConfig = LabelConfig()
    encoder: EncoderConfig = EncoderConfig()
    lora: LoraConfig = LoraConfig()
    distillation: DistillationConfig = DistillationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loop: LoopConfig = LoopConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    run: RunConfig = RunConfig()
    report: ReportConfig = ReportConfig()

    def __post_init__(self) -> None:
        check_slices(self.data, self.loop)
        if self.labels.task_name and self.data.tfds_name:
            raise UserError("--task_name and --tfds_name both name the data. Give one of them.")
        if self.lora.lora_rank and self.encoder.freeze != "none":
            raise UserError(
                f"--freeze={self.encoder.freeze} does not go with "
                f"--lora_rank={self.lora.lora_rank}, which freezes all weights of the encoder but "
                "the pooler's, and trains adapters beside them. Leave one of the two out."
            )
        if self.labels.unlabelled_file and not self.distillation.teacher:
            raise UserError(
                f"--unlabelled_file={self.labels.unlabelled_file}: texts without labels are learnt "
                "from a teacher alone. Give --teacher, the model_dir of an earlier run."
            )
        if self.encoder.export_encoder and not self.run.do_export:
            raise UserError("--export_encoder is a part of --do_export. Give both or none.")
