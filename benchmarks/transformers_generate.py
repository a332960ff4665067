"""transformers' `generate` (PyTorch)."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.decoding import MAX_NEW_TOKENS, answering_rates, decoding_rates
from benchmarks.dialogues import BATCH_SIZE, Dialogues, parse_dialogues, prompt_ids, report
from benchmarks.language_model import model_dir


def padded(prompts: Sequence[Sequence[int]], pad: int) -> dict[str, torch.Tensor]:
    """Returns a batch of prompts, padded on the left."""
    length = max(map(len, prompts))
    return {
        "input_ids": torch.tensor([[pad] * (length - len(ids)) + list(ids) for ids in prompts]),
        "attention_mask": torch.tensor(
            [[0] * (length - len(ids)) + [1] * len(ids) for ids in prompts]
        ),
    }


def generate_all(
    model: Any,
    prompts: Sequence[Sequence[int]],
    dtype: torch.dtype,
    size: int = BATCH_SIZE,
    **options: Any,
) -> list[list[int]]:
    """Answers prompts greedily in batches sorted by length; returns new tokens in their order."""
    model.eval()
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(prompts), size):
        chosen = order[start : start + size]
        batch = padded([prompts[i] for i in chosen], model.config.pad_token_id)
        with torch.inference_mode(), torch.autocast("cpu", dtype, dtype != torch.float32):
            ids = model.generate(
                **batch, **options, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, use_cache=True
            )
        for i, row in zip(chosen, ids[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
            answers[i] = row
    return answers


def decode(work: Dialogues, variant: str) -> None:
    """Decodes greedily and reports.

    The variant is the type of weights and arithmetic, as it is or with `_static` or `_compile`: a
    cache of fixed size, alone or under torch.compile. With `tuned_` before it a tuned model
    answers; `_lookup`: what its prompt goes on with is guessed.
    """
    if variant.startswith("tuned_"):
        answer_as_tuned(work, variant.removeprefix("tuned_"))
        return
    dtype, _, way = variant.partition("_")
    model = AutoModelForCausalLM.from_pretrained(model_dir(), dtype=dtype).eval()
    options: dict[str, Any] = {"do_sample": False}
    if way:
        options["cache_implementation"] = "static"
        options["disable_compile"] = True
    if way == "compile":
        model.forward = torch.compile(model.forward)

    def generate(prompts: Sequence[Sequence[int]], new_tokens: int) -> int:
        batch = padded(prompts, model.config.pad_token_id)
        with torch.inference_mode():
            # As many tokens from every contender, whatever the model says.
            ids = model.generate(
                **batch, **options, min_new_tokens=new_tokens, max_new_tokens=new_tokens
            )
        assert ids.shape[1] == batch["input_ids"].shape[1] + new_tokens
        return len(prompts) * new_tokens

    report(decoding_rates(generate, prompt_ids(work.test)))


def answer_as_tuned(work: Dialogues, variant: str) -> None:
    """Answers with a tuned model and reports; see `decode`."""
    dtype, _, way = variant.partition("_")
    model = AutoModelForCausalLM.from_pretrained(work.tuned_dir, dtype=dtype).eval()

    def answer(prompts: Sequence[Sequence[int]], size: int) -> int:
        # transformers guesses for one prompt at a time only.
        options = {"prompt_lookup_num_tokens": 7} if way == "lookup" and size == 1 else {}
        # The weights have the type already: no autocast.
        rows = generate_all(model, prompts, torch.float32, size, **options)
        ends = ([place for place, id in enumerate(row) if id in stop_ids] for row in rows)
        return sum(end[0] + 1 if end else len(row) for end, row in zip(ends, rows, strict=True))

    stop_ids = model.generation_config.eos_token_id
    stop_ids = {stop_ids} if isinstance(stop_ids, int) else set(stop_ids)
    report(answering_rates(answer, prompt_ids(work.test)))


if __name__ == "__main__":
    _, variant, work = parse_dialogues(__doc__, ("decode",))
    decode(work, variant)
