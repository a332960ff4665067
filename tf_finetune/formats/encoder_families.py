"""The architectures of Hugging Face's that are encoders here, and what their config.json says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.formats.config_values import (
    check_heads,
    check_only,
    read_number,
    read_rate,
    read_size,
)
from tf_finetune.formats.deberta_config import deberta_arguments
from tf_finetune.formats.modernbert_config import modernbert_arguments
from tf_finetune.formats.native_head import POOLED_HEAD, NativeHead
from tf_finetune.models.bert import BertEncoder
from tf_finetune.models.deberta import DebertaEncoder
from tf_finetune.models.modernbert import ModernBertEncoder

Config = Mapping[str, Any]

GELUS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast")


@dataclass(frozen=True)
class Family:
    """An architecture.

    Attributes:
        name: Begins the names of its classes in transformers.
        prefix: Stands before the names of the base model's weights in a checkpoint with a head.
        arguments: Turns the content of a config.json into arguments of `network`.
        head: Turns that content into its head in transformers.
        network: Makes the network.
        dropout: The key of the head's dropout rate in a config.json; None: it has none of its own.
        activation: The key of the activation there.
        layers: The key of the number of layers there.
        unused: A pattern of tensors that its checkpoints hold and transformers does not read.
    """

    name: str
    prefix: str
    arguments: Callable[[Config], dict[str, Any]]
    head: Callable[[Config], NativeHead]
    network: Callable[..., Any] = BertEncoder
    dropout: str | None = "classifier_dropout"
    activation: str = "hidden_act"
    layers: str = "num_hidden_layers"
    unused: str = "$^"


def find_family(config: Config, file: Path) -> Family:
    """Returns the architecture of a config.json.

    Args:
        config: Its content.
        file: Its path, for error messages.

    Raises:
        UserError: It is no encoder of ours, or one with an option that cannot be computed.
    """
    # transformers did not write model_type before 2020; all was BERT.
    kind = config.get("model_type", "bert")
    if kind not in FAMILIES:
        raise UserError(
            f"{file} has model_type={kind!r}; only {', '.join(FAMILIES)} can be read. Load other "
            "architectures from a KerasHub preset or as a SavedModel."
        )
    return FAMILIES[kind]


def read_arguments(family: Family, config: Config, file: Path) -> dict[str, Any]:
    """Returns the arguments of a family's network; see `Family.arguments`.

    Raises:
        UserError: A value is of another type, or an option that cannot be computed.
    """
    try:
        return family.arguments(config)
    except UserError as error:
        raise UserError(f"{file} has {error}") from error


def with_activation(config: dict[str, Any], hidden_act: str | None) -> dict[str, Any]:
    """Returns a configuration with another activation; None: its own."""
    family = FAMILIES.get(config.get("model_type", "bert"))
    if hidden_act is None or family is None:
        return config
    return {**config, family.activation: hidden_act}


def with_num_layers(config: Config, num_layers: int) -> dict[str, Any]:
    """Returns a configuration of the lowest layers of a network."""
    family = FAMILIES[config.get("model_type", "bert")]
    changed = {**config, family.layers: num_layers}
    if isinstance(kinds := config.get("layer_types"), list):  # ModernBERT's, one for each layer.
        changed["layer_types"] = kinds[:num_layers]
    return changed


def _bert(config: Config) -> dict[str, Any]:
    check_only(config, "position_embedding_type", "absolute")
    check_only(config, "is_decoder", False)
    return {
        **_sizes(config, _BERT_SIZES),
        **_rates(config, "hidden_dropout_prob", "attention_probs_dropout_prob"),
        "num_types": read_size(config, "type_vocab_size", 2, least=0),
        "epsilon": read_number(config, "layer_norm_eps", 1e-12),
        "approximate_gelu": _is_approximate(config, "hidden_act"),
    }


def _albert(config: Config) -> dict[str, Any]:
    check_only(config, "num_hidden_groups", 1)
    check_only(config, "inner_group_num", 1)
    defaults = {"hidden_size": 4096, "num_attention_heads": 64, "intermediate_size": 16384}
    defaults |= {"vocab_size": 30000, "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}
    return {
        **_bert({**defaults, "hidden_act": "gelu_new", **config}),
        "embedding_size": read_size(config, "embedding_size", 128),
        "share_layers": True,
        "names": "albert",
    }


def _electra(config: Config) -> dict[str, Any]:
    defaults = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
    return {
        **_bert({**defaults, **config}),
        "embedding_size": read_size(config, "embedding_size", 128),
        "has_pooler": False,
    }


def _roberta(config: Config) -> dict[str, Any]:
    """Its positions begin after that of the padding id."""
    offset = read_size(config, "pad_token_id", 1, least=0) + 1
    arguments = _bert({"vocab_size": 50265, **config})
    arguments["max_seq_length"] -= offset
    return {**arguments, "position_offset": offset, "has_pooler": False}


def _mpnet(config: Config) -> dict[str, Any]:
    # transformers' MPNet has padding_idx 1 whatever the configuration says.
    arguments = _roberta({"vocab_size": 30527, **config, "pad_token_id": 1})
    buckets = read_size(config, "relative_attention_num_buckets", 32)
    return {**arguments, "num_types": 0, "relative_buckets": buckets, "names": "mpnet"}


def _distilbert(config: Config) -> dict[str, Any]:
    return {
        **_sizes(config, _DISTILBERT_SIZES),
        **_rates(config, "dropout", "attention_dropout"),
        "num_types": 0,
        "epsilon": 1e-12,  # transformers' DistilBERT knows no other.
        "approximate_gelu": _is_approximate(config, "activation"),
        "has_pooler": False,
        "names": "distilbert",
    }


def _sizes(config: Config, keys: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
    """Returns sizes by our names; `keys` has their names and transformers' defaults by ours."""
    found = {own: read_size(config, key, default) for own, (key, default) in keys.items()}
    check_heads(found["hidden_size"], found["num_heads"])
    return found


def _rates(config: Config, hidden: str, attention: str) -> dict[str, float]:
    found = {"dropout": hidden, "attention_dropout": attention}
    return {own: read_rate(config, key, 0.1) for own, key in found.items()}


def _is_approximate(config: Config, key: str) -> bool:
    """Returns whether a GELU is the tanh formula."""
    check_only(config, key, *GELUS)
    return config.get(key, GELUS[0]) != GELUS[0]


_BERT_SIZES = {
    "vocabulary_size": ("vocab_size", 30522),
    "num_layers": ("num_hidden_layers", 12),
    "num_heads": ("num_attention_heads", 12),
    "hidden_size": ("hidden_size", 768),
    "intermediate_size": ("intermediate_size", 3072),
    "max_seq_length": ("max_position_embeddings", 512),
}
_DISTILBERT_SIZES = {
    "vocabulary_size": ("vocab_size", 30522),
    "num_layers": ("n_layers", 6),
    "num_heads": ("n_heads", 12),
    "hidden_size": ("dim", 768),
    "intermediate_size": ("hidden_dim", 3072),
    "max_seq_length": ("max_position_embeddings", 512),
}


def _deberta_head(config: Config) -> NativeHead:
    check_only(config, "pooler_hidden_act", *GELUS[:1], "tanh", "relu")
    activation = config.get("pooler_hidden_act") or "gelu"
    return NativeHead("cls", "pooler.dense", "classifier", activation, input_dropout=False)


def _modernbert_head(config: Config) -> NativeHead:
    check_only(config, "classifier_pooling", "cls", "mean")
    check_only(config, "classifier_activation", "gelu")
    return NativeHead(
        pooling=config.get("classifier_pooling") or "cls",
        dense="head.dense",
        out="classifier",
        activation="gelu",
        input_dropout=False,
        use_bias=bool(config.get("classifier_bias")),
        norm="head.norm",
        norm_bias=bool(config.get("norm_bias")),
        epsilon=read_number(config, "norm_eps", 1e-5),
    )


def _is(head: NativeHead) -> Callable[[Config], NativeHead]:
    return lambda config: head


_POOLED = _is(POOLED_HEAD)
# By Hugging Face's `model_type`.
FAMILIES = {
    "bert": Family("Bert", "bert.", _bert, _POOLED),
    "roberta": Family("Roberta", "roberta.", _roberta, _is(NativeHead())),
    "xlm-roberta": Family("XLMRoberta", "roberta.", _roberta, _is(NativeHead())),
    "camembert": Family("Camembert", "roberta.", _roberta, _is(NativeHead())),
    "distilbert": Family(
        "DistilBert",
        "distilbert.",
        _distilbert,
        _is(NativeHead("cls", "pre_classifier", "classifier", "relu", input_dropout=False)),
        dropout="seq_classif_dropout",
        activation="activation",
        layers="n_layers",
    ),
    "electra": Family("Electra", "electra.", _electra, _is(NativeHead(activation="gelu"))),
    "mpnet": Family("MPNet", "mpnet.", _mpnet, _is(NativeHead()), dropout=None),
    "albert": Family("Albert", "albert.", _albert, _POOLED, dropout="classifier_dropout_prob"),
    "deberta-v2": Family(
        "DebertaV2",
        "deberta.",
        deberta_arguments,
        _deberta_head,
        network=DebertaEncoder,
        dropout="cls_dropout",
        # position_biased_input is false, yet the positions of its training are there.
        unused=r"embeddings\.(word_embeddings\._weight|position_embeddings\._?weight)$",
    ),
    "modernbert": Family(
        "ModernBert",
        "model.",
        modernbert_arguments,
        _modernbert_head,
        network=ModernBertEncoder,
        activation="hidden_activation",
    ),
}
