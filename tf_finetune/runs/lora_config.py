"""The settings of adapters of low rank, which each wing has with its own defaults."""

from dataclasses import dataclass
from typing import ClassVar

from tf_finetune.runs.settings import check_values, setting


@dataclass(frozen=True)
class LoraConfig:
    """Adapters that are trained beside frozen weights (Hu et al., 2021), in PEFT's terms."""

    title: ClassVar[str] = "LoRA"

    lora_rank: int = setting(
        0, "the adapters' inner width, PEFT's r; 0: no adapters, all weights are trained", minimum=0
    )
    lora_alpha: float = setting(
        16.0, "the adapters' outputs are scaled by alpha / rank; twice the rank is usual", above=0
    )
    lora_dropout: float = setting(0.0, "share of the adapters' inputs dropped", minimum=0, below=1)
    lora_targets: tuple[str, ...] = setting(
        (),
        "linear layers with an adapter, by the ends of their names in Hugging Face's checkpoints, "
        "e.g. query,value or q_proj,v_proj; none: all",
    )

    def __post_init__(self) -> None:
        check_values(self)
