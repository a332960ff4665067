"""Trains a tiny model on pairs for some steps, on one device and on two, and writes its weights.

    python train_pairs.py MODEL FOLDER

Writes replicas, metrics and weights to FOLDER/one_device.npz and FOLDER/mirrored.npz.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from tf_finetune.data.batches import plan_batches
from tf_finetune.data.conversations import Preference
from tf_finetune.formats.decoders import load_decoder
from tf_finetune.generation.config import DecoderConfig
from tf_finetune.generation.generator import build_generator
from tf_finetune.generation.reference import references_at_start
from tf_finetune.models.lora import Lora
from tf_finetune.runs.config import LoopConfig, RuntimeConfig
from tf_finetune.runtime.hardware import make_runtime
from tf_finetune.training.loop import train


def main(strategy: str, model: str, path: str) -> None:
    """Trains; see the module's docstring."""
    runtime = make_runtime(RuntimeConfig(distribution_strategy=strategy, precision="float32"))
    with runtime.scope():
        decoder = load_decoder(model, lora=Lora(4, 8.0))
        settings = DecoderConfig(model=model, method="dpo", beta=0.3)
        generator = build_generator(decoder, settings, max_seq_length=64, runtime=runtime)
        optimizer = keras.optimizers.SGD(0.05)
    pairs = [Preference("so " * (n % 4) + "?", f"yes {n}", "no" * (1 + n % 3)) for n in range(18)]
    found = {"train": generator.tokenize_training(pairs)}
    found = references_at_start(generator, found, None, 4)
    loop = LoopConfig(max_steps=4)
    batches = plan_batches(found["train"].rows, 8, loop)
    train(generator.model, batches, optimizer=optimizer, loop=loop, runtime=runtime)
    weights = [tf.convert_to_tensor(v.value).numpy() for v in generator.model.trainable_variables]
    metrics = generator.evaluate_pairs(found["train"], 4)
    arrays = {str(number): value for number, value in enumerate(weights)}
    np.savez(path, replicas=runtime.num_replicas, metrics=list(metrics.values()), **arrays)


if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    device = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(cpu, [device] * 2)
    for name in ("one_device", "mirrored"):
        main(name, sys.argv[1], f"{sys.argv[2]}/{name}.npz")
