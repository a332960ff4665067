"""What a config.json says, as arguments of `DebertaEncoder` and `ModernBertEncoder`."""

import json
from pathlib import Path

import pytest

from tf_finetune.errors import UserError
from tf_finetune.formats.deberta_config import deberta_arguments
from tf_finetune.formats.modernbert_config import modernbert_arguments

CHECKPOINTS = Path(__file__).parent / "encoders"
# That of microsoft/deberta-v3-base.
DEBERTA_V3 = {
    "model_type": "deberta-v2",
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "layer_norm_eps": 1e-7,
    "max_relative_positions": -1,
    "position_biased_input": False,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 0,
    "vocab_size": 128100,
}
# What counts of answerdotai/ModernBERT-large's.
MODERNBERT = {
    "model_type": "modernbert",
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "hidden_activation": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 2624,
    "layer_norm_eps": 1e-05,
    "local_attention": 128,
    "local_rope_theta": 10000.0,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "position_embedding_type": "absolute",
    "vocab_size": 50368,
}


def test_deberta_v3_as_published() -> None:
    assert deberta_arguments(DEBERTA_V3) == {
        "vocabulary_size": 128100,
        "num_layers": 12,
        "num_heads": 12,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "max_seq_length": 512,
        "num_types": 0,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "epsilon": 1e-7,
        "embedding_size": 768,
        "has_positions": False,
        "terms": ("c2p", "p2c"),
        "max_distance": 512,
        "buckets": 256,
        "share_projections": True,
        "normalizes_distances": True,
        "convolution_size": 0,
        "convolution_activation": "tanh",
    }


def test_deberta_without_relative_attention_scores_no_distances() -> None:
    assert deberta_arguments({**DEBERTA_V3, "relative_attention": False})["terms"] == ()
    assert deberta_arguments({**DEBERTA_V3, "pos_att_type": ["c2p"]})["terms"] == ("c2p",)


def test_modernbert_as_published() -> None:
    arguments = modernbert_arguments(MODERNBERT)
    assert arguments["local_layers"] == tuple(n for n in range(28) if n % 3)
    assert (arguments["max_seq_length"], arguments["window"]) == (8192, 128)
    assert (arguments["global_theta"], arguments["local_theta"]) == (160000.0, 10000.0)
    assert {value for key, value in arguments.items() if key.endswith("dropout")} == {0.0}
    assert not any(value for key, value in arguments.items() if key.endswith("bias"))


def test_both_spellings_of_modernbert_say_the_same() -> None:
    old, new = (
        modernbert_arguments(json.loads((CHECKPOINTS / name / "config.json").read_text()))
        for name in ("modernbert", "modernbert-cls")
    )
    different = {key for key in old if old[key] != new[key]}
    assert different == {"attention_bias", "mlp_bias", "norm_bias"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act='relu'; only 'gelu' can be computed"),
        ({"num_attention_heads": 7}, "hidden_size=768, which cannot be split into"),
        ({"attention_head_size": 32}, "attention_head_size=32; only 64 can be computed"),
        ({"conv_kernel_size": 4}, "conv_kernel_size=4 and num_hidden_layers=12; only an odd"),
        ({"conv_kernel_size": 3, "num_hidden_layers": 1}, "more than one layer"),
        ({"conv_kernel_size": 3, "conv_act": "relu"}, "conv_act='relu'; only 'tanh' or 'gelu'"),
        ({"conv_groups": 2}, "conv_groups=2; only 1 can be computed"),
        ({"pos_att_type": "c2p|p2p"}, "pos_att_type='c2p|p2p'; only 'c2p', 'p2c', or both"),
        ({"pos_att_type": 3}, "pos_att_type=3; only 'c2p', 'p2c', or both"),
        ({"position_buckets": "many"}, "position_buckets='many'; it must be an integer"),
        ({"vocab_size": None}, "vocab_size=None; it must be an integer from 1"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob=1.0; it must be a number from 0"),
        ({"share_att_key": "yes"}, "share_att_key='yes'; it must be true or false"),
        ({"layer_norm_eps": 0}, "layer_norm_eps=0; it must be a number above 0"),
        ({"max_position_embeddings": 0}, "max_position_embeddings=0; it must be an integer from"),
    ],
)
def test_deberta_that_cannot_be_computed(changes: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        deberta_arguments({**DEBERTA_V3, **changes})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_activation": "silu"}, "hidden_activation='silu'; only 'gelu' can be computed"),
        ({"num_attention_heads": 1024}, "heads of 1 values; RoPE needs an even number"),
        ({"layer_types": ["full_attention"]}, "layer_types=['full_attention']; it must list"),
        ({"layer_types": ["chunked"] * 28}, "full_attention or sliding_attention for each"),
        ({"local_attention": 1}, "local_attention=1; it must be an integer from 2"),
        ({"rope_scaling": {"factor": 2.0}}, "rope_scaling={'factor': 2.0}; only unscaled"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_type='yarn'; only"),
        ({"rope_parameters": [1]}, "rope_parameters=[1]; it must give values for each kind"),
        ({"global_rope_theta": -1}, "global_rope_theta=-1; it must be a number above 0"),
    ],
)
def test_modernbert_that_cannot_be_computed(changes: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        modernbert_arguments({**MODERNBERT, **changes})
    assert message in str(caught.value)
