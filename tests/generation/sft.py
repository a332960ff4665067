"""Trains the tiny language model under a strategy, for tests that compare strategies.

    sft one_device|mirrored|multi_worker SLICES LORA_RANK FOLDER

Writes losses, counts, metrics and weights to FOLDER/result<worker>.npz.
"""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from tests.generation.conftest import MODELS, day_rows, write_lines
from tests.programs import record_losses, two_devices
from tf_finetune.data.batches import plan_batches
from tf_finetune.data.dialogues import load_dialogues
from tf_finetune.formats.decoders import load_decoder
from tf_finetune.generation.generator import build_generator
from tf_finetune.models.lora import Lora
from tf_finetune.runs.config import DataConfig, LoopConfig, OptimizerConfig, RuntimeConfig
from tf_finetune.runtime.hardware import make_runtime

STEPS = 6


def main(argv: Sequence[str]) -> None:
    """Trains; see the module's docstring."""
    _, strategy, slices, lora_rank, folder = argv
    if strategy == "mirrored":
        two_devices()
    losses = record_losses()
    config = RuntimeConfig(distribution_strategy=strategy, precision="float32", seed=1)
    runtime = make_runtime(config)
    path = Path(folder) / f"rows{runtime.workers.is_chief}.jsonl"
    data = load_dialogues(DataConfig(train_file=str(write_lines(path, day_rows(37)))))
    lora = Lora(int(lora_rank), 8.0) if int(lora_rank) else None
    with runtime.scope():
        decoder = load_decoder(str(MODELS / "llama"), lora=lora, trainable=True)
        generator = build_generator(decoder, max_seq_length=64, runtime=runtime)
    assert data.train
    found = generator.tokenize(data.train)
    loop = LoopConfig(max_steps=STEPS, gradient_accumulation_steps=int(slices))
    state = generator.fit(
        plan_batches(found.rows, 8, loop, seed=3),
        OptimizerConfig(learning_rate=5e-3, weight_decay=0.0),
        loop=loop,
        evaluation=None,
        model_dir=None,
    )
    metrics = generator.evaluate_rows(found, 8)
    index = 0 if runtime.workers.is_chief else 1
    np.savez(
        f"{folder}/result{index}.npz",
        losses=losses,
        counts=[state.examples, state.targets, state.tokens],
        metrics=[metrics["loss"], metrics["token_accuracy"]],
        **{
            v.path.replace("/", "|"): keras.ops.convert_to_numpy(v.value)
            for v in generator.model.trainable_variables
        },
    )
