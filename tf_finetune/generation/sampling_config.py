"""The settings by which the tokens of an answer are chosen."""

from dataclasses import dataclass
from typing import ClassVar

from tf_finetune.runs.settings import check_values, setting


@dataclass(frozen=True)
class SamplingConfig:
    """How the tokens of an answer are chosen, and where it ends."""

    title: ClassVar[str] = "Answers"

    max_new_tokens: int = setting(256, "the longest answer in tokens", minimum=1, may_change=True)
    temperature: float = setting(
        0.0,
        "0: always the most probable token; above: drawn, the higher the more evenly",
        minimum=0,
        may_change=True,
    )
    top_p: float = setting(
        1.0,
        "draw from the most probable tokens that have this share of the probability",
        above=0,
        maximum=1,
        may_change=True,
    )
    top_k: int = setting(
        0, "draw from so many of the most probable tokens; 0: from all", minimum=0, may_change=True
    )
    repetition_penalty: float = setting(
        1.0,
        "above 1: tokens of the prompt and the answer become less probable (Keskar et al., 2019)",
        above=0,
        may_change=True,
    )
    stop: tuple[str, ...] = setting(
        (), "texts at which an answer ends, beside the model's own end token", may_change=True
    )

    def __post_init__(self) -> None:
        check_values(self)
