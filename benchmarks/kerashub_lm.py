"""KerasHub's Llama3CausalLM: LoRA and `fit`, and `generate`."""

from collections.abc import Sequence
from typing import Any

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from benchmarks.decoding import Prompts, decoding_rates
from benchmarks.dialogues import (
    BATCH_SIZE,
    LEARNING_RATES,
    LORA_RANK,
    WARMUP_PROPORTION,
    Clock,
    Dialogues,
    parse_dialogues,
    prompt_ids,
    report,
)
from benchmarks.language_model import END, encode, model_dir, render_prompt

# All linear layers; Keras' own choice is query and value.
LORA_LAYERS = [
    *("query", "key", "value", "attention_output"),
    *("feedforward_gate_dense", "feedforward_intermediate_dense", "feedforward_output_dense"),
]
# Its converter leaves out what config.json says.
EPSILON = 1e-5
OUTPUT = "out/benchmark/kerashub.weights.h5"
# Each further length of a batch is traced anew, so there are few.
LENGTH_STEP = 32
# Rows that are sorted together, as in the Trainer.
GROUP = 50 * BATCH_SIZE


class Marks(keras.callbacks.Callback):
    """Tells the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """An optimizer step is done."""
        self.clock.step()


class Batches:
    """Rows of about one length in each batch; weights are 1 where the next token is an answer's.

    Args:
        work: What is trained on.
    """

    def __init__(self, work: Dialogues) -> None:
        prompts = encode([render_prompt(messages[:-1]) for messages in work.train])
        answers = encode([messages[-1]["content"] + END for messages in work.train])
        self._rows = list(zip(prompts, answers, strict=True))
        random = np.random.default_rng(work.seed)
        order, batches = random.permutation(len(self._rows)), []
        for start in range(0, len(order), GROUP):
            group = sorted(order[start : start + GROUP], key=self._length, reverse=True)
            batches += [group[i : i + BATCH_SIZE] for i in range(0, len(group), BATCH_SIZE)]
        self._batches = [batches[i] for i in random.permutation(len(batches))]

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def answer_tokens(self) -> list[int]:
        """Trained tokens of each batch."""
        return [sum(len(self._rows[row][1]) for row in rows) for rows in self._batches]

    def dataset(self) -> tf.data.Dataset:
        """Returns the batches as `fit` takes them: features, next tokens and weights."""
        ids = tf.TensorSpec((None, None), tf.int32)
        features = {"token_ids": ids, "padding_mask": ids}
        weights = tf.TensorSpec((None, None), tf.float32)
        made = tf.data.Dataset.from_generator(
            lambda: map(self._make, self._batches), output_signature=(features, ids, weights)
        )
        return made.prefetch(tf.data.AUTOTUNE)

    def _length(self, row: int) -> int:
        return sum(map(len, self._rows[row]))

    def _make(self, rows: Sequence[int]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        length = -(-(max(map(self._length, rows)) - 1) // LENGTH_STEP) * LENGTH_STEP
        ids = np.zeros((len(rows), length + 1), np.int32)
        mask, weights = np.zeros_like(ids), np.zeros(ids.shape, np.float32)
        for i, row in enumerate(rows):
            prompt, answer = self._rows[row]
            end = len(prompt) + len(answer)
            ids[i, :end] = prompt + answer
            mask[i, :end] = 1
            weights[i, len(prompt) : end] = 1
        return {"token_ids": ids[:, :-1], "padding_mask": mask[:, :-1]}, ids[:, 1:], weights[:, 1:]


def load_model(dtype: str) -> Any:
    """Returns the model without its text side, which splits texts in another way than others."""
    backbone = keras_hub.models.Llama3Backbone.from_preset(
        model_dir(), layer_norm_epsilon=EPSILON, dtype=dtype
    )
    return keras_hub.models.Llama3CausalLM(backbone=backbone, preprocessor=None, dtype=dtype)


def train(work: Dialogues, variant: str) -> None:
    """Trains and reports; the variant is `lora` (all linear layers), `lora_qv` or `full`."""
    keras.utils.set_random_seed(work.seed)
    clock = Clock()
    model = load_model("mixed_bfloat16")
    if variant.startswith("lora"):
        # Alpha is the rank, whatever one would like.
        targets = None if variant == "lora_qv" else LORA_LAYERS
        model.backbone.enable_lora(LORA_RANK, target_layer_names=targets)
    clock.start()
    batches = Batches(work)
    steps = work.max_steps if work.max_steps > 0 else len(batches)
    warmup_steps = int(WARMUP_PROPORTION * steps)
    model.compile(
        # Of Keras' schedules the one with a warm-up.
        optimizer=keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(
                0.0,
                max(steps - warmup_steps, 1),
                warmup_target=LEARNING_RATES[variant.split("_")[0]],
                warmup_steps=warmup_steps,
            ),
            weight_decay=0.0,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight"
        ),
        # XLA has no bfloat16 product on the CPU.
        jit_compile=False,
    )
    dataset = batches.dataset().take(steps)
    history = model.fit(dataset, callbacks=[Marks(clock)], verbose=0)
    save = model.save_weights if variant == "full" else model.backbone.save_lora_weights
    save(OUTPUT if variant == "full" else OUTPUT.replace(".weights.", ".lora."))
    clock.saved()
    timing = clock.training(work, batches.answer_tokens)
    timing.mean_loss = history.history["loss"][-1]
    report(timing)


def decode(work: Dialogues, variant: str) -> None:
    """Decodes greedily and reports; the variant is the type of weights and arithmetic."""
    model = load_model(variant)
    model.compile(sampler="greedy")

    def generate(prompts: Prompts, new_tokens: int) -> int:
        batch = padded(prompts, new_tokens)
        model.generate(batch, stop_token_ids=None)
        # It fills all room.
        return batch["token_ids"].size - sum(map(len, prompts))

    report(decoding_rates(generate, prompt_ids(work.test)))


def padded(prompts: Sequence[Sequence[int]], new_tokens: int) -> dict[str, np.ndarray]:
    """Returns prompts with room for their answers on the right, in few different lengths."""
    length = max(map(len, prompts)) + new_tokens
    if new_tokens > 1:
        length = -(-length // 64) * 64
    ids = np.zeros((len(prompts), length), np.int32)
    mask = np.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        ids[i, : len(prompt)] = prompt
        mask[i, : len(prompt)] = 1
    return {"token_ids": ids, "padding_mask": mask}


if __name__ == "__main__":
    mode, variant, work = parse_dialogues(__doc__, ("train", "decode"))
    {"train": train, "decode": decode}[mode](work, variant)
