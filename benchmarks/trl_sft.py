"""TRL's SFTTrainer with PEFT's LoRA, or with all weights (PyTorch)."""

from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from benchmarks.dialogues import (
    BATCH_SIZE,
    LEARNING_RATES,
    LORA_ALPHA,
    LORA_RANK,
    WARMUP_PROPORTION,
    Clock,
    Dialogues,
    exact_match,
    parse_dialogues,
    prompt_ids,
    report,
)
from benchmarks.language_model import model_dir
from benchmarks.transformers_generate import generate_all

OUTPUT_DIR = "out/benchmark/trl"
# Its fastest settings here, beside the defaults. Packing and batches without padding need a flash
# attention kernel to keep documents apart, which the CPU does not have.
BEST: dict[str, Any] = {
    "bf16": True,
    "gradient_checkpointing": False,
    "train_sampling_strategy": "group_by_length",
    "dataloader_pin_memory": False,
}


class Marks(TrainerCallback):
    """Tells the clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """An optimizer step is done."""
        self.clock.step()


class CountingCollator(DataCollatorForLanguageModeling):
    """TRL's own; remembers how many tokens of each batch are trained."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Makes a batch."""
        batch = super().torch_call(examples)
        BATCHES.append(int((batch["labels"] >= 0).sum()))
        return batch


BATCHES: list[int] = []


def train(work: Dialogues, variant: str) -> None:
    """Trains and reports; with test rows it also answers them.

    The variant is `lora` or `full`, alone or with `_eager`: attention by plain products; or
    `lora_float32`: frozen weights that autocast rounds in every step.
    """
    clock = Clock()
    method, _, way = variant.partition("_")
    options = {
        # Adapters stay in float32.
        "dtype": "bfloat16" if method == "lora" and way != "float32" else "float32",
        "attn_implementation": "eager" if way == "eager" else "sdpa",
    }
    rows = [{"prompt": messages[:-1], "completion": messages[-1:]} for messages in work.train]
    tokenizer = AutoTokenizer.from_pretrained(model_dir())
    # Tokenizing, in the trainer's constructor, is part of the training's time, as it is of ours.
    clock.start()
    trainer = SFTTrainer(
        model_dir(),
        SFTConfig(
            OUTPUT_DIR,
            model_init_kwargs=options,
            num_train_epochs=1,
            max_steps=work.max_steps,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATES[method],
            weight_decay=0.0,
            warmup_steps=WARMUP_PROPORTION,
            lr_scheduler_type="linear",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            seed=work.seed,
            **BEST,
        ),
        data_collator=CountingCollator(tokenizer.pad_token_id),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=LORA_RANK,
            lora_alpha=LORA_ALPHA,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        if method == "lora"
        else None,
        callbacks=[Marks(clock)],
    )
    trained = trainer.train()
    trainer.save_model()
    clock.saved()
    timing = clock.training(work, BATCHES)
    logged = [line for line in trainer.state.log_history if "loss" in line]
    timing.loss = logged[-1]["loss"] if logged else 0.0
    timing.mean_loss = trained.training_loss
    if work.num_answered:
        prompts = prompt_ids(work.test[: work.num_answered])
        answers = generate_all(trainer.model, prompts, torch.bfloat16)
        timing.exact_match = exact_match(tokenizer.batch_decode(answers, True), work)
    report(timing)


if __name__ == "__main__":
    _, variant, work = parse_dialogues(__doc__)
    train(work, variant)
