"""Writes an encoder of random weights as transformers does, for all contenders to read."""

import argparse
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, set_seed

_SHAPES = {
    "small": {"num_hidden_layers": 6, "hidden_size": 384, "intermediate_size": 1536},
    "base": {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072},
}
_COMMON = {"vocab_size": 30522, "num_attention_heads": 12, "max_position_embeddings": 512}
_DISTILBERT_NAMES = {
    "num_hidden_layers": "n_layers",
    "hidden_size": "dim",
    "intermediate_size": "hidden_dim",
    "num_attention_heads": "n_heads",
}
# Beside what transformers takes for an architecture: as in the published ones.
_OWN: dict[str, dict[str, Any]] = {
    # 512 positions, from behind that of the padding id.
    "roberta": {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "mpnet": {"max_position_embeddings": 514},
    # deberta-v3-base
    "deberta-v2": {
        "type_vocab_size": 0,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 256,
        "max_relative_positions": -1,
        "position_biased_input": False,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "layer_norm_eps": 1e-7,
    },
    "modernbert": {
        "pad_token_id": 0,
        **dict.fromkeys(("bos_token_id", "cls_token_id"), 2),
        **dict.fromkeys(("eos_token_id", "sep_token_id"), 3),
    },
}
# Ours asks for a tokenizer; the steps have no text.
_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a")


def make_config(model_type: str, shape: str) -> Any:
    """Returns the configuration of an architecture in one of the shapes."""
    sizes = {**_COMMON, **_SHAPES[shape]}
    if model_type == "distilbert":
        sizes = {_DISTILBERT_NAMES.get(name, name): value for name, value in sizes.items()}
    return AutoConfig.for_model(model_type, **{**sizes, **_OWN.get(model_type, {})})


def write_tokenizer(directory: Path) -> None:
    """Writes the smallest tokenizer that an encoder can have."""
    (directory / "vocab.txt").write_text("\n".join(_TOKENS) + "\n", encoding="utf-8")


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model_type", required=True)
    parser.add_argument("--shape", choices=sorted(_SHAPES), default="small")
    parser.add_argument("--output_dir", type=Path, required=True)
    arguments = parser.parse_args()
    set_seed(1)
    model = AutoModel.from_config(make_config(arguments.model_type, arguments.shape))
    model.save_pretrained(arguments.output_dir)
    write_tokenizer(arguments.output_dir)
    print("\n{}")


if __name__ == "__main__":
    main()
