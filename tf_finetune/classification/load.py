"""Classifiers of earlier runs, and new ones that start from them."""

import dataclasses
from typing import Any

from tf_finetune.classification.checkpoint_head import keep_head
from tf_finetune.classification.checkpoints import is_checkpoint
from tf_finetune.classification.classifier import Classifier, build_classifier
from tf_finetune.classification.config import Config, EncoderConfig
from tf_finetune.classification.heads import choose_head
from tf_finetune.classification.record import check_head, problem_from_record
from tf_finetune.data.labelled import TextData
from tf_finetune.data.problem import Problem
from tf_finetune.formats.encoder import Encoder
from tf_finetune.formats.encoder_adapters import with_lora
from tf_finetune.formats.encoder_layers import with_layers
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.models.lora import make_lora
from tf_finetune.runs.lora_config import LoraConfig
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.settings import replaced
from tf_finetune.runtime.hardware import Runtime
from tf_finetune.training.checkpoints import load_weights


def load_classifier(
    model_dir: str, *, head: str | None = None, runtime: Runtime | None = None
) -> Classifier:
    """Loads the classifier of an earlier run, with its best weights, else the last.

    Args:
        model_dir: The run's folder.
        head: The run's `--head`, required if that is a class of the user's own: loading it runs its
            module, and a file alone must not cause that.
        runtime: The one to make the model under; None: the current strategy.

    Raises:
        UserError: There is no model, it is damaged, or its encoder is not found.
    """
    directory = ModelDir(model_dir)
    config, learnt = directory.load(Config)
    if head is None:
        check_head("model_dir", directory, config.encoder)
    else:
        config = replaced(config, head=head)
    problem = problem_from_record(directory, config, learnt)
    return restore_classifier(directory, config, problem, runtime or Runtime())[0]


def restore_classifier(
    model_dir: ModelDir, config: Config, problem: Problem, runtime: Runtime
) -> tuple[Classifier, str]:
    """Makes the classifier of a run and loads its weights.

    Args:
        model_dir: The run's folder.
        config: Its configuration.
        problem: Its problem.
        runtime: The one to make the model under.

    Returns:
        The classifier, and the path of the checkpoint.

    Raises:
        UserError: The encoder or the checkpoint cannot be used.
    """
    with runtime.scope():
        encoder = load_run_encoder(config.encoder, config.lora)
        if choose_head(encoder, config.encoder).pooling == "pooled":
            # The checkpoint holds a pooler that has learnt.
            encoder = dataclasses.replace(encoder, has_new_pooler=False)
        classifier = build_classifier(
            encoder,
            problem,
            config.encoder,
            max_seq_length=config.data.max_seq_length,
            runtime=runtime,
        )
    return classifier, load_weights(classifier.model, model_dir.checkpoints, runtime.workers)


def load_run_encoder(config: EncoderConfig, lora: LoraConfig) -> Encoder:
    """Loads the encoder that a run asks for; see `load_encoder`."""
    return load_encoder(
        config.encoder or "",
        mode=config.encoder_mode,  # type: ignore[arg-type]
        preprocessor=config.preprocessor,
        dropout=config.encoder_dropout,
        hidden_act=config.hidden_act,
        num_layers=config.num_layers,
        lora=make_lora(lora),
    )


def make_classifier(config: Config, data: TextData, runtime: Runtime) -> Classifier:
    """Makes the classifier to train, from the weights of the run that `init_from` names, if any."""
    settings = config.encoder
    source = None
    from_checkpoint = bool(settings.init_from and is_checkpoint(settings.init_from))
    with runtime.scope():
        if settings.init_from and not from_checkpoint:
            source_dir = ModelDir(settings.init_from)
            earlier, learnt = source_dir.load(Config)
            problem = problem_from_record(source_dir, earlier, learnt)
            earlier = replaced(earlier, init_from=None, freeze="none")
            if settings.encoder_dropout is not None:
                earlier = replaced(earlier, encoder_dropout=settings.encoder_dropout)
            source, path = restore_classifier(source_dir, earlier, problem, runtime)
            print(f"init_from  {path}")
        if source is None:
            encoder = load_run_encoder(settings, config.lora)
        elif config.lora.lora_rank:
            encoder = source.encoder  # With the same adapters, see `prepare`.
        else:
            encoder = with_layers(with_lora(source.encoder, None), settings.num_layers)
        classifier = build_classifier(
            encoder,
            data.problem,
            settings,
            labels=data.train.labels if data.train else None,
            max_seq_length=config.data.max_seq_length,
            runtime=source.runtime if source else runtime,
        )
        if source:
            kept = _head_and_outputs(source) == _head_and_outputs(classifier)
            if kept:
                weights = source.model.get_layer("head").get_weights()
                classifier.model.get_layer("head").set_weights(weights)
            print(f"head       {'kept' if kept else 'new'}")
    if from_checkpoint:
        print(f"init_from  {settings.init_from}")
        # Who does not train cannot do with a new one.
        kept = keep_head(encoder, classifier.model, data.problem, must=not config.run.do_train)
        print(f"head       {'kept' if kept else 'new'}")
    return classifier


def _head_and_outputs(classifier: Classifier) -> tuple[Any, ...]:
    """Returns what must be equal for a head's weights to have the same meaning."""
    model, problem = classifier.model, classifier.problem
    head = model.get_layer("head")
    config = {**head.get_config(), "dropout": None, "dtype": None}
    pooling = model.get_layer("pooling").mode
    return type(head), config, pooling, problem.problem_type, problem.label_names
