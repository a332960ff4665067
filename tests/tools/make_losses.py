"""Makes tests/classification/losses.npz: losses of transformers' Trainer, step by step.

Run with torch and transformers installed: python tests/tools/make_losses.py

`ids`, uint8 [steps, batch, length], and `labels`, uint8 [steps, batch]: batches of random tokens,
whose label is which of three tokens is the most frequent. By each family's name, float32 [steps]:
the losses of its checkpoint in tests/formats/encoders, head included. float32, no dropout, AdamW,
the norm of the gradients cut to 1, warm-up and linear decay as ours: see `ShiftedTrainer`.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

TESTS = Path(__file__).resolve().parents[1]
NAMES = ("bert", "roberta", "distilbert", "modernbert")
STEPS, BATCH, LENGTH = 100, 8, 12
# Those that config.json may name, and the heads'.
RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")
RATES += ("classifier_dropout", "seq_classif_dropout", "embedding_dropout", "mlp_dropout")


class ShiftedTrainer(Trainer):
    """The Trainer, but for the order of the rows and one step of the warm-up.

    The rows come as they are stored. The Trainer's first step has the rate 0, its second that of
    our first: a step without effect.
    """

    def _get_train_sampler(self, *_: Any) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        warmup = self.args.get_warmup_steps(num_training_steps)

        def rate(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return (num_training_steps - step) / (num_training_steps - warmup)

        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, rate)
        return self.lr_scheduler

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        result = super().compute_loss(*args, **kwargs)
        self.losses.append(float((result[0] if isinstance(result, tuple) else result).detach()))
        return result


def batches() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    ids = random.integers(8, 20, [STEPS, BATCH, LENGTH])
    counts = np.stack([(ids == token).sum(-1) for token in (8, 9, 10)], axis=-1)
    return ids.astype("uint8"), counts.argmax(-1).astype("uint8")


def losses(name: str, ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    folder = TESTS / "formats" / "encoders" / name
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    config = model.config
    for key in RATES:
        if hasattr(config, key):
            setattr(config, key, 0.0)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, config=config, dtype=torch.float32
    )
    rows = [
        {"input_ids": row.tolist(), "attention_mask": [1] * LENGTH, "labels": int(label)}
        for row, label in zip(ids.reshape(-1, LENGTH), labels.ravel(), strict=True)
    ]
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            learning_rate=5e-4,
            weight_decay=0.01,
            warmup_steps=STEPS // 10,
            max_grad_norm=1.0,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
        )
        trainer = ShiftedTrainer(model, arguments, train_dataset=rows)
        trainer.losses = []
        trainer.train()
    return np.array(trainer.losses, "float32")


if __name__ == "__main__":
    ids, labels = batches()
    found = {name: losses(name, ids, labels) for name in NAMES}
    for name, values in found.items():
        assert len(values) == STEPS
        print(name, values[[0, 1, 20, 50, 99]])
    np.savez_compressed(TESTS / "classification" / "losses.npz", ids=ids, labels=labels, **found)
