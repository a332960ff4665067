"""What we write is what transformers, sentence-transformers and PEFT load, with equal logits."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tf_finetune.classification.classifier import Classifier, build_classifier
from tf_finetune.classification.config import EncoderConfig
from tf_finetune.classification.hugging_face import find_layout
from tf_finetune.classification.hugging_face_export import (
    write_classifier,
    write_classifier_adapter,
)
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.formats.encoder_families import FAMILIES
from tf_finetune.formats.encoder_writer import write_encoder
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.models.lora import Lora

REPOSITORY = Path(__file__).resolve().parents[2]
ENCODERS = REPOSITORY / "tests" / "formats" / "encoders"
NAMES = sorted(
    {
        path.parent.name
        for path in ENCODERS.glob("*/config.json")
        if json.loads(path.read_text())["model_type"] in FAMILIES
    }
)
TEXTS = [["the film is good"], ["a bad, bad plot!"], [""], ["good " * 40]]
PAIRS = [["the film", "is good"], ["a bad plot", ""], ["good " * 30, "bad"]]
ONE = Problem("single_label", ("text",), ("bad", "fine", "good"))
TWO = Problem("single_label", ("first", "second"), ("no", "yes"))
SEVERAL = Problem("multi_label", ("text",), ("a", "b", "c", "d"))
NUMBER = Problem("regression", ("text",), ())


@pytest.fixture(scope="module")
def ask(peer) -> Callable[..., dict[str, Any]]:
    """Asks transformers, sentence-transformers or PEFT what a folder computes of texts."""
    answer = peer("ask_classifier.py")

    def ask(folder: Path, kind: str, texts: list[list[str]], **options: Any) -> dict[str, Any]:
        return answer({"folder": str(folder), "kind": kind, "texts": texts, **options})

    return ask


def classifier(
    encoder: Any, problem: Problem = ONE, max_seq_length: int = 16, **options: Any
) -> Classifier:
    """A classifier of random head and biases."""
    made = build_classifier(
        encoder, problem, EncoderConfig(**options), max_seq_length=max_seq_length
    )
    random = np.random.default_rng(0)
    for variable in made.model.get_layer("head").variables:
        if "seed" not in variable.path:
            variable.assign(random.normal(0, 0.5, variable.shape))
    return made


def logits(made: Classifier, texts: list[list[str]]) -> np.ndarray:
    return made.predict([list(column) for column in zip(*texts, strict=True)]).logits


@pytest.mark.parametrize("name", NAMES)
def test_transformers_computes_the_same(ask, folder_of, tmp_path, name):
    made = classifier(load_encoder(str(folder_of(name))))
    write_classifier(tmp_path / "out", made, [[row[0] for row in TEXTS]])
    answer = ask(tmp_path / "out", "sequence_classification", TEXTS)
    expected = made.predict([row[0] for row in TEXTS])
    np.testing.assert_allclose(answer["logits"], expected.logits, atol=1e-4)
    assert answer["labels"] == [label for (label,) in expected.labels]
    assert (answer["loaded"], answer["warnings"]) == ({}, [])
    assert answer["problem_type"] == "single_label_classification"


@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet", "distilbert"])
def test_pairs(ask, folder_of, tmp_path, name):
    made = classifier(load_encoder(str(folder_of(name))), TWO)
    write_classifier(tmp_path / "out", made)
    answer = ask(tmp_path / "out", "sequence_classification", PAIRS)
    np.testing.assert_allclose(answer["logits"], logits(made, PAIRS), atol=1e-4)


@pytest.mark.parametrize(("problem", "kind"), [
    (SEVERAL, "multi_label_classification"), (NUMBER, "regression")
])  # fmt: skip
def test_other_problems(ask, folder_of, tmp_path, problem, kind):
    made = classifier(load_encoder(str(folder_of("bert"))), problem)
    write_classifier(tmp_path / "out", made)
    answer = ask(tmp_path / "out", "sequence_classification", TEXTS)
    np.testing.assert_allclose(answer["logits"], logits(made, TEXTS), atol=1e-4)
    assert (answer["problem_type"], answer["warnings"]) == (kind, [])


@pytest.mark.parametrize("name", ["bert", "albert"])
def test_a_hidden_layer_on_the_first_token_becomes_the_pooler(ask, folder_of, tmp_path, name):
    made = classifier(load_encoder(str(folder_of(name))), pooling="cls", head="mlp")
    write_classifier(tmp_path / "out", made)
    answer = ask(tmp_path / "out", "sequence_classification", TEXTS)
    np.testing.assert_allclose(answer["logits"], logits(made, TEXTS), atol=1e-4)
    assert (answer["loaded"], answer["warnings"]) == ({}, [])


@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_sentence_transformers_computes_the_same(ask, folder_of, tmp_path, pooling, head):
    if importlib.util.find_spec("sentence_transformers") is None and not list(
        (REPOSITORY / ".venv-bench").glob("lib/*/site-packages/sentence_transformers")
    ):
        pytest.skip("needs sentence-transformers: make benchmark installs it")
    name = "electra" if (pooling, head) == ("cls", "mlp") else "roberta"
    made = classifier(load_encoder(str(folder_of(name))), pooling=pooling, head=head)
    layout = find_layout(made.encoder, made.model)
    if layout.kind == "sequence_classification":
        assert (name, pooling, head) == ("roberta", "cls", "mlp")
        return
    write_classifier(tmp_path / "out", made)
    answer = ask(tmp_path / "out", "sentence_transformers", TEXTS)
    np.testing.assert_allclose(answer["logits"], logits(made, TEXTS), atol=1e-4)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "fine", "2": "good"}
    again = load_encoder(str(tmp_path / "out"))
    assert again.pooling == pooling


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "deberta-v3", "modernbert"])
def test_peft_computes_the_same(ask, folder_of, tmp_path, name):
    base = folder_of(name)
    made = classifier(load_encoder(str(base), lora=Lora(rank=2, alpha=4.0)))
    random = np.random.default_rng(1)
    for adapter in made.encoder.network.adapters.values():
        for factor in adapter:
            factor.assign(random.normal(0, 0.3, factor.shape))
    write_classifier_adapter(tmp_path / "adapter", made)
    texts = TEXTS[:3]
    answer = ask(tmp_path / "adapter", "peft", texts, base=str(base), outputs=3)
    np.testing.assert_allclose(answer["logits"], logits(made, texts), atol=1e-4)
    write_classifier(tmp_path / "merged", made)
    answer = ask(tmp_path / "merged", "sequence_classification", texts)
    np.testing.assert_allclose(answer["logits"], logits(made, texts), atol=1e-4)


@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet", "deberta-v3", "modernbert"])
def test_the_encoder_alone(ask, folder_of, tmp_path, name):
    encoder = load_encoder(str(folder_of(name)))
    for variable in encoder.network.trainable_variables:
        variable.assign(variable + 0.01)
    (tmp_path / "out").mkdir()
    write_encoder(tmp_path / "out", encoder, 16)
    answer = ask(tmp_path / "out", "encoder", TEXTS[:3])
    inputs = encoder.preprocessor([[row[0] for row in TEXTS[:3]]], 16)
    expected = encoder.network(inputs)["sequence_output"][:, 0]
    np.testing.assert_allclose(answer["first"], expected, atol=1e-5)
    # transformers makes poolers that these architectures' classifiers have not.
    assert all("pooler" in key for keys in answer["loaded"].values() for key in keys)


def test_weights_and_texts_of_the_base_stay_as_they_are(folder_of, tmp_path):
    base = folder_of("bert")
    made = classifier(load_encoder(str(base)))
    write_classifier(tmp_path / "out", made)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    assert before.keys() == after.keys()
    for name, value in before.items():
        if not name.startswith("classifier"):
            np.testing.assert_array_equal(after[name], value, err_msg=name)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (
        base / "tokenizer.json"
    ).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "pooled", "head": "mlp"}, "--pooling=pooled with --head=MlpHead has no form"),
        ({"pooling": "mean", "head": "native"}, "--head=native --pooling=mean: the head of"),
    ],
)
def test_what_has_no_form_is_told(folder_of, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        made = classifier(load_encoder(str(folder_of("bert"))), **options)
        write_classifier(tmp_path / "out", made)
    assert not (tmp_path / "out").exists()


def test_a_saved_model_has_no_form(tiny_hub_dir, tmp_path):
    encoder = load_encoder(str(tiny_hub_dir / "encoder"), mode="saved_model")
    with pytest.raises(UserError, match="is a wrapped SavedModel, which cannot be written"):
        find_layout(encoder, classifier(encoder).model)


def test_the_tokenizer_of_a_saved_model_has_no_form(tiny_hub_dir):
    folders = str(tiny_hub_dir / "encoder"), str(tiny_hub_dir / "preprocessor")
    encoder = load_encoder(folders[0], preprocessor=folders[1])
    with pytest.raises(UserError, match=r"tokenizer of a SavedModel \(HubPreprocessor\)"):
        find_layout(encoder, classifier(encoder).model)


def test_a_bert_of_tf_hub(ask, tiny_hub_dir, tmp_path):
    made = classifier(load_encoder(str(tiny_hub_dir / "encoder")))
    write_classifier(tmp_path / "out", made)
    answer = ask(tmp_path / "out", "sequence_classification", TEXTS)
    np.testing.assert_allclose(answer["logits"], logits(made, TEXTS), atol=1e-4)
    assert (answer["loaded"], answer["warnings"]) == ({}, [])
