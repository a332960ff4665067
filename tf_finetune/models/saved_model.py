"""A SavedModel that follows TF Hub's text API, as one Keras 3 layer."""

import inspect
import os.path
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
import tensorflow_text  # noqa: F401 (registers the ops that SavedModels of text models use)

from tf_finetune.errors import UserError

TOKEN_INPUTS = ("input_word_ids", "input_mask", "input_type_ids")


TF1_REMEDY = "Use the encoder's TensorFlow 2 version, or a Hugging Face or KerasHub one."


@keras.saving.register_keras_serializable("tf_finetune")
class SavedModelNetwork(keras.layers.Layer):
    """A SavedModel that follows TF Hub's text API, as a Keras layer that trains.

    The layer's variables are the SavedModel's own. It computes in float32 whatever the policy.
    See https://www.tensorflow.org/hub/common_saved_model_apis/text.

    Args:
        directory: The SavedModel's; also needed when a Keras model with this layer is loaded.
        **kwargs: Passed to `keras.layers.Layer`.

    Attributes:
        takes_text: Whether its inputs are raw strings.
        hidden_size: The width of what it returns for one segment.

    Raises:
        UserError: The SavedModel cannot be used.
    """

    def __init__(self, directory: str, **kwargs: Any) -> None:
        super().__init__(**{"name": "encoder", **kwargs, "dtype": "float32"})
        self.directory = os.path.abspath(directory)
        self.saved_model = _load(directory)
        self._has_training = "training" in inspect.signature(self.saved_model.__call__).parameters
        self._input_spec_of_call = _find_input(directory, self.saved_model)
        self.takes_text = isinstance(self._input_spec_of_call, tf.TensorSpec)
        for variable in _variables(self.saved_model):
            self._track_variable(
                keras.Variable(
                    variable,
                    shape=variable.shape,
                    dtype=variable.dtype.name,
                    trainable=variable.trainable,
                    name=variable.name.split(":")[0].replace("/", "_"),
                )
            )
        self.hidden_size = self._probe()

    def build(self, input_shape: Any = None) -> None:
        """Does nothing: the SavedModel brought its variables."""
        self.built = True

    def call(
        self, inputs: Mapping[str, tf.Tensor], training: bool | None = None
    ) -> dict[str, tf.Tensor]:
        """Runs the SavedModel.

        Args:
            inputs: int32 [batch, seq_length] `input_word_ids`, `input_mask`, `input_type_ids`; or
                string [batch] `text_a` and, for pairs, `text_b`.
            training: Whether the SavedModel's dropout is applied.

        Returns:
            `pooled_output` [batch, hidden_size] and, where the SavedModel has it,
            `sequence_output` [batch, seq_length, hidden_size]. For two strings `pooled_output` is
            (u, v, |u-v|, u*v), of 4 * hidden_size: Conneau et al. 2017, arXiv:1705.02364.
        """
        if not self.takes_text:
            return self._run(inputs, training)
        first = self._run(inputs["text_a"], training)["pooled_output"]
        if "text_b" not in inputs:
            return {"pooled_output": first}
        second = self._run(inputs["text_b"], training)["pooled_output"]
        parts = [first, second, tf.abs(first - second), first * second]
        return {"pooled_output": tf.concat(parts, axis=-1)}

    def get_config(self) -> dict[str, Any]:
        """Returns what the constructor needs."""
        return {**super().get_config(), "directory": self.directory}

    def _run(self, inputs: Any, training: bool | None) -> dict[str, tf.Tensor]:
        spec = self._input_spec_of_call
        if isinstance(spec, Mapping):
            inputs = {name: tf.cast(inputs[name], spec[name].dtype) for name in spec}
        elif isinstance(spec, Sequence):
            inputs = [tf.cast(inputs[n], s.dtype) for n, s in zip(TOKEN_INPUTS, spec, strict=True)]
        options = {"training": bool(training)} if self._has_training else {}
        return _named_outputs(self.saved_model(inputs, **options))

    def _probe(self) -> int:
        inputs: Any = dict.fromkeys(TOKEN_INPUTS, tf.ones([2, 8], tf.int32))
        if self.takes_text:
            inputs = tf.constant(["a", "b"])
        try:
            outputs = self._run(inputs, training=False)
        except (ValueError, TypeError, tf.errors.OpError) as error:
            reason = str(error).strip().split("\n")[0]
            raise UserError(
                f"--encoder={self.directory}: the SavedModel fails on 2 rows of 8 tokens: {reason}"
            ) from error
        if "pooled_output" not in outputs:
            raise UserError(
                f"--encoder={self.directory}: the SavedModel returns {_describe(outputs)}; "
                "needed is a dict with 'pooled_output' [batch, width] or 'sequence_output' "
                "[batch, length, width], or one tensor [batch, width]."
            )
        return int(outputs["pooled_output"].shape[-1])


def _load(path: str) -> Any:
    try:
        loaded = tf.saved_model.load(path)
    except (OSError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"--encoder={path}: cannot be read as a SavedModel: {reason}") from error
    if hasattr(loaded, "prune"):  # what TensorFlow makes of a SavedModel of TensorFlow 1
        raise UserError(
            f"--encoder={path}: a SavedModel of TensorFlow 1, which cannot be trained. {TF1_REMEDY}"
        )
    if not (callable(loaded) and loaded.__call__.concrete_functions):
        raise UserError(
            f"--encoder={path}: the SavedModel cannot be called, as TF Hub's text API has it; it "
            f"offers the signatures {sorted(getattr(loaded, 'signatures', ()))}. Save it with a "
            "`__call__` of the token ids or strings."
        )
    return loaded


def _find_input(path: str, loaded: Any) -> Any:
    """Returns the specs of the first argument: a dict, a sequence, or one of strings."""
    seen = []
    for function in loaded.__call__.concrete_functions:
        arguments, keywords = function.structured_input_signature
        spec = arguments[0] if arguments else next(iter(keywords.values()), None)
        if (
            isinstance(spec, Mapping)
            and set(spec) <= set(TOKEN_INPUTS)
            and "input_word_ids" in spec
        ):
            return spec
        # Encoders of 2019 take a list, in this order.
        if isinstance(spec, Sequence) and len(spec) == len(TOKEN_INPUTS):
            return spec
        if isinstance(spec, tf.TensorSpec) and spec.dtype == tf.string:
            return spec
        seen.append(spec)
    raise UserError(
        f"--encoder={path}: the SavedModel takes {_describe(seen)}; an encoder takes a dict of "
        f"{', '.join(TOKEN_INPUTS)} (int32 [batch, length]), or strings [batch]."
    )


def _variables(loaded: Any) -> list[tf.Variable]:
    """Returns the float variables of what is called; others, such as casing, are no weights."""
    variables = getattr(loaded, "variables", None)
    if variables is None:
        functions = loaded.__call__.concrete_functions
        found = {id(v): v for function in functions for v in function.graph.variables}
        variables = found.values()
    return [variable for variable in variables if variable.dtype.is_floating]


def _named_outputs(outputs: Any) -> dict[str, tf.Tensor]:
    """Returns `pooled_output` and `sequence_output`, as far as they can be recognised."""
    if isinstance(outputs, Mapping):
        pooled = outputs.get("pooled_output", outputs.get("default"))
        sequence = outputs.get("sequence_output")
    else:
        tensors = outputs if isinstance(outputs, Sequence) else [outputs]
        by_rank = {tensor.shape.rank: tensor for tensor in reversed(tensors)}
        pooled, sequence = by_rank.get(2), by_rank.get(3)
    if pooled is None and sequence is not None:
        pooled = sequence[:, 0]
    named = {"pooled_output": pooled, "sequence_output": sequence}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def _describe(structure: Any) -> str:
    def shape(tensor: Any) -> str:
        if not hasattr(tensor, "shape"):
            return type(tensor).__name__
        return f"{tensor.dtype.name} {tensor.shape}"

    return str(tf.nest.map_structure(shape, structure))
