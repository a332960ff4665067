"""By which settings one answer of a batch is chosen, where each has its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class AnswerSettings:
    """How the tokens of an answer are chosen, and at which texts it ends.

    Attributes:
        temperature: 0: always the most probable token; above: drawn, the higher the more evenly.
        top_p: Draw from the most probable tokens of this share.
        seed: Of what is drawn.
        presence_penalty: Is subtracted from the logits of tokens that the answer has.
        frequency_penalty: Likewise, for each time that it has them.
        logit_bias: Is added to the logits of tokens.
        stop: Texts at which the answer ends; they are left out.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop: Sequence[str] = ()

    @property
    def is_biased(self) -> bool:
        """Whether anything is added to logits."""
        return bool(self.presence_penalty or self.frequency_penalty or self.logit_bias)
