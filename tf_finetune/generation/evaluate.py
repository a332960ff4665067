"""Evaluates a generator: its losses, its answers, and both beside those of its base."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tf_finetune.data.conversations import Example, Preference
from tf_finetune.generation.answers import Answer, Messages, Question
from tf_finetune.generation.comparison import TUNED, Evaluated, compare
from tf_finetune.generation.config import Config
from tf_finetune.generation.few_shot import choose_examples, with_examples, with_instruction
from tf_finetune.generation.generator import Generator
from tf_finetune.generation.metrics import greater_is_better, is_generated, warn_of_chosen
from tf_finetune.generation.questions import answered, make_questions
from tf_finetune.generation.reference import references_after
from tf_finetune.generation.samples import fixed_rows, progress_text
from tf_finetune.generation.scores import score_answers, summarize
from tf_finetune.generation.tokenize import TokenizedDialogues
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.training.loop import Evaluation

# The longest answer shown while a model is trained, in tokens.
SAMPLE_TOKENS = 64


@dataclass(frozen=True)
class Asked:
    """The rows of a file that are answered.

    Attributes:
        questions: Them.
        found: Them as token ids with the right answers.
    """

    questions: Sequence[Question]
    found: TokenizedDialogues


def ask(
    generator: Generator, examples: Sequence[Example], count: int | None = None
) -> Asked | None:
    """Takes the first rows of a file that have an answer; None: it has none."""
    known = [example for example in examples if example.has_answer][:count]
    if not known:
        return None
    return Asked(make_questions(known, generator.is_raw), generator.tokenize(known))


def evaluation(
    generator: Generator,
    examples: Sequence[Example],
    found: TokenizedDialogues,
    config: Config,
) -> Evaluation:
    """Returns how a generator is evaluated during its training.

    Beside its numbers, each evaluation has the answers to three fixed prompts.

    Args:
        generator: The generator.
        examples: The validation examples.
        found: What the model is trained on of them; preferences with their reference.
        config: The run's.

    Raises:
        UserError: A prompt leaves no room for an answer.
    """
    metric = config.loop.metric_for_best_model or "loss"
    few = make_questions([examples[row] for row in fixed_rows(len(examples))], generator.is_raw)
    tokens = min(SAMPLE_TOKENS, config.sampling.max_new_tokens)
    short = dataclasses.replace(config.sampling, max_new_tokens=tokens, temperature=0.0)
    asked = None
    if is_generated(metric):
        asked = ask(generator, examples, config.evaluation.generate_samples)
    # Before the training, not after its first epoch.
    generator.check_prompts(few, short)
    generator.check_prompts(asked.questions if asked else (), config.sampling)

    def metrics() -> dict[str, Any]:
        measure = generator.evaluate_pairs if generator.prefers else generator.evaluate_rows
        values = measure(found, config.data.eval_batch_size)
        if generator.prefers:
            _warn(generator, values)
        if asked:
            answers = _answers(generator, asked.questions, config)
            values |= summarize(score_answers(answers, _references(asked.questions)))
        # Under a strategy it has a copy on each device, which int() does not take.
        step = int(keras.ops.convert_to_numpy(generator.model.optimizer.iterations))
        answers = generator.answer([question.prompt for question in few], short)
        return values | {"answers": progress_text(step, few, answers)}

    return Evaluation(metrics, metric, greater_is_better(metric))


def evaluate_test(
    generator: Generator, asked: Asked, shown: Sequence[Example], config: Config
) -> tuple[dict[str, Any], dict[str, Evaluated]]:
    """Evaluates a generator and its base on the same rows.

    Args:
        generator: The generator.
        asked: The rows.
        shown: Training examples, of which some are shown to the base.
        config: The run's.

    Returns:
        The result of `compare`, and what each column did.
    """
    size = config.data.eval_batch_size
    prompts = [question.prompt for question in asked.questions]
    columns = {}
    if config.evaluation.compare_base:
        with generator.as_base():
            losses = generator.evaluate_rows(asked.found, size)
            for name, changed in _base_prompts(generator, prompts, shown, config).items():
                answers = generator.answer(changed, config.sampling, config.data.predict_batch_size)
                columns[name] = Evaluated(answers, losses if name == "base" else {})
    answers = _answers(generator, asked.questions, config)
    columns[TUNED] = Evaluated(answers, generator.evaluate_rows(asked.found, size))
    return compare(asked.questions, columns, config.runtime.seed), columns


def evaluate_preferences(
    generator: Generator,
    splits: Mapping[str, Sequence[Example] | None],
    config: Config,
    model_dir: ModelDir,
) -> dict[str, Any]:
    """Evaluates a generator on the preferences of files, if they hold any.

    Args:
        generator: The trained generator.
        splits: The examples of each file.
        config: The run's.
        model_dir: The folder of its training.

    Returns:
        The result of `preference_metrics` for each split that has preferences.
    """
    pairs = {
        split: [example for example in examples or () if isinstance(example, Preference)]
        for split, examples in splits.items()
    }
    found = {split: generator.tokenize_training(some) for split, some in pairs.items() if some}
    results = {}
    for split, part in references_after(generator, found, config, model_dir).items():
        results[split] = generator.evaluate_pairs(part, config.data.eval_batch_size)
        _warn(generator, results[split])
    return results


def forgotten(generator: Generator, found: TokenizedDialogues, batch_size: int) -> dict[str, Any]:
    """Returns the losses of base and tuned model on rows of other matters."""
    with generator.as_base():
        base = generator.evaluate_rows(found, batch_size)
    return {"base": base, TUNED: generator.evaluate_rows(found, batch_size)}


def _warn(generator: Generator, metrics: dict[str, Any]) -> None:
    warning = warn_of_chosen(metrics, generator.config.beta)
    if warning and generator.runtime.workers.is_chief:
        print(warning, file=sys.stderr, flush=True)


def _base_prompts(
    generator: Generator,
    prompts: Sequence[Messages | str],
    shown: Sequence[Example],
    config: Config,
) -> dict[str, list[Messages | str]]:
    """Returns the prompts of each column of the base model."""
    columns = {"base": list(prompts)}
    settings = config.evaluation
    if settings.base_prompt:
        columns["base + prompt"] = [with_instruction(p, settings.base_prompt) for p in prompts]
    known = [example for example in shown if example.has_answer]
    last = list(columns.values())[-1]
    for count in range(min(settings.num_fewshot, len(known)), 0, -1):
        chosen = choose_examples(known, count, config.runtime.seed)
        examples = [answered(example, generator.is_raw) for example in chosen]
        longer = [with_examples(prompt, examples) for prompt in last]
        if generator.fits(longer, config.sampling):
            columns[f"base + {count} examples"] = longer
            break
    return columns


def _answers(generator: Generator, questions: Sequence[Question], config: Config) -> list[Answer]:
    prompts = [question.prompt for question in questions]
    return generator.answer(prompts, config.sampling, config.data.predict_batch_size)


def _references(questions: Sequence[Question]) -> list[str]:
    return [question.reference or "" for question in questions]
