"""The trained weights of a language model as transformers stores them, with adapters merged in."""

from collections.abc import Iterator

import numpy as np
from keras import ops

from tf_finetune.formats.decoder import Decoder
from tf_finetune.formats.huggingface_writer import Dtype
from tf_finetune.formats.language_model import LanguageModelFiles


def merged_tensors(decoder: Decoder) -> Iterator[tuple[str, np.ndarray]]:
    """Yields name and value of each weight as transformers stores it, float32.

    Beside adapters the network may hold its other weights rounded. So W + scaling · A·B is computed
    from the checkpoint's own W.
    """
    network = decoder.network
    adapters = {f"{module}.weight": adapter for module, adapter in network.adapters.items()}
    for part in network.stored():
        if not adapters:
            yield from part.read()
            continue
        for name in part.names:
            value = decoder.files.read(name)
            if name in adapters:
                a, b = (ops.convert_to_numpy(factor) for factor in adapters[name])
                change = network.lora.scaling * (a @ b)
                value = value + (change.T if part.transposed else change)
            yield name, value


def copy_training(source: Decoder, target: Decoder) -> None:
    """Gives a decoder what another one of the same checkpoint and adapters has learnt."""
    if source.network.adapters:
        adapters = source.network.adapters
        pairs = [
            (old, new)
            for module, adapter in target.network.adapters.items()
            for old, new in zip(adapter, adapters[module], strict=True)
        ]
    else:
        pairs = [
            (old.variable, new.variable)
            for old, new in zip(target.network.stored(), source.network.stored(), strict=True)
        ]
    for old, new in pairs:
        old.assign(ops.convert_to_numpy(new))


def kernels_are_transposed(decoder: Decoder) -> bool:
    """Whether the checkpoint stores its kernels [inputs, outputs], as GPT-2's does."""
    return not any(part.transposed for part in decoder.network.stored())


def stored_dtype(files: LanguageModelFiles) -> Dtype:
    """Returns the dtype of a checkpoint's embeddings, in which a model made of it is written.

    Weights of GGUF files have been dequantised and so are float32, as those of float64 become.
    """
    name = next(name for name in sorted(files.names) if "embed_tokens" in name or "wte" in name)
    dtypes: tuple[Dtype, ...] = ("bfloat16", "float16")
    return next((dtype for dtype in dtypes if files.load(name).dtype.name == dtype), "float32")
