"""A training's losses beside those of transformers' Trainer; see tests/tools/make_losses.py."""

from pathlib import Path

import numpy as np
import pytest

from tests.thorough import mostly
from tf_finetune.classification.checkpoint_head import load_head_weights
from tf_finetune.classification.classifier import build_classifier
from tf_finetune.classification.config import EncoderConfig
from tf_finetune.data.problem import Problem
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.runs.config import OptimizerConfig
from tf_finetune.training.optimizer import build_optimizer

STORED = np.load(Path(__file__).parent / "losses.npz")
PROBLEM = Problem("single_label", ("text",), ("bad", "fine", "good"))


@pytest.mark.parametrize("name", mostly("bert", "modernbert", others=["distilbert", "roberta"]))
def test_every_loss_is_that_of_transformers_trainer(folder_of, name):
    encoder = load_encoder(str(folder_of(name)), dropout=0.0)
    config = EncoderConfig(head="native", dropout=0.0)
    model = build_classifier(encoder, PROBLEM, config, max_seq_length=STORED["ids"].shape[-1]).model
    load_head_weights(encoder, model.get_layer("head"))
    expected = STORED[name]
    settings = OptimizerConfig(learning_rate=5e-4, weight_decay=0.01, max_grad_norm=1.0)
    model.compile(build_optimizer(len(expected), settings), model.loss, jit_compile=False)
    found = []
    for ids, labels in zip(STORED["ids"].astype("int32"), STORED["labels"], strict=True):
        values = (ids, np.ones_like(ids), np.zeros_like(ids))
        names = ("input_word_ids", "input_mask", "input_type_ids")
        features = {n: v for n, v in zip(names, values, strict=True) if n in model.input}
        model.reset_metrics()
        results = model.train_on_batch(features, labels.astype("int32"), return_dict=True)
        found.append(results["loss"])
    difference = np.abs(np.array(found) - expected)
    assert difference.max() < 2e-4, difference  # Rounding grows from step to step; 3e-5 was seen.
