"""Rows alone and packed, padded and not, are the same to the model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.generation.conftest import MODELS, day_rows, write_lines
from tf_finetune.data.batches import make_eval_dataset, plan_batches
from tf_finetune.data.dialogues import load_dialogues
from tf_finetune.data.tokenized import TokenizedRows
from tf_finetune.errors import UserError
from tf_finetune.formats.decoders import load_decoder
from tf_finetune.generation import collate
from tf_finetune.generation.collate import DialogueCollate, pack_rows, shared_prefix
from tf_finetune.generation.generator import Generator, build_generator
from tf_finetune.generation.tokenize import TokenizedDialogues
from tf_finetune.models.lora import Lora
from tf_finetune.runs.config import DataConfig, LoopConfig, OptimizerConfig


@pytest.fixture(scope="module")
def generator(tiny_llama) -> Generator:
    return build_generator(load_decoder(str(tiny_llama)), max_seq_length=100)


@pytest.fixture(scope="module")
def found(generator, tmp_path_factory) -> TokenizedDialogues:
    path = write_lines(tmp_path_factory.mktemp("rows") / "train.jsonl", day_rows(23))
    data = load_dialogues(DataConfig(train_file=str(path)))
    assert data.train
    return generator.tokenize(data.train)


def expected_log_probs(generator: Generator, found: TokenizedDialogues) -> list[np.ndarray]:
    """The log-probability of each target of each row, from all logits of the row alone."""
    network, results = generator.decoder.network, []
    columns = found.rows.columns
    for ids, targets in zip(columns["ids"], columns["targets"], strict=True):
        length = len(ids)
        hidden = network(
            {
                "token_ids": ids[None],
                "segments": tf.ones((1, length), tf.int32),
                "positions": tf.range(length)[None],
            }
        )
        logits = tf.matmul(hidden[0], tf.convert_to_tensor(network.head_kernel), transpose_b=True)
        places = np.flatnonzero(targets.numpy() >= 0)
        rows = tf.nn.log_softmax(logits).numpy()
        results.append(rows[places, targets.numpy()[places]])
    return results


def test_each_row_ends_with_its_end_token_and_learns_the_answer_alone(generator, found):
    tokenizer = generator.decoder.tokenizer
    for row, (ids, targets) in enumerate(
        zip(found.rows.columns["ids"], found.rows.columns["targets"], strict=True)
    ):
        learnt = [int(target) for target in targets if target >= 0]
        text = tokenizer.decode(learnt, skip_special_tokens=False)
        assert text.endswith("<|end|>") and text.removesuffix("<|end|>") in day_answers()
        assert found.answer_bytes[row] == 3
        # Nothing after the answer is computed.
        assert targets[-1] == tokenizer.id_of("<|end|>") and len(ids) == found.rows.lengths[row]


def day_answers() -> set[str]:
    return {row["messages"][1]["content"] for row in day_rows(100)}


@pytest.mark.parametrize("batch_size", [1, 5, 23])
def test_the_loss_is_that_of_the_whole_softmax_at_any_padding(generator, found, batch_size):
    expected = expected_log_probs(generator, found)
    sums = generator.forward(make_eval_dataset(found.rows, batch_size))
    order = found.rows.order
    np.testing.assert_allclose(
        sums["log_probability"], [expected[row].sum() for row in order], rtol=1e-4
    )
    np.testing.assert_array_equal(sums["tokens"], [len(expected[row]) for row in order])
    metrics = generator.evaluate_rows(found, batch_size)
    joined = np.concatenate(expected)
    assert metrics["loss"] == pytest.approx(-joined.mean(), rel=1e-4)
    assert metrics["answer_tokens"] == len(joined) and metrics["examples"] == 23


def test_packed_rows_are_the_rows_alone(generator, found):
    packed = pack_rows(found.rows)
    assert len(packed) < len(found.rows) / 2 and packed.lengths.max() <= 100
    assert packed.lengths.sum() == found.rows.lengths.sum()
    expected = np.concatenate(expected_log_probs(generator, found))
    sums = generator.forward(make_eval_dataset(packed, 2))
    assert sums["log_probability"].sum() == pytest.approx(expected.sum(), rel=1e-4)
    assert sums["tokens"].sum() == len(expected)


def rows_of(ids: list[list[int]], targets: list[list[int]]) -> TokenizedRows:
    columns = {"ids": tf.ragged.constant(ids), "targets": tf.ragged.constant(targets)}
    columns = {name: tf.cast(column, tf.int32) for name, column in columns.items()}
    lengths = np.array([len(row) for row in ids], np.int32)
    return TokenizedRows(columns, lengths, lengths, 100, DialogueCollate())


def test_what_all_rows_begin_with_ends_where_they_differ_or_learn():
    same = list(range(20))
    silent = [-1] * 20
    found = rows_of([[*same, 30], [*same, 31, 32]], [[*silent, 5], [*silent, -1, 6]])
    assert shared_prefix(found) == tuple(same)
    learns = [*silent[:18], 7, -1]
    found = rows_of([[*same, 30], [*same, 31]], [[*silent, 5], [*learns, 6]])
    assert shared_prefix(found) == tuple(same[:18])
    # A row keeps a token of its own; few tokens are not worth it; packed rows begin anew.
    assert shared_prefix(rows_of([same, same], [silent, silent])) == tuple(same[:19])
    assert shared_prefix(rows_of([same, [1, *same[1:]]], [silent, silent])) == ()
    assert shared_prefix(rows_of([same[:16], same], [silent[:16], silent])) == ()
    assert shared_prefix(pack_rows(found)) == ()


def test_a_shared_prefix_changes_no_training(found, monkeypatch):
    def train(least: int) -> list[np.ndarray]:
        monkeypatch.setattr(collate, "MIN_PREFIX", least)
        keras.utils.set_random_seed(1)
        decoder = load_decoder(str(MODELS / "llama"), lora=Lora(4, 8.0))
        generator = build_generator(decoder, max_seq_length=100)
        assert bool(shared_prefix(found.rows)) == (least == 3)
        loop = LoopConfig(max_steps=3)
        generator.fit(plan_batches(found.rows, 8, loop), OptimizerConfig(1e-2), loop=loop)
        assert decoder.network.prefix == ()
        return [v.numpy() for v in generator.model.trainable_variables]

    for own, other in zip(train(3), train(100), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-3, atol=2e-5)


def test_positions_start_anew_in_each_document_and_padding_is_no_document():
    columns = {
        "ids": tf.ragged.constant([[5, 6, 7, 8, 9], [4, 3]], tf.int32),
        "targets": tf.ragged.constant([[6, -1, 8, 9, 1], [3, -1]], tf.int32),
        "documents": tf.ragged.constant([[2, 3], [2]], tf.int32),
    }
    real = tf.constant([True, False])
    features, labels, weights = DialogueCollate()(columns, real, tf.constant(6))
    np.testing.assert_array_equal(features["segments"], [[1, 1, 2, 2, 2, 0], [1, 1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(features["positions"], [[0, 1, 0, 1, 2, 0], [0, 1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(labels, [[6, -1, 8, 9, 1, -1], [-1] * 6])
    np.testing.assert_array_equal(weights, [[1, 0, 1, 1, 1, 0], [0] * 6])
    assert float(DialogueCollate().count_tokens(features, labels, weights)) == 5


def test_a_model_of_which_nothing_is_trained_is_refused(generator, found):
    loop = LoopConfig(max_steps=2)
    with pytest.raises(UserError, match=r"Nothing of .*llama is to be trained\. Load it with"):
        generator.fit(plan_batches(found.rows, 4, loop), loop=loop)
