"""What Hugging Face's checkpoints call the weights of each architecture that is a BERT inside."""

from typing import NamedTuple


class BertNames(NamedTuple):
    """The modules of an architecture, relative to its base model.

    Attributes:
        layer: A transformer layer, with a place for its number.
        products: Those of each of a layer's four products; `LoRA`'s targets.
        norms: A layer's two norms, after the attention and after the feed-forward part.
        projection: From the embeddings' width to the layers'.
        pooler: The dense layer on the first token.
    """

    layer: str = "encoder.layer.{}"
    products: tuple[tuple[str, ...], ...] = (
        ("attention.self.query", "attention.self.key", "attention.self.value"),
        ("attention.output.dense",),
        ("intermediate.dense",),
        ("output.dense",),
    )
    norms: tuple[str, str] = ("attention.output.LayerNorm", "output.LayerNorm")
    projection: str = "embeddings_project"
    pooler: str = "pooler.dense"

    @property
    def modules(self) -> list[str]:
        """All linear modules of a layer."""
        return [name for names in self.products for name in names]


# Those of Hugging Face's `model_type`s; RoBERTa's and ELECTRA's are BERT's.
BERT_NAMES = {
    "bert": BertNames(),
    "distilbert": BertNames(
        layer="transformer.layer.{}",
        products=(
            ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
            ("attention.out_lin",),
            ("ffn.lin1",),
            ("ffn.lin2",),
        ),
        norms=("sa_layer_norm", "output_layer_norm"),
    ),
    "mpnet": BertNames(
        products=(
            ("attention.attn.q", "attention.attn.k", "attention.attn.v"),
            ("attention.attn.o",),
            ("intermediate.dense",),
            ("output.dense",),
        ),
        norms=("attention.LayerNorm", "output.LayerNorm"),
    ),
    "albert": BertNames(
        layer="encoder.albert_layer_groups.{}.albert_layers.0",
        products=(
            ("attention.query", "attention.key", "attention.value"),
            ("attention.dense",),
            ("ffn",),
            ("ffn_output",),
        ),
        norms=("attention.LayerNorm", "full_layer_layer_norm"),
        projection="encoder.embedding_hidden_mapping_in",
        pooler="pooler",
    ),
}
