"""A SavedModel that follows TF Hub's text API, as one Keras 3 layer."""

import inspect
import os.path
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
import tensorflow_text  # noqa: F401 (registers the ops that SavedModels of text models use)

from tf_finetune.errors import UserError
from tf_finetune.formats.flat_function import FlatFunction, outside_of_strategies

TOKEN_INPUTS = ("input_word_ids", "input_mask", "input_type_ids")
# The types of the objects that a SavedModel stores for its functions.
RESOURCE_KINDS = (
    tf.Variable,
    tf.saved_model.Asset,
    tf.saved_model.experimental.TrackableResource,
)

TF1_REMEDY = "Use the encoder's TensorFlow 2 version, or a Hugging Face or KerasHub one."


class SavedModel:
    """A SavedModel that follows TF Hub's text API, as TensorFlow loads it.

    See https://www.tensorflow.org/hub/common_saved_model_apis/text. Its variables are plain ones
    even under a strategy.

    Args:
        directory: The SavedModel's.

    Attributes:
        module: The object that `tf.saved_model.load` returns.
        variables: Its float variables.
        resources: Its lookup tables, assets and other variables.
        takes_text: Whether its inputs are raw strings.
        widths: The last dimension of each of its outputs.

    Raises:
        UserError: The SavedModel cannot be used.
    """

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        self.module = _load(directory)
        self._has_training = "training" in inspect.signature(self.module.__call__).parameters
        self.input_spec = _find_input(directory, self.module)
        self.takes_text = isinstance(self.input_spec, tf.TensorSpec)
        self.variables = _variables(self.module)
        self.resources = _resources(self.module)
        self.widths = self._probe()

    def inputs(self, features: Any) -> Any:
        """Returns features, a dict or a tensor of strings, in the SavedModel's input structure."""
        spec = self.input_spec
        if isinstance(spec, Mapping):
            return {name: tf.cast(features[name], spec[name].dtype) for name in spec}
        if isinstance(spec, Sequence):
            return [tf.cast(features[n], s.dtype) for n, s in zip(TOKEN_INPUTS, spec, strict=True)]
        return features

    def run(self, inputs: Any, training: bool = False) -> dict[str, tf.Tensor]:
        """Returns the outputs that the SavedModel has of `pooled_output` and `sequence_output`."""
        options = {"training": training} if self._has_training else {}
        # A call may update non-trainable variables, such as counters: restore the values on disk.
        changing = [v for v in self.variables if not v.trainable] if tf.executing_eagerly() else []
        before = [variable.numpy() for variable in changing]
        outputs = _named_outputs(self.module(inputs, **options))
        for variable, value in zip(changing, before, strict=True):
            variable.assign(value)
        return outputs

    def num_layers(self) -> int | None:
        """Counts its `encoder_outputs`, one of each layer; None: it has none."""
        outputs = self.module.__call__.concrete_functions[0].structured_outputs
        found = outputs.get("encoder_outputs") if isinstance(outputs, Mapping) else None
        return None if found is None else len(found)

    def output_shape(self, name: str, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Returns the shape of an output for token ids of the given shape, [batch, length]."""
        return (*shape[: 2 if name == "sequence_output" else 1], self.widths[name])

    def write(self, directory: str, weights: Sequence[keras.Variable]) -> None:
        """Assigns `weights` to the float variables and writes the SavedModel."""
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(keras.ops.convert_to_tensor(weight))
        tf.saved_model.save(self.module, directory)

    def _probe(self) -> dict[str, int]:
        features: Any = dict.fromkeys(TOKEN_INPUTS, tf.ones([2, 8], tf.int32))
        if self.takes_text:
            features = tf.constant(["a", "b"])
        try:
            outputs = self.run(self.inputs(features))
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
        return {name: int(tensor.shape[-1]) for name, tensor in outputs.items()}


@keras.saving.register_keras_serializable("tf_finetune")
class SavedModelNetwork(keras.layers.Layer):
    """A SavedModel that follows TF Hub's text API, as a Keras layer that trains.

    Its weights start as the SavedModel's variables. It computes in float32 whatever the policy.

    Args:
        directory: The SavedModel's; also needed when a Keras model with this layer is loaded.
        saved: The SavedModel, if it is loaded already.
        **kwargs: Passed to `keras.layers.Layer`.

    Raises:
        UserError: The SavedModel cannot be used.
    """

    def __init__(self, directory: str, saved: SavedModel | None = None, **kwargs: Any) -> None:
        super().__init__(**{"name": "encoder", **kwargs, "dtype": "float32"})
        self.saved = saved or SavedModel(directory)
        # An export must contain these besides the weights; Keras would not track a list.
        self.resources = tf.Module()
        self.resources.all = self.saved.resources
        self._functions: dict[bool, FlatFunction] = {}

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        self.values = [
            self.add_weight(
                variable.shape,
                initializer=lambda shape, dtype, value=variable: tf.cast(value, dtype),
                dtype=variable.dtype.name,
                trainable=variable.trainable,
                name=variable.name.split(":")[0].replace("/", "_"),
            )
            for variable in self.saved.variables
        ]

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
        if not self.saved.takes_text:
            return self._run(inputs, training)
        first = self._run(inputs["text_a"], training)["pooled_output"]
        if "text_b" not in inputs:
            return {"pooled_output": first}
        second = self._run(inputs["text_b"], training)["pooled_output"]
        parts = [first, second, tf.abs(first - second), first * second]
        return {"pooled_output": tf.concat(parts, axis=-1)}

    def compute_output_spec(
        self, inputs: Mapping[str, keras.KerasTensor], training: bool | None = None
    ) -> dict[str, keras.KerasTensor]:
        """Returns the outputs' shapes and dtypes; reads no weight, as it runs outside replicas."""
        shape = next(iter(inputs.values())).shape
        if self.saved.takes_text:
            width = self.saved.widths["pooled_output"] * (4 if "text_b" in inputs else 1)
            return {"pooled_output": keras.KerasTensor((*shape[:1], width), "float32")}
        return {
            name: keras.KerasTensor(self.saved.output_shape(name, shape), "float32")
            for name in self.saved.widths
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the layer."""
        return {**super().get_config(), "directory": self.saved.directory}

    def _run(self, features: Any, training: bool | None) -> dict[str, tf.Tensor]:
        if tf.executing_eagerly():
            return tf.function(self._run)(features, training)
        saved, training = self.saved, bool(training)
        if training not in self._functions:
            self._functions[training] = FlatFunction(
                lambda inputs: saved.run(inputs, training), saved.input_spec
            )
        weights = {
            id(variable.handle): weight
            for variable, weight in zip(saved.variables, self.values, strict=True)
        }
        outputs = self._functions[training](saved.inputs(features), weights)
        for name, tensor in outputs.items():  # The function may leave dimensions open.
            tensor.set_shape(saved.output_shape(name, (None, None)))
        return outputs


def _load(path: str) -> Any:
    try:
        loaded = outside_of_strategies(lambda: tf.saved_model.load(path))
    except (OSError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"--encoder={path}: cannot be read as a SavedModel: {reason}") from error
    if hasattr(loaded, "prune"):  # Only a loaded SavedModel of TensorFlow 1 has it.
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
    """Returns the specs of the first argument: a dict, a sequence, or one spec of strings."""
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
    """Returns the float variables; the others, such as the casing flag, are no weights."""
    variables = getattr(loaded, "variables", None)
    if variables is None:
        functions = loaded.__call__.concrete_functions
        found = {id(v): v for function in functions for v in function.graph.variables}
        variables = found.values()
    return [variable for variable in variables if variable.dtype.is_floating]


def _resources(loaded: Any) -> list[Any]:
    return [
        item
        for item in tf.train.TrackableView(loaded).descendants()
        if isinstance(item, RESOURCE_KINDS)
        and not (isinstance(item, tf.Variable) and item.dtype.is_floating)
    ]


def _named_outputs(outputs: Any) -> dict[str, tf.Tensor]:
    """Returns `pooled_output` and `sequence_output`, those that can be recognised."""
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
