"""tf_finetune's run_generator.py, by its flags, all others at their defaults."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.decoding import MAX_NEW_TOKENS, Prompts, answering_rates, decoding_rates
from benchmarks.dialogues import (
    BATCH_SIZE,
    LEARNING_RATES,
    LORA_ALPHA,
    LORA_RANK,
    WARMUP_PROPORTION,
    Dialogues,
    Training,
    exact_match,
    parse_dialogues,
    prompt_ids,
    report,
)
from benchmarks.language_model import HANDLE
from tf_finetune.formats.decoders import load_decoder
from tf_finetune.generation.decode import Decoding
from tf_finetune.generation.sampling_config import SamplingConfig
from tf_finetune.runtime.hardware import make_runtime, spread_over_operations
from tf_finetune.text.chat import ChatFormat

PROGRAM = Path(__file__).resolve().parents[1] / "run_generator.py"
OUTPUT_DIR = Path("out/benchmark/ours")
# The bar shows the number of steps done, for the first time when the first is done.
_FIRST_STEP = re.compile(rb"training:[^\r\n]*\| [1-9]\d*/")


def train(work: Dialogues, variant: str) -> None:
    """Trains and reports, also on test rows; the variant is `lora` or `full`."""
    shutil.rmtree(OUTPUT_DIR, ignore_errors=True)
    flags = [
        f"--model={HANDLE}",
        f"--train_file={work.folder}/train.jsonl",
        f"--max_train_samples={len(work.train)}",
        f"--lora_rank={LORA_RANK if variant == 'lora' else 0}",
        f"--lora_alpha={LORA_ALPHA}",
        f"--learning_rate={LEARNING_RATES[variant]}",
        f"--train_batch_size={BATCH_SIZE}",
        "--num_train_epochs=1",
        f"--warmup_proportion={WARMUP_PROPORTION}",
        "--weight_decay=0",
        f"--seed={work.seed}",
        f"--model_dir={OUTPUT_DIR}",
    ]
    if work.max_steps > 0:
        flags.append(f"--max_steps={work.max_steps}")
    seconds, first_step_seconds, peak_memory_mib = run([*flags, "--do_train"])
    trained = json.loads((OUTPUT_DIR / "metrics.json").read_text("utf-8"))["train"]
    losses = [point["loss"] for point in read_lines("log.jsonl") if point["split"] == "train"]
    per_example = work.answer_tokens / len(work.train)
    timing = Training(
        seconds=trained["seconds"],
        process_seconds=seconds,
        start_to_first_step_seconds=first_step_seconds,
        answer_tokens_per_second=trained["examples_per_second"] * per_example,
        process_answer_tokens_per_second=work.trained_tokens / seconds,
        steady_answer_tokens_per_second=trained["steady_examples_per_second"] * per_example,
        peak_memory_mib=peak_memory_mib,
        loss=losses[-1] if losses else 0.0,
    )
    if work.num_answered:
        # A process of its own, so that the peak memory is the training's.
        test = [f"--test_file={work.folder}/test.jsonl", f"--max_new_tokens={MAX_NEW_TOKENS}"]
        run([*flags, *test, f"--max_predict_samples={work.num_answered}", "--do_predict"])
        answers = [line["answer"] for line in read_lines("predictions.jsonl")]
        timing.exact_match = exact_match(answers, work)
    report(timing)


def run(flags: Sequence[str]) -> tuple[float, float, float]:
    """Runs the program to its end.

    Returns:
        Its seconds, those to the end of its first training step (0: it had none), and its largest
        resident memory in MiB.
    """
    command = [sys.executable, str(PROGRAM), *flags]
    started = time.time()
    process = subprocess.Popen(command, stdout=sys.stderr, stderr=subprocess.PIPE)
    assert process.stderr
    shown, first_step = b"", 0.0
    while chunk := os.read(process.stderr.fileno(), 4096):
        shown += chunk
        if not first_step and _FIRST_STEP.search(shown):
            first_step = time.time() - started
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{shown.decode(errors='replace')[-3000:]}")
    return time.time() - started, first_step, usage.ru_maxrss / 1024


def read_lines(name: str) -> list[dict]:
    """Reads a JSONL file of the model directory."""
    text = (OUTPUT_DIR / name).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def decode(work: Dialogues, variant: str) -> None:
    """Decodes greedily and reports; the variant `tuned`: with a tuned model."""
    spread_over_operations()  # As where a process does nothing but answer.
    make_runtime()
    prompts = prompt_ids(work.test)
    if variant != "tuned":
        report(decoding_rates(make_generate(), prompts))
        return
    decoding = Decoding(load_decoder(str(work.tuned_dir), trainable=False))

    def answer(prompts: Prompts, size: int) -> int:
        sampling = SamplingConfig(max_new_tokens=MAX_NEW_TOKENS)
        return sum(one.tokens for one in decoding.answer(prompts, sampling, batch_size=size))

    report(answering_rates(answer, prompts))


class _Endless(ChatFormat):
    """A chat format that no token ends an answer of."""

    stop_ids = ()


def make_generate() -> Callable[[Prompts, int], int]:
    """Returns a function that makes so many new tokens for each prompt, end tokens too."""
    decoder = load_decoder(HANDLE)
    endless = _Endless(decoder.chat.template, decoder.tokenizer)
    decoding = Decoding(replace(decoder, chat=endless))

    def generate(prompts: Prompts, new_tokens: int) -> int:
        sampling = SamplingConfig(max_new_tokens=new_tokens)
        answers = decoding.answer(prompts, sampling, batch_size=len(prompts))
        assert [answer.tokens for answer in answers] == [new_tokens] * len(prompts)
        return len(prompts) * new_tokens

    return generate


if __name__ == "__main__":
    mode, variant, work = parse_dialogues(__doc__, ("train", "decode"))
    {"train": train, "decode": decode}[mode](work, variant)
