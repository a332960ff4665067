"""A training step of transformers' classifier as the Trainer runs it, without its bookkeeping."""

import torch
from transformers import AutoModelForSequenceClassification, set_seed

from benchmarks.encoder_step import (
    LABELS,
    LEARNING_RATE,
    MAX_GRAD_NORM,
    WEIGHT_DECAY,
    Clock,
    Steps,
    parse_steps,
)


def train(steps: Steps, variant: str) -> None:
    """Trains, under autocast or in float32, and reports; the variant is `` or `compiled`."""
    set_seed(1)
    clock = Clock()
    model = AutoModelForSequenceClassification.from_pretrained(
        steps.directory, num_labels=len(LABELS)
    ).train()
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1]},
            {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        fused=True,  # The Trainer's own choice.
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps.total)
    run = torch.compile(model) if variant == "compiled" else model
    for batch in steps.batches():
        tensors = {"input_ids": batch.ids, "attention_mask": batch.mask, "labels": batch.labels}
        with torch.autocast("cpu", torch.bfloat16, enabled=steps.precision == "bfloat16"):
            outputs = run(**{name: torch.tensor(value).long() for name, value in tensors.items()})
        outputs.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        loss = outputs.loss.item()
        clock.step()
    clock.report(steps, sum(p.numel() for p in model.parameters()), loss)


if __name__ == "__main__":
    variant, steps = parse_steps(__doc__)
    train(steps, variant)
