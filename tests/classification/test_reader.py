"""A few texts are read by one program as all texts are by batches."""

import numpy as np
import pytest

from tests.thorough import mostly
from tf_finetune.classification.classifier import build_classifier
from tf_finetune.classification.config import EncoderConfig
from tf_finetune.classification.reader import make_reader
from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import Problem
from tf_finetune.formats.encoders import load_encoder

TEXTS = ["good film", "", "is the movie boring " * 7, "not " * 10, "the plot"]
PROBLEMS = (Problem("single_label", ("text",), ("bad", "good")), Problem("regression", ("text",)))


@pytest.mark.parametrize("long_text", ["truncate", "window"])
@pytest.mark.parametrize(
    "problem", mostly(PROBLEMS[0], others=PROBLEMS[1:]), ids=lambda problem: problem.problem_type
)
def test_it_predicts_and_counts_as_the_classifier_does(tiny_bert_dir, problem, long_text):
    config = EncoderConfig(long_text=long_text, pooling="mean")
    encoder = load_encoder(str(tiny_bert_dir))
    classifier = build_classifier(encoder, problem, config, max_seq_length=12)
    kernel, _ = classifier.model.get_layer("head").logits.trainable_variables
    kernel.assign(np.random.default_rng(1).normal(0, 1, kernel.shape))
    read = make_reader(classifier)
    for texts in (TEXTS, TEXTS[:1], TEXTS[2:3]):
        expected, (found, lengths) = classifier.predict(texts), read(texts)
        np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
        assert found.labels == expected.labels
        rows = [classifier.tokenize(Examples(([text],))) for text in texts]
        if long_text == "truncate":
            assert lengths.tolist() == [int(row.full_lengths[0]) for row in rows]
