"""The settings of a student: what it learns from a teacher."""

from dataclasses import dataclass
from typing import ClassVar

from tf_finetune.runs.settings import check_values, setting


@dataclass(frozen=True)
class DistillationConfig:
    """The teacher, and how much its answers count beside the labels."""

    title: ClassVar[str] = "Distillation"

    teacher: str | None = setting(
        None,
        "model_dir of an earlier run of the same labels, whose answers on the training rows are "
        "learnt beside these, as by a smaller model of --num_layers",
        path="one",
    )
    # The defaults of transformers' run_squad_w_distillation.py.
    distillation_alpha: float = setting(
        0.5, "share of the loss that is of the labels; the rest is of --teacher", minimum=0, below=1
    )
    distillation_temperature: float = setting(
        2.0,
        "divides the logits of --teacher and of the model before they are compared: the higher, "
        "the more the labels count that the teacher holds for wrong",
        above=0,
    )

    def __post_init__(self) -> None:
        check_values(self)
