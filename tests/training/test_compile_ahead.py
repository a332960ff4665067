"""The kernels of a training are compiled before its steps need them, all of them and only they."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, pathlib, sys, time
from dataclasses import replace
import numpy as np, tensorflow as tf
from tf_finetune import *
from tf_finetune.training.compile_ahead import compiling_ahead
from tf_finetune.models.bert import BertEncoder
from tf_finetune.training.step import make_train_loop

folder, dump = sys.argv[1:]
done, make = [], BertEncoder.kernels

def kernels(encoder, shape):
    run = make(encoder, shape)
    return lambda ids, mask: done.append((run(ids, mask), tuple(ids.shape)))

BertEncoder.kernels = kernels
count = lambda: len(list(pathlib.Path(dump).glob("*before_optimizations.txt")))
encoder = load_encoder(folder)
problem = Problem("single_label", ("text",), ("bad", "good"))
model = build_classifier(encoder, problem).model
model.optimizer.build(model.trainable_variables)
examples = Examples((["good " * (1 + i % 60) for i in range(64)],), np.zeros(64, "int32"))
rows = replace(tokenize(examples, encoder.preprocessor, 64), buckets=(16, 32, 64))
batches = plan_batches(rows, 8, LoopConfig(num_train_epochs=1))
runtime = Runtime()
with compiling_ahead(model, batches.shapes):
    while len(done) < 3:
        time.sleep(0.05)
ahead = count()
loop = make_train_loop(model, runtime)
loop(iter(batches.start(runtime.strategy, 0)), tf.constant(batches.num_steps))
shapes = [tuple(x["input_mask"].shape) for x, _, _ in batches.start(runtime.strategy, 0)]
print(json.dumps({"ahead": ahead, "in_all": count(), "shapes": [shape for _, shape in done],
    "in_order": list(dict.fromkeys(shapes))}))
"""


@pytest.mark.slow
def test_no_kernel_is_left_for_the_steps(tiny_bert_dir, tmp_path):
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny_bert_dir), str(tmp_path)],
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
