"""A SavedModel's function as operations of the graph that calls it, over variables of the caller.

Called as TensorFlow loads it, such a function stays one `PartitionedCall`, and so does its
gradient. That has two limits. XLA needs to know the shapes that pass from the one to the other
when it compiles, takes all inputs of the call they come from for constants, the variables among
them, and so compiles anew as soon as a variable changes: at every step of a training. And the
function knows its own variables only, which are those of one replica.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

# There is no public way to inline calls, nor to record what a graph imports.
from tensorflow.python.eager.record import record_operation
from tensorflow.python.framework.convert_to_constants import _run_inline_graph_optimization
from tensorflow.python.ops.gradients_util import _GradientsHelper


def outside_of_strategies(function: Callable[[], Any]) -> Any:
    """Calls a function where variables are ordinary ones: strategies are known by thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


class FlatFunction:
    """A function of tensors with all calls inlined.

    Args:
        function: From the inputs to a dict of tensors; it may call what a SavedModel restored.
        spec: The structure of its inputs, of `tf.TensorSpec`.
    """

    def __init__(self, function: Callable[[Any], dict[str, tf.Tensor]], spec: Any) -> None:
        self._function = outside_of_strategies(
            lambda: tf.function(function).get_concrete_function(spec)
        )
        self._graph_def = _run_inline_graph_optimization(
            self._function, lower_control_flow=False, aggressive_inlining=True
        )
        # What stood for the inputs is replaced, and nothing may refer to it any more.
        nodes = [node for node in self._graph_def.node if node.op != "Placeholder"]
        for node in nodes:
            node.attr.pop("_class", None)
        del self._graph_def.node[:]
        self._graph_def.node.extend(nodes)

    def __call__(self, inputs: Any, variables: Mapping[int, Any]) -> dict[str, tf.Tensor]:
        """Adds the operations to the graph that is being traced.

        Args:
            inputs: Tensors, by which there is no gradient.
            variables: Keras variables to use in place of the SavedModel's, by the `id` of the
                handle of these.

        Returns:
            What the function returns.
        """
        graph = tf.compat.v1.get_default_graph()
        for variable in variables.values():
            tf.convert_to_tensor(variable)  # so that gradient tapes watch it
        captured, sources = [], []
        for tensor in self._function.captured_inputs:
            variable = variables.get(id(tensor))
            captured.append(graph.capture(tensor if variable is None else variable.value.handle))
            if variable is not None:
                sources.append(captured[-1])
        replaced = zip(self._function.inputs, [*tf.nest.flatten(inputs), *captured], strict=True)
        outputs = tf.graph_util.import_graph_def(
            self._graph_def,
            input_map={tensor.name: value for tensor, value in replaced},
            return_elements=[tensor.name for tensor in self._function.outputs],
            name="saved_model",
        )

        def backward(*upstream: tf.Tensor) -> list[tf.Tensor | tf.IndexedSlices | None]:
            return _GradientsHelper(outputs, sources, upstream, src_graph=graph)

        # Imported operations pass gradient tapes by.
        record_operation("SavedModel", outputs, sources, backward)
        return tf.nest.pack_sequence_as(self._function.structured_outputs, outputs)
