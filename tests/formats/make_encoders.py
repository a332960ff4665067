"""Makes encoders/: a tiny checkpoint of every family, and what transformers computes with it.

Run with torch and transformers installed: python tests/formats/make_encoders.py

Each folder has config.json, the weights of the family's ForSequenceClassification, and
reference.npz: `ids`, `mask` and `types`, int32 [3, 12]; `sequence`, float32 [3, 12, 16], of the
base model; `logits`, float32 [3, 3]. Weights are random and large, those of padding, of token types
and of norms too, so that none can be forgotten unnoticed.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

FOLDER = Path(__file__).parent / "encoders"
LABELS = ("bad", "fine", "good")
LENGTH = 12
SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
BERT = {**SIZES, **DROPOUT, "model_type": "bert", "type_vocab_size": 2}
# Ids start behind that of the padding, 1.
ROBERTA = {**SIZES, **DROPOUT, "max_position_embeddings": 42, "type_vocab_size": 1}
ROBERTA |= {"pad_token_id": 1, "layer_norm_eps": 1e-5}
# As deberta-v3-base, with a bucket for several distances.
DEBERTA = {
    **SIZES,
    **DROPOUT,
    "model_type": "deberta-v2",
    "type_vocab_size": 0,
    "relative_attention": True,
    "pos_att_type": "p2c|c2p",
    "position_buckets": 8,
    "max_relative_positions": -1,
    "position_biased_input": False,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "layer_norm_eps": 1e-7,
    "pooler_dropout": 0,
    "pooler_hidden_act": "gelu",
    "pooler_hidden_size": 16,
}
# The window of four tokens at each side cuts texts of twelve.
MODERNBERT = {
    **SIZES,
    "model_type": "modernbert",
    "num_hidden_layers": 4,
    "local_attention": 8,
    "pad_token_id": 2,
    "bos_token_id": 3,
    "cls_token_id": 3,
    "eos_token_id": 4,
    "sep_token_id": 4,
    "attention_dropout": 0.1,
    "embedding_dropout": 0.1,
    "mlp_dropout": 0.1,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": BERT,
    "bert-bfloat16": BERT,
    "bert-base-model": BERT,
    "bert-2019": BERT,
    "roberta": {**ROBERTA, "model_type": "roberta"},
    "xlm-roberta": {**ROBERTA, "model_type": "xlm-roberta"},
    "camembert": {**ROBERTA, "model_type": "camembert"},
    "distilbert": {
        "model_type": "distilbert",
        "vocab_size": 60,
        "dim": 16,
        "n_heads": 2,
        "n_layers": 2,
        "hidden_dim": 24,
        "max_position_embeddings": 40,
    },
    "electra": {
        **SIZES,
        **DROPOUT,
        "model_type": "electra",
        "type_vocab_size": 2,
        "embedding_size": 8,
    },
    "mpnet": {
        **SIZES,
        **DROPOUT,
        "model_type": "mpnet",
        "max_position_embeddings": 42,
        "pad_token_id": 1,
    },
    "albert": {
        **SIZES,
        **DROPOUT,
        "model_type": "albert",
        "num_hidden_layers": 3,
        "embedding_size": 8,
        "type_vocab_size": 2,
        "classifier_dropout_prob": 0.1,
    },
    # As deberta-v2-xlarge.
    "deberta-v2": {
        **DEBERTA,
        "attention_head_size": 8,
        "conv_kernel_size": 3,
        "conv_act": "gelu",
    },
    # What the published ones do not use.
    "deberta-v2-absolute": {
        **DEBERTA,
        "embedding_size": 8,
        "norm_rel_ebd": "none",
        "position_biased_input": True,
        "position_buckets": -1,
        "max_relative_positions": 6,
        "share_att_key": False,
        "type_vocab_size": 2,
    },
    "deberta-v3": DEBERTA,
    "modernbert": {**MODERNBERT, "classifier_pooling": "mean"},
    "modernbert-cls": {
        **MODERNBERT,
        "attention_bias": True,
        "classifier_bias": True,
        "classifier_pooling": "cls",
        "mlp_bias": True,
        "norm_bias": True,
    },
}


def make_inputs(config: Any) -> dict[str, np.ndarray]:
    """One text of full length, a shorter pair, and a short text."""
    mask = np.arange(LENGTH) < np.array([[LENGTH], [9], [5]])
    ids = np.random.default_rng(0).integers(5, config.vocab_size, mask.shape)
    types = np.zeros_like(ids)
    if getattr(config, "type_vocab_size", 0) > 1:
        types[1, 4:9] = 1
    parts = {"ids": np.where(mask, ids, config.pad_token_id), "mask": mask, "types": types}
    return {name: part.astype(np.int32) for name, part in parts.items()}


def compute(model: torch.nn.Module, base: torch.nn.Module, inputs: dict[str, np.ndarray]) -> Any:
    """Returns the outputs of the classifier and of its base model in float32."""
    model, base = (part.float().eval() for part in (model, base))
    arguments = {"input_ids": inputs["ids"], "attention_mask": inputs["mask"]}
    if inputs["types"].any():
        arguments["token_type_ids"] = inputs["types"]
    tensors = {name: torch.tensor(value).long() for name, value in arguments.items()}
    with torch.no_grad():
        return {
            "sequence": base(**tensors).last_hidden_state.numpy(),
            "logits": model(**tensors).logits.numpy(),
        }


def make_weights(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            norm = "norm" in name.lower() and name.endswith("weight")
            deviation = 0.3 if weight.ndim == 1 else 0.5
            weight.copy_(norm + deviation * torch.randn(weight.shape, generator=generator))


def load(folder: Path) -> tuple[Any, Any]:
    """Reads the classifier, and its base model."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    return model, getattr(model, model.base_model_prefix)


def edit_config(folder: Path, changes: dict[str, Any]) -> None:
    """Changes entries of config.json; None removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    config = {name: value for name, value in config.items() if changes.get(name, 0) is not None}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_2019(folder: Path, model: torch.nn.Module) -> None:
    """Saves as the first BERT checkpoints: an older container, gamma and beta."""
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    weights = {}
    for name, weight in model.state_dict().items():
        for new, old in names.items():
            name = name.replace(new, old)
        weights[name] = weight
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def make(name: str, options: dict[str, Any]) -> None:
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    config = AutoConfig.for_model(
        **options,
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
        problem_type="single_label_classification",
    )
    config._attn_implementation = "eager"
    model = AutoModelForSequenceClassification.from_config(config)
    make_weights(model)
    if name == "bert-bfloat16":
        model = model.to(torch.bfloat16)
    model.save_pretrained(folder)
    # As microsoft's and answerdotai's are written; the others are in the form of transformers 5.
    if name == "deberta-v3":
        edit_config(folder, {"pos_att_type": DEBERTA["pos_att_type"]})
    if name == "modernbert":
        edit_config(
            folder,
            {
                "global_attn_every_n_layers": 3,
                "global_rope_theta": 160000.0,
                "local_rope_theta": 10000.0,
                "layer_types": None,
                "rope_parameters": None,
            },
        )
    model, base = load(folder)
    inputs = make_inputs(config)
    outputs = compute(model, base, inputs)
    if name == "bert-2019":
        write_2019(folder, model)
        edit_config(folder, {"layer_norm_eps": None, "pad_token_id": None})
        again = compute(*load(folder), inputs)
        assert all(np.array_equal(outputs[part], again[part]) for part in outputs)
    if name == "bert-base-model":
        # As sentence-transformers writes it: no prefix; here without the pooler too.
        base.pooler = None
        base.save_pretrained(folder)
        edit_config(folder, {"id2label": None, "label2id": None, "problem_type": None})
        again = AutoModel.from_pretrained(folder, add_pooling_layer=False)
        assert not any(key.startswith(("bert.", "pooler")) for key in again.state_dict())
        del outputs["logits"]
    np.savez_compressed(folder / "reference.npz", **inputs, **outputs)


if __name__ == "__main__":
    for family, settings in FAMILIES.items():
        make(family, settings)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    (FOLDER / "MANIFEST.json").write_text(json.dumps(versions) + "\n")
