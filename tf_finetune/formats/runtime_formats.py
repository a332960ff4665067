"""Formats that other programs than TensorFlow run: OpenVINO, ONNX Runtime and LiteRT.

Each is written from a SavedModel that takes token ids, and says how Python runs it.
"""

import contextlib
import importlib.util
import io
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tf_finetune.errors import UserError
from tf_finetune.runs.exports import RUNTIMES

# Of a network: the name of each input to int32 [batch, seq_length].
Features = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class RuntimeFormat:
    """A format.

    Attributes:
        title: Its program's name.
        mark: The file that an export of it has.
        writers: The packages that write it; the extra of this package has the format's name.
        needs: The packages that run it.
        session: Python that defines `run(features)`, which returns the logits; `FOLDER` is there.
        write: Takes the SavedModel, a folder, and rows whose activations give their ranges in int8;
            without rows the weights stay float32.
    """

    title: str
    mark: str
    writers: tuple[str, ...]
    needs: str
    session: str
    write: Callable[[Path, Path, Sequence[Features]], None]

    def check_installed(self, name: str) -> None:
        """Checks that the packages are there that write it.

        Raises:
            UserError: One is missing; the message says how to install it.
        """
        for package in self.writers:
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"--export_formats={name} needs {package}: "
                    f"pip install 'tf_finetune[{name}]', or leave {name} out."
                )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps from the screen what a converter tells of its work."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def write_openvino(source: Path, folder: Path, rows: Sequence[Features]) -> None:
    """Writes `model.xml` and `model.bin`; int8 weights and activations, ranges by NNCF."""
    import openvino

    model = openvino.Core().read_model(source)
    if rows:
        os.environ.setdefault("NNCF_CI", "1")  # It would tell its maker of its use.
        import nncf

        with _quietly():
            model = nncf.quantize(
                model,
                nncf.Dataset([dict(row) for row in rows]),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(rows),
            )
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)


def write_onnx(source: Path, folder: Path, rows: Sequence[Features]) -> None:
    """Writes `model.onnx`; int8 weights, the activations' ranges are found at run time."""
    import tf2onnx
    from tf2onnx import tf_loader

    path = folder / "model.onnx"
    with _quietly():
        graph, inputs, outputs, names = tf_loader.from_saved_model(
            str(source), None, None, "serve", ["serving_default"], return_tensors_to_rename=True
        )
        model, _ = tf2onnx.convert.from_graph_def(
            graph,
            input_names=inputs,
            output_names=outputs,
            opset=18,
            custom_op_handlers={"Erfc": (_erfc, [])},
        )
    _rename(model.graph, names)
    if not rows:
        path.write_bytes(model.SerializeToString())
        return
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quietly():
        # Integer products of processors without VNNI add up in 16 bits: 7 bits of a weight are
        # safe.
        quantize_dynamic(
            onnx.shape_inference.infer_shapes(model),
            path,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )


def _erfc(context: Any, node: Any, name: str, _: Any) -> Any:
    """1 - erf(x), for ONNX has no erfc."""
    shape, dtype = context.get_shape(node.output[0]), context.get_dtype(node.output[0])
    inputs, outputs = list(node.input), list(node.output)
    context.remove_node(node.name)
    erf = context.make_node("Erf", inputs, shapes=[shape], dtypes=[dtype])
    one = context.make_const(f"{name}_one", np.array(1.0, np.float32))
    return context.make_node(
        "Sub", [one.output[0], erf.output[0]], outputs=outputs, shapes=[shape], dtypes=[dtype]
    )


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Renames a graph's inputs and outputs."""
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]


def write_litert(source: Path, folder: Path, rows: Sequence[Features]) -> None:
    """Writes `model.tflite`; int8 weights, the activations' ranges are found at run time."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(source))
    if rows:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    (folder / "model.tflite").write_bytes(converter.convert())


FORMATS = {
    "openvino": RuntimeFormat(
        title="OpenVINO",
        mark=RUNTIMES["openvino"],
        writers=("openvino", "nncf"),
        needs="openvino tokenizers",
        session="""\
import openvino

_model = openvino.Core().compile_model(FOLDER / "model.xml", "CPU")


def run(features):
    return _model(features)["logits"]
""",
        write=write_openvino,
    ),
    "onnx": RuntimeFormat(
        title="ONNX Runtime",
        mark=RUNTIMES["onnx"],
        writers=("tf2onnx", "onnx", "onnxruntime"),
        needs="onnxruntime tokenizers",
        session="""\
import onnxruntime

_model = onnxruntime.InferenceSession(FOLDER / "model.onnx", providers=["CPUExecutionProvider"])


def run(features):
    return _model.run(["logits"], features)[0]
""",
        write=write_onnx,
    ),
    "litert": RuntimeFormat(
        title="LiteRT",
        mark=RUNTIMES["litert"],
        writers=(),
        needs="ai-edge-litert tokenizers",
        session="""\
import os

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tensorflow.lite import Interpreter

_model = Interpreter(str(FOLDER / "model.tflite"), num_threads=os.cpu_count())
_model = _model.get_signature_runner()


def run(features):
    return _model(**features)["logits"]
""",
        write=write_litert,
    ),
}
