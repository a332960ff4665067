"""Hugging Face's Trainer and pipeline (PyTorch)."""

import time
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    pipeline,
)

from benchmarks.encoder import encoder_dir
from benchmarks.work import (
    BATCH_SIZE,
    EVAL_BATCH_SIZE,
    LEARNING_RATE,
    MAX_SEQ_LENGTH,
    WARMUP_PROPORTION,
    WEIGHT_DECAY,
    Clock,
    Rows,
    Work,
    parse_work,
    report,
    report_start,
)

OUTPUT_DIR = "out/benchmark/huggingface"
# Its fastest settings here, beside the defaults.
BEST = {"bf16": True, "train_sampling_strategy": "group_by_length"}


class Marks(TrainerCallback):
    """Tells the clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """One pass is done."""
        self.clock.epoch()


def tokenized(
    tokenizer: Any, rows: Rows, max_length: int | None = MAX_SEQ_LENGTH
) -> list[dict[str, Any]]:
    """Returns what the collator pads, in the order of the rows; None: cut where the model ends."""
    ids = tokenizer(*rows.texts, truncation=True, max_length=max_length)
    return [
        {**{name: ids[name][i] for name in ids}, "labels": label}
        for i, label in enumerate(rows.labels)
    ]


def train(work: Work, variant: str, max_steps: int = -1) -> None:
    """Trains and reports; with `max_steps` it reports how long the process took until then."""
    clock = Clock()
    directory = work.encoder or encoder_dir()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_pretrained(
        directory, num_labels=len(work.label_names)
    )
    trainer = Trainer(
        model,
        TrainingArguments(
            OUTPUT_DIR,
            num_train_epochs=work.num_epochs,
            max_steps=max_steps,
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=EVAL_BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            warmup_steps=WARMUP_PROPORTION,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            seed=work.seed,
            **(BEST if variant == "best" else {}),
        ),
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[Marks(clock)],
    )
    # Tokenizing is part of the training's time, as it is of ours.
    clock.start()
    trainer.train_dataset = tokenized(tokenizer, work.train)
    trainer.train()
    if max_steps > 0:
        report_start()
        return
    timing = clock.timing(work)
    # Its own labels: with length groups the predictions come in another order than the rows.
    output = trainer.predict(tokenized(tokenizer, work.test))
    timing.accuracy = float(np.mean(np.argmax(output.predictions, -1) == output.label_ids))
    report(timing)


def predict(work: Work) -> None:
    """Predicts the test texts twice from raw strings: bfloat16, sorted by length."""
    tokenizer = AutoTokenizer.from_pretrained(encoder_dir())
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder_dir(), num_labels=len(work.label_names)
    ).eval()
    collate = DataCollatorWithPadding(tokenizer)

    def run() -> float:
        started = time.perf_counter()
        rows = tokenized(tokenizer, work.test)
        order = np.argsort([len(row["input_ids"]) for row in rows], kind="stable")
        logits = torch.empty(len(rows), len(work.label_names))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            for start in range(0, len(rows), EVAL_BATCH_SIZE):
                chosen = order[start : start + EVAL_BATCH_SIZE]
                batch = collate([rows[i] for i in chosen])
                batch.pop("labels")
                logits[chosen] = model(**batch).logits.float()
        return len(rows) / (time.perf_counter() - started)

    report({"first_examples_per_second": run(), "examples_per_second": run()})


def latency(work: Work) -> None:
    """Answers one row at a time."""
    classify = pipeline(
        "text-classification",
        model=AutoModelForSequenceClassification.from_pretrained(encoder_dir()),
        tokenizer=AutoTokenizer.from_pretrained(encoder_dir()),
        top_k=None,
        device="cpu",
    )
    names = ("text", "text_pair")
    rows = [dict(zip(names, row, strict=False)) for row in zip(*work.test.texts, strict=True)]
    seconds = []
    for row in [*rows[:20], *rows[:200]]:
        started = time.perf_counter()
        classify(row)
        seconds.append(time.perf_counter() - started)
    report({"p50_ms": 1000 * float(np.median(seconds[20:]))})


if __name__ == "__main__":
    mode, variant, work = parse_work(__doc__, ("train", "start", "predict", "latency"))
    if mode in ("train", "start"):
        train(work, variant, max_steps=1 if mode == "start" else -1)
    else:
        {"predict": predict, "latency": latency}[mode](work)
