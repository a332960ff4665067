"""One run of a generator, in order: model, training, evaluation, answers, export."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from tf_finetune.data.batches import Batches, plan_batches
from tf_finetune.data.conversations import Example
from tf_finetune.data.dialogue_facts import token_facts
from tf_finetune.data.dialogue_report import token_report
from tf_finetune.data.facts_file import write_facts
from tf_finetune.data.streamed_batches import stream_batches
from tf_finetune.generation.cards import data_rows
from tf_finetune.generation.chat import chat
from tf_finetune.generation.comparison import comparison_samples, comparison_table
from tf_finetune.generation.evaluate import (
    ask,
    evaluate_preferences,
    evaluate_test,
    evaluation,
    forgotten,
)
from tf_finetune.generation.export import export
from tf_finetune.generation.generator import Generator
from tf_finetune.generation.load import (
    base_generator,
    make_generator,
    only_answers,
    restore_generator,
    template_of,
)
from tf_finetune.generation.metrics import check_metric_name
from tf_finetune.generation.predictions import write_evaluated, write_predictions
from tf_finetune.generation.prepare import Request
from tf_finetune.generation.questions import make_questions
from tf_finetune.generation.record import save_record
from tf_finetune.generation.reference import references_at_start
from tf_finetune.generation.samples import sample_text
from tf_finetune.generation.shown import show_examples
from tf_finetune.generation.summary import losses_table, next_steps, preferences_table
from tf_finetune.generation.tokenize import StreamTokenizer, TokenizedDialogues
from tf_finetune.runs.report import report_files
from tf_finetune.runs.settings import to_record
from tf_finetune.runtime.hardware import make_runtime, spread_over_operations
from tf_finetune.runtime.interrupt import Interrupted
from tf_finetune.runtime.workers import run_in_workers
from tf_finetune.training.fit import check_batch_size
from tf_finetune.training.progress import write_text_summary


def run(request: Request) -> int:
    """Trains, evaluates, answers and exports, or talks, as the request says.

    Returns:
        The exit status: 0; 128 + a signal's number if that stopped the training; 1 if the
        connection to another worker is lost.

    Raises:
        UserError: The model, a flag or a checkpoint cannot be used.
    """
    return run_in_workers(request.config.runtime, lambda: _Run(request).go())


class _Run:
    """The objects of one run, and its parts."""

    def __init__(self, request: Request) -> None:
        self.request, self.config = request, request.config
        if only_answers(self.config):
            spread_over_operations()
        self.runtime = make_runtime(self.config.runtime)
        self.is_chief = self.runtime.workers.is_chief
        print(self.runtime.description)
        self.generator = self._generator()

    def go(self) -> int:
        """Does what the request says."""
        run, data = self.config.run, self.request.data
        if self.config.chatting.interactive:
            return chat(self.generator, self.config.sampling, self.config.chat.system_prompt)
        if self.config.chatting.show_examples:
            assert data and data.train
            count = self.config.chatting.show_examples
            print(show_examples(data.train, self.generator.form, self._length, count))
            return 0
        if data and (run.do_eval or run.do_predict):
            # Before the training, not after it.
            questions = make_questions(self._predicted, self.generator.is_raw)
            self.generator.check_prompts(questions, self.config.sampling)
        if run.do_train:
            try:
                self._train()
            except Interrupted as interrupted:
                print(interrupted, file=sys.stderr)
                return 128 + interrupted.signum
        if run.do_eval:
            self._evaluate()
        if run.do_predict:
            self._predict()
        if run.do_export and self.is_chief:
            export(self.generator, self.request)
        # A worker that ends while the chief writes breaks the connection.
        self.runtime.workers.wait()
        print(next_steps(self._model_dir, run.do_export))
        return 0

    @property
    def _predicted(self) -> Sequence[Example]:
        """The rows that are answered: those of the test file, else of the validation file."""
        data = self.request.data
        assert data
        found = data.test if data.test is not None else data.validation
        return found or ()

    @property
    def _length(self) -> int:
        return self.generator.max_seq_length

    @property
    def _model_dir(self) -> Any:
        assert self.request.model_dir
        return self.request.model_dir

    def _generator(self) -> Generator:
        config, run = self.config, self.config.run
        metric, method = config.loop.metric_for_best_model or "loss", config.decoder.method
        check_metric_name(metric, generates=True, method=method)
        if run.do_train or config.chatting.show_examples:
            generator = make_generator(config, self.runtime)
        elif self.request.model_dir:
            generator, path = restore_generator(
                self._model_dir, config, self.request.chat_template, self.runtime
            )
            print(f"weights    {path}")
        else:
            generator = base_generator(config, self.runtime)
        print(f"model      {generator.description}")
        return generator

    def _train(self) -> None:
        config, data, generator = self.config, self.request.data, self.generator
        assert data and data.train is not None
        cache_dir = config.data.tokenized_cache_dir
        found = {
            split: generator.tokenize_training(examples, cache_dir)
            for split, examples in data.splits.items()
            if split != "test" and any(example.has_answer for example in examples)
        }
        facts = self._report(found)
        if self.is_chief:
            save_record(self._model_dir, config, template_of(generator.decoder), {})
            if config.report.do_report:
                write_facts(report_files(self._model_dir).facts, facts)
            self._model_dir.save_metrics({"data": data_rows(self.request.facts)})
            write_text_summary(self._model_dir, "config", json.dumps(to_record(config), indent=2))
            print(show_examples(data.train, generator.form, self._length, 1))
        check_batch_size(config.data, config.loop, self.runtime, data.stream is not None)
        if generator.prefers:
            size = config.data.eval_batch_size
            found = references_at_start(generator, found, self._model_dir, size)
        steps = None
        if data.validation:
            held_out = found["validation"]
            steps = evaluation(generator, data.validation, held_out, config)
        generator.fit(
            self._batches(found["train"]),
            config.optimizer,
            loop=config.loop,
            evaluation=steps,
            model_dir=self._model_dir,
        )

    def _batches(self, found: TokenizedDialogues) -> Batches:
        config, data = self.config, self.request.data
        assert data
        rows = self.generator.training_rows(found.rows)
        size, seed = config.data.train_batch_size, config.runtime.seed
        if data.stream is None:
            return plan_batches(rows, size, config.loop, seed=seed)
        assert data.read
        tokenizer = StreamTokenizer(data.read, self.generator.form, self._length)
        return stream_batches(data.stream, tokenizer, found.rows, size, config.loop, seed)

    def _report(self, found: dict[str, TokenizedDialogues]) -> dict[str, Any]:
        """Prints what is known of the rows, and returns it."""
        lengths = {}
        for split, part in found.items():
            lengths[split] = token_facts(
                part.rows.full_lengths, part.answer_tokens, part.cut, part.dropped, self._length
            )
        print(token_report(lengths), flush=True)
        asked = self.config.data.max_seq_length
        if asked > self._length and any(part.cut.any() for part in found.values()):
            print(
                f"warning: --max_seq_length={asked}: the model was made for {self._length:,} "
                "tokens, where longer rows are cut.",
                file=sys.stderr,
            )
        facts = {**self.request.facts, "tokens": lengths}
        if self.config.run.data_report and self.is_chief:
            write_facts(self.config.run.data_report, facts)
        return facts

    def _evaluate(self) -> None:
        config, data, generator = self.config, self.request.data, self.generator
        assert data
        size = config.data.eval_batch_size
        results: dict[str, Any] = {}
        if data.validation and (asked := ask(generator, data.validation)):
            results["eval"] = generator.evaluate_rows(asked.found, size)
        if generator.prefers:
            splits = {"eval": data.validation, "test": data.test}
            if found := evaluate_preferences(generator, splits, config, self._model_dir):
                results["preferences"] = found
                print(preferences_table(found))
        count = config.evaluation.generate_samples
        if data.test and (asked := ask(generator, data.test, count)):
            compared, columns = evaluate_test(generator, asked, data.train or (), config)
            results["test"] = compared["columns"]["tuned"]
            results["comparison"] = compared
            print(comparison_table(compared))
            print(comparison_samples(asked.questions, columns, compared))
            if config.report.do_report and self.is_chief:
                write_evaluated(self._model_dir, asked.questions, columns)
        if self.request.general and self.request.general.test:
            general = ask(generator, self.request.general.test)
            if general:
                results["general"] = forgotten(generator, general.found, size)
        if self.is_chief:
            self._model_dir.save_metrics(results)
        print(losses_table(results))

    def _predict(self) -> None:
        config = self.config
        questions = make_questions(self._predicted, self.generator.is_raw)
        prompts = [question.prompt for question in questions]
        answers = self.generator.answer(prompts, config.sampling, config.data.predict_batch_size)
        if self.is_chief:
            write_predictions(self._model_dir, questions, answers)
        print(f"answers to {len(answers):,} rows are in {self._model_dir.predictions_jsonl}, e.g.")
        for question, answer in list(zip(questions, answers, strict=True))[:3]:
            print(sample_text(question, {f"answer ({answer.finish_reason})": answer.text}))
