"""Inlines a SavedModel's function into the calling graph, with the caller's variables.

As TensorFlow loads it, the function is one `PartitionedCall`, and so is its gradient. That has two
limits. XLA must know the shapes that pass from the first call to the second when it compiles: it
treats all inputs of the first as constants, the variables too, and so compiles again whenever a
variable changes, at every training step. And the function uses its own variables, those of one
replica.
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
    """Calls a function in a thread of its own: strategies are per thread, its variables plain."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


class FlatFunction:
    """A function of tensors with all calls inlined.

    Args:
        function: From the inputs to a dict of tensors; it may call what a SavedModel restored.
        spec: The `tf.TensorSpec`s of its inputs, in their structure.
    """

    def __init__(self, function: Callable[[Any], dict[str, tf.Tensor]], spec: Any) -> None:
        self._function = outside_of_strategies(
            lambda: tf.function(function).get_concrete_function(spec)
        )
        self._graph_def = _run_inline_graph_optimization(
            self._function, lower_control_flow=False, aggressive_inlining=True
        )
        # `__call__` replaces the placeholders; `_class` (colocation) must not name them any more.
        nodes = [node for node in self._graph_def.node if node.op != "Placeholder"]
        for node in nodes:
            node.attr.pop("_class", None)
        del self._graph_def.node[:]
        self._graph_def.node.extend(nodes)

    def __call__(self, inputs: Any, variables: Mapping[int, Any]) -> dict[str, tf.Tensor]:
        """Adds the operations to the graph that is being traced.

        Args:
            inputs: Tensors; they get no gradient.
            variables: The `id` of the handle of a SavedModel's variable to the Keras variable that
                replaces it.

        Returns:
            The function's outputs.
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

        # Gradient tapes do not see imported operations.
        record_operation("SavedModel", outputs, sources, backward)
        return tf.nest.pack_sequence_as(self._function.structured_outputs, outputs)
