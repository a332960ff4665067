"""Only the rows of a table that the texts use are trained, as AdamW of the whole table would."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.classification.classifier import build_classifier
from tf_finetune.classification.config import EncoderConfig
from tf_finetune.classification.tokenize import table_rows, tokenize
from tf_finetune.data.batches import plan_batches
from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import Problem
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.runs.config import LoopConfig, OptimizerConfig
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.training.loop import train
from tf_finetune.training.optimizer import AdamW, build_optimizer, tables_of

ROWS = [1, 3, 7, 20]
START = np.random.default_rng(0).normal(size=(50, 4)).astype("f")


def table() -> keras.Variable:
    layer = keras.layers.Embedding(50, 4)
    layer.build()
    layer.embeddings.assign(START)
    return layer.embeddings


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_equals_adamw_of_the_whole_table(dense, factor):
    whole, part = table(), table()
    settings = {"weight_decay": 0.1, "max_grad_norm": 0.5}
    full = AdamW(0.01, layer_rates={whole.path: factor}, **settings)
    few = AdamW(0.01, layer_rates={part.path: factor}, table_rows={part.path: ROWS}, **settings)
    full.build([whole])
    few.build([part])
    rng = np.random.default_rng(1)
    for _ in range(5):
        # Some rows come twice, some not at all.
        gradient = tf.IndexedSlices(
            tf.constant(rng.normal(size=(6, 4)), tf.float32),
            tf.constant(rng.choice(ROWS, 6)),
            tf.constant([50, 4]),
        )
        gradient = tf.convert_to_tensor(gradient) if dense else gradient
        full.apply(full.cut([gradient]), [whole])
        few.apply(few.cut([gradient]), [part])
    assert float(few.gradient_norm) == pytest.approx(float(full.gradient_norm), rel=1e-6)
    others = np.setdiff1d(np.arange(50), ROWS)
    np.testing.assert_allclose(part.numpy()[ROWS], whole.numpy()[ROWS], rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(part.numpy()[others], START[others])
    assert np.abs(part.numpy()[ROWS] - START[ROWS]).max(axis=1).min() > 1e-3
    assert {tuple(v.shape) for v in few.variables if len(v.shape) == 2} == {(4, 4)}


def test_a_step_without_a_gradient_moves_by_the_moments_alone():
    part = table()
    optimizer = AdamW(0.01, weight_decay=0.0, table_rows={part.path: ROWS})
    optimizer.build([part])
    optimizer.apply(optimizer.cut([None]), [part])
    np.testing.assert_array_equal(part.numpy(), START)


def test_the_settings_give_the_optimizer_back():
    part = table()
    optimizer = AdamW(0.01, table_rows={part.path: np.array(ROWS)})
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert copy.table_rows == {part.path: ROWS}


PROBLEM = Problem("single_label", ("text",), ("bad", "good"))


@pytest.fixture
def make(tiny_bert_dir):
    """Makes a classifier, always with the same weights, and rows of texts for it."""

    def classifier(word: str = "film"):
        keras.utils.set_random_seed(3)
        encoder = load_encoder(str(tiny_bert_dir), dropout=0.0)
        made = build_classifier(encoder, PROBLEM, EncoderConfig(dropout=0.0))
        texts = [f"{['bad', 'good'][i % 2]} {word} " + "is " * (i % 5) for i in range(40)]
        labels = np.arange(40, dtype=np.int32) % 2
        return made, tokenize(Examples((texts,), labels), encoder.preprocessor, 16)

    return classifier


@pytest.mark.parametrize("slices", [1, 2])
def test_a_training_learns_what_it_learns_with_all_rows(slices, make):
    weights, steps = [], LoopConfig(max_steps=12, gradient_accumulation_steps=slices)
    settings = OptimizerConfig(learning_rate=1e-3, weight_decay=0.0)
    for some in (True, False):
        classifier, rows = make()
        before = classifier.encoder.network.embeddings.token.numpy()
        tables = table_rows(classifier.encoder, rows) if some else None
        optimizer = build_optimizer(12, settings, table_rows=tables)
        train(classifier.model, plan_batches(rows, 8, steps), optimizer=optimizer, loop=steps)
        weights.append([v.numpy() for v in classifier.model.trainable_variables])
        (used,) = table_rows(classifier.encoder, rows).values()
        numbers = [moments.momentum.shape[0] for moments in tables_of(optimizer)]
        assert numbers == ([len(used)] if some else [])
    assert 5 < len(used) < len(before)
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    after = classifier.encoder.network.embeddings.token.numpy()
    assert (np.abs(after - before).max(axis=1) > 0).nonzero()[0].tolist() == sorted(
        set(used) - {classifier.encoder.preprocessor.pad_id}
    )


def test_a_training_goes_on_with_other_texts(make, tmp_path):
    """Moments of words that both have are kept; new words start without."""
    settings = OptimizerConfig(learning_rate=1e-3)
    read = {}
    for word, steps in (("film", 5), ("movie", 5)):
        classifier, rows = make(word)
        loop = LoopConfig(max_steps=steps, save_checkpoints_steps=5)
        tables = table_rows(classifier.encoder, rows)
        optimizer = build_optimizer(5, settings, table_rows=tables)
        batches = plan_batches(rows, 8, loop)
        folder = ModelDir(str(tmp_path))
        state = train(classifier.model, batches, optimizer=optimizer, loop=loop, model_dir=folder)
        assert state.step == 5
        (moments,) = tables_of(optimizer)
        read[word] = dict(zip(moments.rows.tolist(), moments.momentum.numpy(), strict=True))
    both = read["film"].keys() & read["movie"].keys()
    (new,) = read["movie"].keys() - both
    assert len(read["film"].keys() - both) == 1
    for row in both:
        np.testing.assert_array_equal(read["film"][row], read["movie"][row])
    assert not read["movie"][new].any()
