"""Reads a few texts at once, as a server gets them: one program from strings to logits."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tf_finetune.classification.classifier import Classifier
from tf_finetune.classification.export import text_logits
from tf_finetune.classification.predict import Predictions, to_predictions

Reader = Callable[[Sequence[str]], tuple[Predictions, np.ndarray]]


def make_reader(classifier: Classifier) -> Reader:
    """Makes what `Classifier.predict` does without its pipelines, which take longer than a text.

    Args:
        classifier: Of one text.

    Returns:
        A function that takes texts, at least one, all of which are read together; returns the
        predictions in their order, and how many tokens each text has before any is cut, int32 [n].
    """
    preprocessor, longest = classifier.encoder.preprocessor, classifier.max_seq_length
    long_text = classifier.config.long_text

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def run(texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = text_logits(classifier.model, preprocessor, [texts], longest, long_text)
        return logits, preprocessor.packed_lengths(preprocessor.tokenize([texts]))

    def read(texts: Sequence[str]) -> tuple[Predictions, np.ndarray]:
        logits, lengths = run(tf.constant(list(texts), tf.string))
        return to_predictions(logits.numpy(), classifier.problem), lengths.numpy()

    return read
