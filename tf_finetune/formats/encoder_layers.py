"""An encoder cut down to its lowest layers."""

import dataclasses

from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder
from tf_finetune.formats.encoder_families import find_family, read_arguments, with_num_layers
from tf_finetune.models.encoder_weights import remake


def with_layers(encoder: Encoder, num_layers: int | None) -> Encoder:
    """Returns an encoder of the lowest layers of another, with their weights.

    The embeddings and the pooler stay. So is the student of BERT-PKD begun (Sun et al., 2019,
    Patient Knowledge Distillation for BERT Model Compression, section 4.2). Of an ALBERT, whose
    layers share their weights, the same layer is computed less often.

    Args:
        encoder: The encoder, without adapters.
        num_layers: How many layers to keep; None: all.

    Returns:
        The encoder; the same one if nothing changes. Its `source` says the new number.

    Raises:
        UserError: It has fewer layers, cannot do with so few, or is none of our own layers.
    """
    network = encoder.network
    if num_layers is None:
        return encoder
    if not hasattr(network, "stored"):
        raise UserError(
            f"--num_layers={num_layers}: --encoder={encoder.handle} is {encoder.foreign}, whose "
            "layers cannot be told apart. Give it in Hugging Face's format, or leave the flag out."
        )
    if num_layers > network.num_layers:
        raise UserError(
            f"--num_layers={num_layers}: --encoder={encoder.handle} has {network.num_layers} "
            f"layers. Give 1 to {network.num_layers}, or leave the flag out."
        )
    if num_layers == network.num_layers:
        return encoder
    source = encoder.source
    if source is not None:
        config = with_num_layers(source.config, num_layers)
        family, file = find_family(config, source.directory), source.directory / "config.json"
        read_arguments(family, config, file)  # Some options ask for more than one layer.
        source = dataclasses.replace(source, config=config)
    network = remake(network, None, num_layers)
    return dataclasses.replace(encoder, network=network, blocks=network.blocks, source=source)
