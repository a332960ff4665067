"""XLA compiles the whole step, few programs, and computes the same."""

import json
import os
import subprocess
import sys

import pytest

from tests.thorough import mostly
from tf_finetune import load_encoder
from tf_finetune.formats.hub_writer import save_hub_encoder

# Trains and evaluates, with XLA and without; prints the losses and how often XLA compiled.
TRAIN = """
import json, pathlib, sys
from dataclasses import replace
import keras, numpy as np, tensorflow as tf
from tf_finetune import *
from tf_finetune.classification.tokenize import table_rows
from tf_finetune.data.plan import xla_buckets
from tf_finetune.training.step import make_train_loop

folder, dump, mode = sys.argv[1:]


def programs():
    return len(list(pathlib.Path(dump).glob("*before_optimizations.txt")))


def run(jit_compile):
    keras.utils.set_random_seed(1)
    before = programs()
    problem = Problem("single_label", ("text",), ("bad", "good"))
    encoder = load_encoder(folder, mode=mode)
    runtime = Runtime(jit_compile=bool(jit_compile))
    model = build_classifier(encoder, problem, EncoderConfig(dropout=0.0), runtime=runtime).model
    assert model.jit_compile == jit_compile
    texts = [("good " if i % 2 else "bad ") * (1 + i % 20) + "film" for i in range(100)]
    examples = Examples((texts,), np.arange(100, dtype="int32") % 2)
    rows = replace(tokenize(examples, encoder.preprocessor, 24), buckets=xla_buckets(24))
    settings, tables = OptimizerConfig(learning_rate=1e-3), table_rows(encoder, rows)
    model.optimizer = build_optimizer(50, settings, table_rows=tables)
    model.optimizer.build(model.trainable_variables)
    dataset = make_train_dataset(rows, 10, num_epochs=5)
    lengths = {features["input_word_ids"].shape[1] for features, _, _ in dataset}
    losses, *_ = make_train_loop(model, runtime)(iter(dataset), tf.constant(50))
    logits_fn = make_logits_fn(model, runtime)
    loss = evaluate(logits_fn, make_eval_dataset(rows, 16), problem)["loss"]
    compiled = programs() - before
    return {"losses": [*map(float, losses), loss], "lengths": len(lengths), "compiled": compiled}


print(json.dumps([run(xla) for xla in (1, 0)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", mostly("native", others=["saved_model"]))
def test_a_program_for_each_length_and_the_same_losses(mode, tiny_bert_dir, tmp_path):
    save_hub_encoder(load_encoder(str(tiny_bert_dir), dropout=0.0), tmp_path / "hub")
    folder, dump = str(tmp_path / "hub" / "encoder"), str(tmp_path / "dump")
    flags = f"{os.environ['XLA_FLAGS']} --xla_dump_to={dump} --xla_dump_hlo_as_text"
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, folder, dump, mode],
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": flags},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    compiled, plain = json.loads(done.stdout.splitlines()[-1])
    assert compiled["lengths"] == plain["lengths"] >= 3
    # Training and evaluation, on the same rows.
    assert 2 <= compiled["compiled"] <= 2 * compiled["lengths"]
    assert len(plain["losses"]) == 51
    assert compiled["losses"] == pytest.approx(plain["losses"], abs=1e-4)
    assert compiled["losses"][-1] < compiled["losses"][0] - 0.1, "the training learnt nothing"
