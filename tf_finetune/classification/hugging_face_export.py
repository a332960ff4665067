"""Writes a classifier that transformers or sentence-transformers loads, and its adapters."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops
from safetensors.numpy import save_file

from tf_finetune.classification.cards import make_card
from tf_finetune.classification.checkpoint_head import load_head_weights
from tf_finetune.classification.classifier import Classifier
from tf_finetune.classification.config import EncoderConfig
from tf_finetune.classification.heads import Pooling, make_head
from tf_finetune.classification.hugging_face import (
    SEQUENCE_CLASSIFICATION,
    Layout,
    dense_modules,
    find_layout,
)
from tf_finetune.classification.prepare import Request
from tf_finetune.errors import UserError
from tf_finetune.files import replaced_directory
from tf_finetune.formats.encoder import Encoder
from tf_finetune.formats.encoder_writer import (
    encoder_config,
    family_of,
    write_encoder,
    write_tokenizer,
)
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.formats.huggingface_writer import write_json, write_weights
from tf_finetune.formats.model_card import hub_name
from tf_finetune.formats.peft import write_adapter
from tf_finetune.models.encoder_weights import merged_weights
from tf_finetune.models.precision import float32_compute

TOLERANCE = 1e-4
# transformers' names for our types of problems.
_PROBLEMS = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
_ACTIVATIONS = {
    "linear": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "gelu": "torch.nn.modules.activation.GELU",
    "relu": "torch.nn.modules.activation.ReLU",
}


def export_hugging_face(
    classifier: Classifier, request: Request, texts: Sequence[Sequence[str]]
) -> list[str]:
    """Writes all that a run exports in Hugging Face's format.

    Args:
        classifier: The model.
        request: Of its run, for the folders and the model cards.
        texts: Some strings for each text column, on which logits are compared.

    Returns:
        The folders.

    Raises:
        UserError: It has no form in that format, or what was written computes something else. Its
            folder is unchanged.
    """
    encoder, model_dir = classifier.encoder, request.model_dir
    layout = find_layout(encoder, classifier.model)
    card = _base_card(encoder)
    write_classifier(model_dir.hugging_face, classifier, texts, make_card(request, layout, card))
    folders = [model_dir.hugging_face]
    # PEFT takes the base's config.json, which does not say what such a head adds.
    if encoder.lora is not None and layout.kind == SEQUENCE_CLASSIFICATION and not layout.config:
        readme = make_card(request, layout, card, adapter=True)
        write_classifier_adapter(model_dir.adapter, classifier, readme)
        folders.append(model_dir.adapter)
    if request.config.encoder.export_encoder:
        folders.append(os.path.join(model_dir.encoder, "hugging_face"))
        with replaced_directory(folders[-1]) as folder:
            write_encoder(folder, encoder, classifier.max_seq_length)
    return folders


def write_classifier(
    directory: str | os.PathLike[str],
    classifier: Classifier,
    texts: Sequence[Sequence[str]] = (),
    card: str = "",
) -> None:
    """Writes a classifier for transformers, or for sentence-transformers, and reads it again.

    Args:
        directory: The folder; an earlier export there is replaced.
        classifier: The model; adapters are merged.
        texts: Some strings for each text column, on which logits are compared, with an empty one.
        card: The content of README.md; empty: none is written.

    Raises:
        UserError: See `export_hugging_face`.
    """
    encoder, model, problem = classifier.encoder, classifier.model, classifier.problem
    layout = find_layout(encoder, model)
    columns = texts or [()] * len(problem.text_columns)
    segments = [tf.constant([*column, ""], tf.string) for column in columns]
    features = encoder.preprocessor(segments, classifier.max_seq_length)
    with replaced_directory(directory) as folder:
        if layout.kind == SEQUENCE_CLASSIFICATION:
            _write_sequence_classifier(folder, classifier, layout)
        else:
            _write_sentence_transformer(folder, classifier, layout)
        if card:
            (folder / "README.md").write_text(card, encoding="utf-8")
        with float32_compute(model):
            expected = ops.convert_to_numpy(model(features, training=False)) / problem.temperature
        found = ops.convert_to_numpy(_read_again(folder, classifier, features, layout))
        difference = float(np.max(np.abs(found - expected)))
        # Written so that NaN fails too.
        if not difference <= TOLERANCE * max(1.0, float(np.max(np.abs(expected)))):
            raise UserError(
                f"What was written in Hugging Face's format differs from the model: logits by up "
                f"to {difference:.3g}, allowed is {TOLERANCE:g}. Nothing was exported."
            )


def write_classifier_adapter(
    directory: str | os.PathLike[str], classifier: Classifier, card: str = ""
) -> None:
    """Writes the adapters of a classifier as PEFT does, with its head and pooler.

    Args:
        directory: The folder; an earlier export there is replaced.
        classifier: A classifier with adapters whose layout is of transformers.
        card: The content of README.md; empty: none is written.
    """
    encoder, layout = classifier.encoder, find_layout(classifier.encoder, classifier.model)
    prefix, network = family_of(encoder).prefix, encoder.network
    factors = {
        f"{prefix}{module}": (ops.convert_to_numpy(a), ops.convert_to_numpy(b))
        for module, (a, b) in network.adapters.items()
    }
    trained = _head_tensors(layout, classifier.problem.temperature)
    if layout.pooling == "pooled":
        weights = {f"{prefix}{name}": value for name, value in merged_weights(network)}
        trained |= {name: value for name, value in weights.items() if ".pooler." in f".{name}"}
    source, handle = encoder.source, encoder.handle
    write_adapter(
        directory,
        network.lora,
        factors,
        base=hub_name(handle) or (str(source.directory) if source else handle),
        others={"README.md": card.encode()} if card else None,
        saved_modules=trained,
    )


def _base_card(encoder: Encoder) -> str | None:
    """Returns the encoder's README.md; None: it has none."""
    file = encoder.source.directory / "README.md" if encoder.source else None
    if file is None or not file.is_file():
        return None
    return file.read_text(encoding="utf-8", errors="replace")


def _write_sequence_classifier(folder: Path, classifier: Classifier, layout: Layout) -> None:
    encoder, problem = classifier.encoder, classifier.problem
    family = family_of(encoder)
    names = problem.label_names or ("LABEL_0",)
    config = encoder_config(encoder) | {
        "architectures": [f"{family.name}ForSequenceClassification"],
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
        "problem_type": _PROBLEMS[problem.problem_type],
        **({family.dropout: classifier.config.dropout} if family.dropout else {}),
        **layout.config,
    }
    write_json(folder / "config.json", config)
    tensors = {f"{family.prefix}{name}": value for name, value in merged_weights(encoder.network)}
    # Of a head on the first token the hidden layer stands in the pooler's place.
    head = _head_tensors(layout, problem.temperature)
    write_weights(folder, (tensors | head).items())
    write_tokenizer(folder, encoder, classifier.max_seq_length)


def _head_tensors(layout: Layout, temperature: float) -> dict[str, np.ndarray]:
    """Returns a head's weights by their names; its last layer's are divided by the temperature."""
    last = {name for part in layout.head[-2:] for name in part.names}
    found = ((name, value) for part in layout.head for name, value in part.read())
    return {name: value / temperature if name in last else value for name, value in found}


def _write_sentence_transformer(folder: Path, classifier: Classifier, layout: Layout) -> None:
    encoder, problem = classifier.encoder, classifier.problem
    write_encoder(folder, encoder, classifier.max_seq_length)
    if problem.label_names:
        config = encoder_config(encoder)
        config["id2label"] = {str(i): name for i, name in enumerate(problem.label_names)}
        config["label2id"] = {name: i for i, name in enumerate(problem.label_names)}
        write_json(folder / "config.json", config)
    length = {"max_seq_length": classifier.max_seq_length, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", length)
    keys = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}
    (folder / "1_Pooling").mkdir()
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": encoder.hidden_size,
            **{f"pooling_mode_{key}": own == layout.pooling for own, key in keys.items()},
        },
    )
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    layers = dense_modules(classifier.model.get_layer("head"))
    activation, weight, bias = layers[-1]
    layers[-1] = (activation, weight / problem.temperature, bias / problem.temperature)
    for number, (activation, weight, bias) in enumerate(layers, start=2):
        name = f"{number}_Dense"
        (folder / name).mkdir()
        sizes = {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": True}
        config = {**sizes, "activation_function": _ACTIVATIONS[activation]}
        write_json(folder / name / "config.json", config)
        file = folder / name / "model.safetensors"
        tensors = {"linear.weight": np.ascontiguousarray(weight), "linear.bias": bias}
        save_file(tensors, file, metadata={"format": "pt"})
        file.chmod(0o644)
        modules.append((name, "Dense"))
    listed = [
        {
            "idx": index,
            "name": str(index),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, (path, kind) in enumerate(modules)
    ]
    write_json(folder / "modules.json", listed)


def _read_again(folder: Path, classifier: Classifier, features: Any, layout: Layout) -> Any:
    """Returns the logits of what was written."""
    encoder, pooling = load_encoder(str(folder)), layout.pooling
    head = classifier.model.get_layer("head")
    if layout.kind == SEQUENCE_CLASSIFICATION:
        pooling = encoder.native_head.pooling
        head = make_head(encoder, EncoderConfig(head="native"), classifier.problem.num_outputs)
        head.build((None, encoder.hidden_size))
        load_head_weights(encoder, head)
    with float32_compute(encoder.network), float32_compute(head):
        outputs = encoder.network(features, training=False)
        pooled = Pooling(pooling, dtype="float32")(outputs, input_mask=features["input_mask"])
        return head(pooled, training=False)
