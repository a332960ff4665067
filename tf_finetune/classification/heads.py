"""The heads: from the encoder's outputs to logits."""

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Any

import keras
from keras import ops

from tf_finetune.classification.config import EncoderConfig
from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder

# BERT's initializer_range (Devlin et al., 2019); the recipe and Hugging Face use it for the head.
INITIALIZER_RANGE = 0.02


@keras.saving.register_keras_serializable(package="tf_finetune")
class Pooling(keras.layers.Layer):
    """Pools the encoder's outputs into one vector for each text.

    Args:
        mode: `pooled` (the encoder's own pooler), `cls` (the first token's vector), `mean` or
            `max` of the tokens' vectors, padding left out.
    """

    def __init__(self, mode: str = "pooled", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mode = mode
        self.supports_masking = True

    def call(self, outputs: dict[str, Any], input_mask: Any = None) -> Any:
        """Pools outputs where `input_mask`, int32 [batch, length], is 1, to [batch, hidden]."""
        if self.mode == "pooled":
            return outputs["pooled_output"]
        sequence = outputs["sequence_output"]
        if self.mode == "cls":
            return sequence[:, 0]
        sequence = ops.cast(sequence, "float32")
        real = ops.expand_dims(ops.cast(input_mask, "float32"), 2)
        if self.mode == "mean":
            total = ops.sum(sequence * real, axis=1)
            return ops.cast(total / ops.maximum(ops.sum(real, axis=1), 1.0), self.compute_dtype)
        return ops.cast(ops.max(sequence - (1.0 - real) * 1e9, axis=1), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the layer."""
        return {**super().get_config(), "mode": self.mode}


@keras.saving.register_keras_serializable(package="tf_finetune")
class LinearHead(keras.layers.Layer):
    """Dropout and one dense layer: the head of the BERT recipe.

    Args:
        num_outputs: Number of logits.
        dropout: Share of the inputs dropped in training.
    """

    def __init__(self, num_outputs: int, dropout: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_outputs = num_outputs
        self.dropout_rate = dropout
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        # Logits in float32 whatever the precision: bfloat16 would round a probability to 2 digits.
        self.logits = keras.layers.Dense(
            num_outputs, kernel_initializer=initializer(), dtype="float32", name="logits"
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights for inputs of [batch, hidden]."""
        self.logits.build(input_shape)
        self.built = True

    def call(self, features: Any, training: bool | None = None) -> Any:
        """Returns logits, float32 [batch, num_outputs], of features [batch, hidden]."""
        return self.logits(self.dropout(features, training=training))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the layer."""
        config = super().get_config()
        return {**config, "num_outputs": self.num_outputs, "dropout": self.dropout_rate}


@keras.saving.register_keras_serializable(package="tf_finetune")
class MlpHead(keras.layers.Layer):
    """A hidden layer of the encoder's width, with dropout before and after, then dense.

    By default RoBERTa's classification head (Liu et al., 2019).

    Args:
        num_outputs: Number of logits.
        dropout: Share of the inputs of each layer dropped in training.
        activation: The hidden layer's, by its name in Keras; `gelu` is exact.
        input_dropout: Whether the hidden layer's inputs are dropped too.
        use_bias: Whether the hidden layer has a bias.
        norm_epsilon: That of a layer norm after the activation; None: no norm.
        norm_bias: Whether the norm has a bias.
    """

    def __init__(
        self,
        num_outputs: int,
        dropout: float = 0.1,
        activation: str = "tanh",
        input_dropout: bool = True,
        use_bias: bool = True,
        norm_epsilon: float | None = None,
        norm_bias: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_outputs = num_outputs
        self.dropout_rate = dropout
        self.activation, self.input_dropout = activation, input_dropout
        self.use_bias, self.norm_epsilon, self.norm_bias = use_bias, norm_epsilon, norm_bias
        self.dropout = keras.layers.Dropout(
            dropout if input_dropout else 0.0, dtype=self.dtype_policy
        )
        self.norm = None
        if norm_epsilon is not None:
            self.norm = keras.layers.LayerNormalization(
                epsilon=norm_epsilon, center=norm_bias, dtype="float32", name="norm"
            )
        self.linear = LinearHead(num_outputs, dropout, dtype=self.dtype_policy, name="linear")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights for inputs of [batch, hidden]."""
        self.hidden = keras.layers.Dense(
            input_shape[-1],
            activation=_exact_gelu if self.activation == "gelu" else self.activation,
            use_bias=self.use_bias,
            kernel_initializer=initializer(),
            dtype=self.dtype_policy,
            name="hidden",
        )
        self.hidden.build(input_shape)
        if self.norm is not None:
            self.norm.build(input_shape)
        self.linear.build(input_shape)
        self.built = True

    def call(self, features: Any, training: bool | None = None) -> Any:
        """Returns logits, float32 [batch, num_outputs], of features [batch, hidden]."""
        hidden = self.hidden(self.dropout(features, training=training))
        if self.norm is not None:
            hidden = ops.cast(self.norm(hidden), self.compute_dtype)
        return self.linear(hidden, training=training)

    @property
    def logits(self) -> keras.layers.Dense:
        """The last layer."""
        return self.linear.logits

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the layer."""
        config = super().get_config()
        names = (
            *("num_outputs", "activation", "input_dropout", "use_bias"),
            *("norm_epsilon", "norm_bias"),
        )
        own = {name: getattr(self, name) for name in names}
        return {**config, "dropout": self.dropout_rate, **own}


HEADS: dict[str, type[keras.layers.Layer]] = {"linear": LinearHead, "mlp": MlpHead}


def choose_head(encoder: Encoder, config: EncoderConfig) -> EncoderConfig:
    """Returns settings with the pooling and the head that `auto` stands for.

    Args:
        encoder: The encoder.
        config: The settings. `--pooling=auto` is what the encoder was trained with, or for a native
            head its; `--head=auto` the native one where the pooling is that head's, else `linear`.

    Raises:
        UserError: A native head has another pooling.
    """
    own, pooling, head = encoder.native_head.pooling, config.pooling, config.head
    if pooling == "auto":
        pooling = own if head == "native" else encoder.pooling
    if head == "native" and pooling != own:
        raise UserError(
            f"--head=native --pooling={pooling}: the head of {encoder.handle} in transformers has "
            f"the pooling {own}. Give --pooling={own}, or --head=linear or mlp."
        )
    if head == "auto":
        head = "native" if pooling == own else "linear"
    return dataclasses.replace(config, pooling=pooling, head=head)


def make_head(encoder: Encoder, config: EncoderConfig, num_outputs: int) -> keras.layers.Layer:
    """Makes the head that settings of `choose_head` ask for.

    Raises:
        UserError: There is no such head.
    """
    options: dict[str, Any] = {
        "num_outputs": num_outputs,
        "dropout": config.dropout,
        "name": "head",
    }
    native = encoder.native_head
    if config.head != "native":
        return load_head(config.head)(**options)
    if native.dense is None:
        return LinearHead(**options)
    return MlpHead(
        activation=native.activation,
        input_dropout=native.input_dropout,
        use_bias=native.use_bias,
        norm_epsilon=native.epsilon if native.norm else None,
        norm_bias=native.norm_bias,
        **options,
    )


@keras.saving.register_keras_serializable(package="tf_finetune")
def _exact_gelu(x: Any) -> Any:
    return ops.gelu(x, approximate=False)


def initializer() -> keras.initializers.Initializer:
    """Returns the initializer of new kernels: transformers', a normal distribution.

    Cut at two deviations, as google-research/bert does, it has a deviation of 0.0176, and a
    training from few steps ends lower: docs/decisions.md.
    """
    return keras.initializers.RandomNormal(stddev=INITIALIZER_RANGE)


def load_head(name: str) -> type[keras.layers.Layer]:
    """Finds a head's class.

    Args:
        name: A key of `HEADS`, or `module:Class` for a Keras layer of the user's own; the module is
            looked for in the current folder too. It is called as
            `Class(num_outputs=..., dropout=..., name="head")`, then on features [batch, hidden].
            If its attribute `logits` is a layer, the biases of that start at `constant_logits`.

    Returns:
        The class.

    Raises:
        UserError: There is no such head, module or class, or it is no Keras layer.
    """
    if name in HEADS:
        return HEADS[name]
    module_name, _, class_name = name.partition(":")
    if not class_name:
        raise UserError(f"--head={name}: allowed are {', '.join(HEADS)} and module:Class.")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"--head={name}: module {module_name} cannot be imported: {error}. "
            "Put it in the current folder or install it."
        ) from None
    head = getattr(module, class_name, None)
    if not (isinstance(head, type) and issubclass(head, keras.layers.Layer)):
        raise UserError(
            f"--head={name}: {module_name}.{class_name} is not a Keras layer class but {head!r}."
        )
    return head
