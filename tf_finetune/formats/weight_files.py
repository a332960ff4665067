"""The weights of a BERT from files that TensorFlow has written."""

import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import tensorflow as tf

from tf_finetune.errors import UserError
from tf_finetune.formats.weight_parts import weight_parts
from tf_finetune.models.bert_weights import canonical_name

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Reads the weights that `canonical_name` knows; those of heads and optimizers are left out.

    Args:
        path: A folder with `tf_model.h5` (it may be in parts, with an index), or else a checkpoint
            of TensorFlow; or the prefix of such a checkpoint.

    Returns:
        The weights; kernels are [inputs, outputs].

    Raises:
        UserError: There is no such file, or it must be fetched or converted first.
        Exception: A file is damaged; the libraries' exceptions have no common class.
    """
    weights: dict[str, np.ndarray] = {}
    if not path.is_dir():
        return _read_checkpoint(path)
    if files := weight_parts(path, "tf_model.h5"):
        for file in files:
            weights |= _read_h5(file)
    else:
        weights = _read_checkpoint(_only_checkpoint(path))
    return weights


def _read_h5(path: Path) -> dict[str, np.ndarray]:
    """Reads a file that transformers' TensorFlow classes wrote with Keras' `save_weights`."""
    weights = {}
    try:
        file = h5py.File(path)
    except OSError as error:
        raise ValueError(f"{path.name} is no HDF5 file: {error}") from error
    with file:
        datasets: list[tuple[str, h5py.Dataset]] = []
        file.visititems(
            lambda name, item: datasets.append((name, item)) if hasattr(item, "nbytes") else None
        )
        for name, dataset in datasets:
            # A language model's head repeats the embeddings that it shares.
            if name.split("/")[0].endswith("___cls"):
                continue
            own = re.sub(r"\blayer_\._(\d+)/", r"layer_\1/", name.split(":")[0])
            own = re.sub("embeddings/weight$", "embeddings", own)
            if not canonical_name(own):
                continue
            # HDF5 can refer to other files of this machine, and declare what it does not hold.
            if dataset.external or dataset.is_virtual or dataset.nbytes > path.stat().st_size:
                raise ValueError(f"{name} is not held by {path.name} itself")
            weights[own] = dataset[()]
    return weights


def _only_checkpoint(directory: Path) -> Path:
    """Returns the prefix of a folder's checkpoint."""
    found = sorted(path.with_suffix("") for path in directory.glob("*.index"))
    named = [path for path in found if path.name == "bert_model.ckpt"] or found
    if len(named) == 1:
        return named[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise UserError(
            f"{directory} holds several checkpoints: {names}. Give one by its prefix: "
            f"--encoder={found[-1]}."
        )
    inside = ", ".join(sorted(path.name for path in directory.iterdir()))
    raise UserError(
        f"{directory} holds no model.safetensors, pytorch_model.bin, tf_model.h5 or checkpoint of "
        f"TensorFlow (*.index with its *.data-…), only {inside}. Compare its files with the "
        "original's."
    )


def _read_checkpoint(prefix: Path) -> dict[str, np.ndarray]:
    """Reads a checkpoint of Google's release, or of TF Models, whose keys are paths of objects."""
    reader = tf.train.load_checkpoint(str(prefix))
    names = [(key, key) for key in reader.get_variable_to_shape_map()]
    if _OBJECT_GRAPH in dict(names):
        names = list(_variable_names(reader.get_tensor(_OBJECT_GRAPH)))
    return {name: reader.get_tensor(key) for name, key in names if canonical_name(name)}


def _variable_names(object_graph: bytes) -> Iterator[tuple[str, str]]:
    """Yields the name of each variable of a TensorFlow 2 checkpoint and the key of its value."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    for node in TrackableObjectGraph.FromString(object_graph).nodes:
        for attribute in node.attributes:
            yield attribute.full_name, attribute.checkpoint_key
