"""Adapters (LoRA) beside the weights of an encoder that was loaded."""

import dataclasses

from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder
from tf_finetune.models.encoder_weights import remake
from tf_finetune.models.lora import Lora


def with_lora(encoder: Encoder, lora: Lora | None) -> Encoder:
    """Returns an encoder that computes the same, with new adapters in place of those it has.

    Args:
        encoder: The encoder. Adapters that it has are merged into the weights, in float32.
        lora: The new adapters; None: none.

    Returns:
        The encoder; the same one if nothing changes.

    Raises:
        UserError: It is none of our own layers, or has no layers of the names in `lora.targets`.
    """
    network = encoder.network
    if lora is None and encoder.lora is None:
        return encoder
    if not hasattr(network, "adapters"):
        raise UserError(
            f"--lora_rank={lora.rank if lora else 0}: --encoder={encoder.handle} is "
            f"{encoder.foreign}. Only an encoder of our own layers can have adapters: give it in "
            "Hugging Face's format, or train all weights with --lora_rank=0."
        )
    modules = network.modules
    if lora and (strange := lora.unmatched(modules)):
        raise UserError(
            f"--lora_targets={','.join(lora.targets)}: --encoder={encoder.handle} has no linear "
            f"layer {strange[0]}. It has {', '.join(modules)} in each layer; name them so, or by "
            "the last parts of their names, e.g. query,value."
        )
    network = remake(network, lora)
    return dataclasses.replace(encoder, network=network, blocks=network.blocks)
