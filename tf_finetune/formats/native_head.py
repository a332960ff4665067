"""`NativeHead`: the classification head that an architecture has in transformers."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class NativeHead:
    """Dropout, a dense layer, its activation, a norm, dropout, and the logits, as far as it has.

    Attributes:
        pooling: Its input; see `Pooling`.
        dense: The name of the dense layer in a checkpoint; None: there is none.
        out: That of the layer of the logits.
        activation: The dense layer's, by its name in Keras.
        input_dropout: Whether there is dropout before the dense layer.
        use_bias: Whether the dense layer has a bias.
        norm: The name of the layer norm after the activation; None: there is none.
        norm_bias: Whether the norm has a bias.
        epsilon: Added to the variance by the norm.
    """

    pooling: Literal["pooled", "cls", "mean"] = "cls"
    dense: str | None = "classifier.dense"
    out: str = "classifier.out_proj"
    activation: str = "tanh"
    input_dropout: bool = True
    use_bias: bool = True
    norm: str | None = None
    norm_bias: bool = False
    epsilon: float = 1e-5


# BERT's and ALBERT's: the pooler is the hidden layer.
POOLED_HEAD = NativeHead("pooled", dense=None, out="classifier")
