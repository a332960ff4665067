"""The kernels of a training are compiled before its steps need them, all of them and only they."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from tests.thorough import mostly
from tf_finetune.training.compile_ahead import compiling_ahead

LANGUAGE_MODELS = Path(__file__).resolve().parents[1] / "formats" / "language_models"

# A model and rows of many lengths.
CLASSIFIER = """
from tf_finetune.models.bert import BertEncoder as Network
encoder = load_encoder(folder)
problem = Problem("single_label", ("text",), ("bad", "good"))
model = build_classifier(encoder, problem).model
examples = Examples((["good " * (1 + i % 60) for i in range(64)],), np.zeros(64, "int32"))
rows = tokenize(examples, encoder.preprocessor, 64)
"""
GENERATOR = """
from tf_finetune.formats.decoders import load_decoder
from tf_finetune.generation.collate import DialogueCollate
from tf_finetune.generation.network import connect
from tf_finetune.models.lora import Lora
import tf_finetune.models.FAMILY as family
Network = [c for n, c in vars(family).items() if n.endswith("Decoder")][0]
keras.config.set_dtype_policy("mixed_bfloat16")
decoder = load_decoder(folder, trainable=True, lora=LORA)
decoder.network.prefix = PREFIX
model = connect(decoder)
model.compile(keras.optimizers.AdamW(), loss=TargetLoss())
lengths = np.array([6 + i % 55 for i in range(64)], "int32")
ragged = tf.RaggedTensor.from_row_lengths(tf.ones([lengths.sum()], "int32"), lengths)
columns = {"ids": ragged, "targets": ragged}
rows = TokenizedRows(columns, lengths, lengths, 64, DialogueCollate())
"""
BEFORE = """
import json, pathlib, sys, time
from dataclasses import replace
import keras, numpy as np, tensorflow as tf
from tf_finetune import *
from tf_finetune.data.tokenized import TokenizedRows
from tf_finetune.generation.network import TargetLoss
from tf_finetune.training.compile_ahead import compiling_ahead
from tf_finetune.training.step import make_train_loop
folder, dump = sys.argv[1:]
"""
AFTER = """
done, make = [], Network.kernels

def kernels(network):
    run = make(network)
    return lambda *shape: done.append((run(*shape), tuple(int(number) for number in shape)))

Network.kernels = kernels
count = lambda: len(list(pathlib.Path(dump).glob("*before_optimizations.txt")))
model.optimizer.build(model.trainable_variables)
batches = plan_batches(replace(rows, buckets=(16, 32, 64)), 8, LoopConfig(num_train_epochs=1))
runtime = Runtime()
with compiling_ahead(model, batches.shapes):
    while len(done) < 3:
        time.sleep(0.05)
ahead = count()
loop = make_train_loop(model, runtime, batches.count_tokens)
loop(iter(batches.start(runtime.strategy, 0)), tf.constant(batches.num_steps))
batches = batches.start(runtime.strategy, 0)
shapes = [tuple(tf.nest.flatten(features)[0].shape) for features, _, _ in batches]
print(json.dumps({"ahead": ahead, "in_all": count(), "shapes": [shape for _, shape in done],
    "in_order": list(dict.fromkeys(shapes))}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("network", mostly("bert", "llama-lora", others=["llama", "gpt2"]))
def test_no_kernel_is_left_for_the_steps(network, tiny_bert_dir, tmp_path):
    family, _, lora = network.partition("-")
    folder = tiny_bert_dir if family == "bert" else LANGUAGE_MODELS / family
    script = BEFORE + (CLASSIFIER if family == "bert" else GENERATOR) + AFTER
    script = script.replace("LORA", "Lora(4, 8.0)" if lora else "None")
    script = script.replace("PREFIX", "(1,) * 5" if lora else "()")
    script = script.replace("FAMILY", "gpt2" if family == "gpt2" else "llama")
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_dump_to={tmp_path} --xla_dump_hlo_as_text",
    }
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ahead"] >= 3 * 8
    assert found["in_all"] == found["ahead"]
    assert found["shapes"] == found["in_order"]


class OwnModel(keras.Model):
    """As a user writes one: it has no inputs before it is called."""

    def call(self, inputs):
        return inputs


def test_other_models_have_nothing_to_compile():
    wide = keras.Input((None, 8))
    for model in (OwnModel(), keras.Model(wide, keras.layers.Dense(2)(wide))):
        with compiling_ahead(model, [(4, 16)]):
            pass
