"""DPO: the loss against TRL's, pairs that stay together, the reference, and its resume."""

import dataclasses
import json
import math
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.data.batches import plan_batches
from tf_finetune.data.conversations import Preference
from tf_finetune.errors import UserError
from tf_finetune.formats.decoders import load_decoder
from tf_finetune.generation.config import Config, DecoderConfig, with_rate_of_method
from tf_finetune.generation.evaluate import evaluate_preferences
from tf_finetune.generation.generator import Generator, build_generator
from tf_finetune.generation.load import make_generator, template_of
from tf_finetune.generation.metrics import check_metric_name, preference_metrics, warn_of_chosen
from tf_finetune.generation.preferences import REFERENCE, tokenize_pairs
from tf_finetune.generation.prepare import prepare
from tf_finetune.generation.record import save_record
from tf_finetune.generation.reference import references_at_start
from tf_finetune.generation.summary import preferences_table
from tf_finetune.generation.tokenize import TokenizedDialogues
from tf_finetune.models.lora import Lora
from tf_finetune.runs.config import LoopConfig, OptimizerConfig
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.settings import replaced
from tf_finetune.runtime.hardware import Runtime
from tf_finetune.training import loop as training_loop
from tf_finetune.training.checkpoints import save_weights
from tf_finetune.training.loop import train
from tf_finetune.training.progress import Progress

LLAMA = str(Path(__file__).parents[1] / "formats" / "language_models" / "llama")
HERE = Path(__file__).parent
TEXTS = [Preference(**row) for row in json.loads((HERE / "preferences.json").read_text())]
BETA = 0.3
LORA = Lora(4, 8.0)


def make(lora: Lora | None = LORA, length: int = 96, template: str | None = None) -> Generator:
    keras.utils.set_random_seed(5)
    settings = DecoderConfig(model=LLAMA, method="dpo", beta=BETA, chat_template=template)
    return build_generator(
        load_decoder(LLAMA, lora=lora, trainable=True), settings, max_seq_length=length
    )


def toy(count: int, first: int = 0) -> list[Preference]:
    """Polite answers are better than curt ones; prompts and answers of many lengths."""
    return [
        Preference(
            f"{'say ' * (n % 5)}{n}?", f"yes{', sir' * (1 + n % 2)}.", f"no{' way' * (n % 3)}"
        )
        for n in range(first, first + count)
    ]


def with_reference(generator: Generator, pairs: list[Preference], folder: ModelDir | None = None):
    found = {"train": generator.tokenize_training(pairs)}
    return references_at_start(generator, found, folder, 8)["train"]


def reference_of(found: TokenizedDialogues) -> np.ndarray:
    return found.rows.columns[REFERENCE].numpy()


def disturb(generator: Generator, seed: int = 0) -> None:
    """Makes adapters what they could be after a training."""
    random = np.random.default_rng(seed)
    for adapter in generator.decoder.network.adapters.values():
        adapter.b.assign(random.normal(0, 0.1, adapter.b.shape))


@pytest.fixture
def logged(monkeypatch) -> list[dict[str, float]]:
    """The scalars of each step of trainings to come."""
    steps: list[dict[str, float]] = []

    class Record(Progress):
        def steps(self, step: int, scalars: dict[str, float], first: bool = False) -> None:
            steps.append(scalars)
            super().steps(step, scalars, first)

    monkeypatch.setattr(training_loop, "Progress", Record)
    return steps


def test_tokens_loss_rewards_and_gradient_are_those_of_trl():
    expected = np.load(HERE / "preferences.npz")
    generator = make(lora=None, template="plain")
    found = generator.tokenize_training(TEXTS)
    columns = {**found.rows.columns, REFERENCE: tf.constant(expected["reference"])}
    found = dataclasses.replace(found, rows=dataclasses.replace(found.rows, columns=columns))
    ((features, labels, _),) = list(found.batches(len(TEXTS)))

    # A batch is sorted by length, and TRL's has the chosen answers first.
    order = found.rows.order
    rows = np.stack([order, order + len(TEXTS)], axis=1)
    used = features["segments"].numpy() > 0
    for number, answer in np.ndindex(len(TEXTS), 2):
        row = rows[number, answer]
        ids = expected["ids"][row][expected["attended"][row] > 0]
        learnt = expected["answered"][row][expected["attended"][row] > 0] > 0
        np.testing.assert_array_equal(
            features["token_ids"][number, answer][used[number, answer]], ids[:-1]
        )
        targets = features["targets"][number, answer][used[number, answer]]
        np.testing.assert_array_equal(targets, np.where(learnt, ids, -1)[1:])

    scores = generator.score_pairs(found, 3)
    np.testing.assert_allclose(scores, expected["log_probabilities"], rtol=1e-5)
    metrics = generator.evaluate_pairs(found)
    with tf.GradientTape() as tape:
        outputs = generator.model(features, training=True)
        loss = tf.reduce_mean(generator.model.loss.call(labels, outputs))
    variables = generator.model.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    logged = {
        name: float(tf.reduce_mean(measure(labels, outputs)))
        for name, measure in generator.model.loss.measures.items()
    }
    theirs = {
        "loss": "loss",
        "reward_accuracy": "rewards_accuracies",
        "reward_margin": "rewards_margins",
        **{
            name: name.replace("reward_", "rewards_")
            for name in ("reward_chosen", "reward_rejected")
        },
        **{name: name for name in ("logps_chosen", "logps_rejected")},
    }
    assert float(expected["beta"]) == BETA and set(theirs) - {"loss"} == set(logged)
    for name, other in theirs.items():
        assert metrics[name] == pytest.approx(float(expected[other]), rel=1e-4), name
        ours = float(loss) if name == "loss" else logged[name]
        assert ours == pytest.approx(float(expected[other]), rel=1e-4), name
    norm = float(tf.linalg.global_norm(gradients))
    assert norm == pytest.approx(float(expected["gradient_norm"]), rel=1e-3)
    embeddings = dict(zip([v.path for v in variables], gradients, strict=True))[
        "decoder/embeddings"
    ]
    norm = float(tf.norm(tf.convert_to_tensor(embeddings)))
    assert norm == pytest.approx(float(expected["embedding_norm"]), rel=1e-3)


def test_a_training_begins_at_log_2_and_its_measures_are_logged(logged, tmp_path):
    generator = make()
    folder = ModelDir(str(tmp_path))
    found = with_reference(generator, toy(16), folder)
    metrics = generator.evaluate_pairs(found)
    assert metrics["loss"] == pytest.approx(math.log(2), abs=1e-6)
    # Zero but for rounding, which some processors do in another order for other batches.
    assert metrics["reward_margin"] == pytest.approx(0, abs=1e-6)
    assert metrics["reward_chosen"] == pytest.approx(0, abs=1e-6)
    batches = plan_batches(found.rows, 8, LoopConfig(max_steps=10))
    generator.fit(
        batches,
        OptimizerConfig(learning_rate=1e-2),
        loop=LoopConfig(max_steps=10),
        evaluation=None,
        model_dir=folder,
    )
    assert logged[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert logged[0]["examples_per_second"] > 0 and logged[0]["tokens_per_second"] > 0
    (point,) = map(json.loads, Path(folder.log).read_text().splitlines())
    names = set(generator.model.loss.measures)
    assert names == set(metrics) - {"examples", "loss"} and names <= set(point)
    assert point["reward_margin"] == pytest.approx(
        point["reward_chosen"] - point["reward_rejected"], abs=1e-4
    )


def test_slices_of_a_batch_do_not_part_pairs():
    results = []
    for slices in (1, 4):
        generator = make()
        disturb(generator)
        found = with_reference(generator, toy(24))
        disturb(generator, seed=1)
        loop = LoopConfig(max_steps=3, gradient_accumulation_steps=slices)
        optimizer = keras.optimizers.SGD(0.01)
        state = train(
            generator.model, plan_batches(found.rows, 8, loop), optimizer=optimizer, loop=loop
        )
        results.append((state, [v.numpy() for v in generator.model.trainable_variables]))
    (whole, expected), (state, weights) = results
    assert (state.examples, state.tokens) == (whole.examples, whole.tokens) != (0, 0)
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.thorough
def test_two_replicas_train_the_same(tmp_path):
    command = [sys.executable, str(HERE / "train_pairs.py"), LLAMA, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("one_device", "mirrored"))
    assert (one.pop("replicas"), other.pop("replicas")) == (1, 2)
    assert one.keys() == other.keys() and len(one) > 30
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, atol=1e-5, err_msg=name)


def test_neither_padding_nor_the_other_pairs_of_a_batch_change_a_pair():
    generator = make()
    disturb(generator)
    pairs = toy(7)
    found = generator.tokenize_training(pairs)
    expected = [generator.score_pairs(generator.tokenize_training([pair]), 1)[0] for pair in pairs]
    longer = dataclasses.replace(found, rows=dataclasses.replace(found.rows, buckets=(90,)))
    for part in (found, longer):
        np.testing.assert_allclose(generator.score_pairs(part, 4), expected, rtol=1e-5)
    # The pair is as its answers alone.
    alone = [generator.tokenize([one for pair in pairs for one in pair.alternatives])]
    sums = generator.forward(alone[0].batches(5))["log_probability"]
    rows = np.empty_like(sums)
    rows[alone[0].rows.order] = sums
    np.testing.assert_allclose(rows.reshape(-1, 2), expected, rtol=1e-5)
    whole = sum(int(found.rows.collate.count_tokens(*batch)) for batch in found.batches(4))
    assert whole == int(alone[0].rows.lengths.sum())


class Killed(Exception):
    """In place of a process' end."""


def test_it_goes_on_bit_for_bit_whatever_it_started_from_is_now(
    monkeypatch, tmp_path, assert_same_weights
):
    def start(folder: Path, stop_at: int | None = None, changed: bool = False) -> np.ndarray:
        class Stopping(Progress):
            def steps(self, step: int, scalars: dict[str, float], first: bool = False) -> None:
                super().steps(step, scalars, first)
                if step == stop_at:
                    raise Killed

        monkeypatch.setattr(training_loop, "Progress", Stopping)
        generator = make(Lora(4, 8.0, dropout=0.1))
        disturb(generator)  # A model that was tuned before.
        if changed:
            disturb(generator, seed=9)
        found = with_reference(generator, toy(20), ModelDir(str(folder)))
        loop = LoopConfig(max_steps=12, save_checkpoints_steps=5)
        generator.fit(
            plan_batches(found.rows, 4, loop),
            OptimizerConfig(learning_rate=1e-2),
            loop=loop,
            evaluation=None,
            model_dir=ModelDir(str(folder)),
        )
        return reference_of(found)

    expected = start(tmp_path / "whole")
    # Before the first checkpoint nothing has been trained: the reference is that of the new start.
    with pytest.raises(Killed):
        start(tmp_path / "killed", stop_at=3, changed=True)
    with pytest.raises(Killed):
        start(tmp_path / "killed", stop_at=8)
    np.testing.assert_array_equal(start(tmp_path / "killed", changed=True), expected)
    assert_same_weights(tmp_path / "killed", tmp_path / "whole")
    leftovers = [path.name for path in (tmp_path / "killed").iterdir() if path.name[0] == "."]
    assert not leftovers


def test_a_damaged_reference_is_computed_again(tmp_path, capsys):
    folder, generator = ModelDir(str(tmp_path)), make()
    expected = reference_of(with_reference(generator, toy(6), folder))
    save_weights(generator.model, folder.checkpoints)
    (tmp_path / "checkpoints" / "best-0.index").rename(tmp_path / "checkpoints" / "step-1.index")
    Path(folder.reference).write_bytes(Path(folder.reference).read_bytes()[:100])
    again = with_reference(generator, toy(6), folder)
    assert "reference.npz is damaged" in capsys.readouterr().err
    np.testing.assert_allclose(reference_of(again), expected, rtol=1e-6)


def test_it_learns_to_prefer_and_pairs_of_new_files_get_the_same_start(tmp_path, capsys):
    folder, generator = ModelDir(str(tmp_path)), make()
    config = replaced(Config(), model=LLAMA, method="dpo", beta=BETA, lora_rank=4)
    found = with_reference(generator, toy(40), folder)
    others = toy(12, first=100)
    start = with_reference(generator, others)
    before = generator.evaluate_pairs(start)
    loop = LoopConfig(max_steps=25)
    generator.fit(
        plan_batches(found.rows, 8, loop),
        OptimizerConfig(learning_rate=1e-2, warmup_proportion=0.0),
        loop=loop,
        evaluation=None,
        model_dir=folder,
    )
    capsys.readouterr()
    splits = {"eval": toy(40), "test": others, "none": None}
    after = evaluate_preferences(generator, splits, config, folder)
    said = capsys.readouterr()
    assert list(after) == ["eval", "test"] and before["reward_accuracy"] == 0
    assert after["test"]["reward_accuracy"] > 0.9 < after["eval"]["reward_accuracy"]
    assert after["test"]["loss"] < 0.5 and after["test"]["reward_margin"] > 0.5
    # Only the new file's pairs need the start again, and they get what they had there.
    assert re.findall(r"pairs of (\w+)", said.out) == ["test"]
    expected = generator.evaluate_pairs(start)
    assert after["test"] == pytest.approx(expected, rel=1e-4)
    table = preferences_table(after).splitlines()
    assert table[0].split() == ["preferences,", "eval", "preferences,", "test"]
    assert [line.split()[0] for line in table[1:]] == list(after["test"])
    fell = sum(after[split]["reward_chosen"] < 0 for split in after)
    assert said.err.count("the chosen answers are less probable") == fell


def test_the_reference_of_a_tuned_model_is_that_model(tmp_path):
    config = replaced(Config(), model=LLAMA, lora_rank=4, max_seq_length=96)
    tuned, folder = make_generator(config, Runtime()), ModelDir(str(tmp_path / "sft"))
    disturb(tuned)
    save_record(folder, config, template_of(tuned.decoder), {})
    save_weights(tuned.model, folder.checkpoints)
    config = replaced(config, init_from=folder.path, method="dpo", beta=BETA)
    generator, dpo = make_generator(config, Runtime()), ModelDir(str(tmp_path / "dpo"))
    found = with_reference(generator, toy(6), dpo)
    assert generator.evaluate_pairs(found)["loss"] == pytest.approx(math.log(2), abs=1e-6)
    base = with_reference(make(), toy(6))
    assert np.abs(reference_of(found) - reference_of(base)).max() > 0.1
    # After the training too, for pairs that were not in it.
    disturb(generator, seed=2)
    metrics = evaluate_preferences(generator, {"test": toy(6)}, config, ModelDir(str(tmp_path)))
    expected = preference_metrics(
        generator.score_pairs(found, 8), reference_of(found), generator.config.beta
    )
    assert metrics["test"] == pytest.approx(expected, rel=1e-4) and expected["reward_margin"]


def test_all_weights_have_a_start_too(tmp_path):
    generator = make(lora=None)
    found = with_reference(generator, toy(6))
    config = replaced(Config(), model=LLAMA, method="dpo", beta=BETA, lora_rank=0)
    for variable in generator.model.trainable_variables:
        variable.assign(variable.numpy() * 1.05)
    metrics = evaluate_preferences(generator, {"test": toy(6)}, config, ModelDir(str(tmp_path)))
    assert metrics["test"] == pytest.approx(generator.evaluate_pairs(found), rel=1e-4)


def test_both_lose_the_same_part_of_the_prompt_and_pairs_without_a_difference_are_dropped():
    generator = make(template="plain")
    long = "abcdefghij " * 20
    pairs = [
        Preference("Hi?", "yes", "no"),
        Preference(long, " good", " bad and ugly and more"),
        # Their difference comes late; their answers are cut at the end.
        Preference("Why?", " " + "x" * 80 + "1", " " + "x" * 80 + "2"),
        Preference(long, " one", " two"),
    ]
    found = tokenize_pairs(pairs, generator.form, 40)
    assert found.numbers.tolist() == [0, 1, 3] and found.dropped.tolist() == [0, 0, 1, 0]
    assert found.cut.tolist() == [False, True, True, True]
    ids, targets = (found.rows.columns[name].to_list() for name in ("ids", "targets"))
    decode = generator.decoder.tokenizer.decode
    chosen, rejected = found.rows.columns["sizes"][1].numpy().tolist()
    assert max(chosen, rejected) == 39 and found.rows.lengths.tolist()[1] == 39
    prompts = []
    for row, part in (
        (ids[1][:chosen], targets[1][:chosen]),
        (ids[1][chosen:], targets[1][chosen:]),
    ):
        learnt = [id for id in part if id >= 0]
        prompts.append(row[: len(row) - len(learnt) + 1])
        assert decode(learnt, skip_special_tokens=False).endswith(("good<|end|>", "more<|end|>"))
    assert prompts[0] == prompts[1] and long.endswith(decode(prompts[0]))
    with pytest.raises(UserError, match="None of the 1 pairs has two different answers"):
        tokenize_pairs(pairs[2:3], generator.form, 40)


def test_pairs_of_messages_learn_the_answers_turns_alone():
    generator = make()
    prompt = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    prompt += ({"role": "user", "content": "c"},)
    answers = [({"role": "assistant", "content": text},) for text in ("good", "bad")]
    found = generator.tokenize_training([Preference(prompt, *answers)])
    (targets,) = found.rows.columns["targets"].to_list()
    learnt = generator.decoder.tokenizer.decode([id for id in targets if id >= 0], False)
    assert learnt == "good<|end|>bad<|end|>"
    assert found.answer_tokens.tolist() == [len([id for id in targets if id >= 0])]


def test_the_cache_holds_pairs(tmp_path):
    generator = make()
    first = generator.tokenize_training(toy(5), str(tmp_path))
    second = generator.tokenize_training(toy(5), str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1
    answers = generator.tokenize(toy(5), str(tmp_path))  # The chosen ones: another file.
    assert len(list(tmp_path.iterdir())) == 2 and len(answers.rows) == 5
    for name, column in first.rows.columns.items():
        assert column.shape == second.rows.columns[name].shape
        flat = [
            tf.convert_to_tensor(getattr(c, "values", c))
            for c in (column, second.rows.columns[name])
        ]
        np.testing.assert_array_equal(*flat)


def test_pairs_without_a_reference_are_not_trained_on():
    found = make().tokenize_training(toy(4))
    with pytest.raises(ValueError, match="no reference"):
        plan_batches(found.rows, 2, LoopConfig(max_steps=1))


def test_metrics_refuse_a_model_that_has_diverged_and_warn_where_chosen_answers_fall():
    reference = np.array([[-3.0, -5.0], [-1.0, -2.0]])
    with pytest.raises(UserError, match="1 of 2 pairs are not finite"):
        preference_metrics(np.array([[-3.0, np.nan], [-1.0, -2.0]]), reference, 0.1)
    # Both pairs are learnt, but at the cost of the chosen answers.
    metrics = preference_metrics(reference - [[1.0, 500.0], [2.0, 4.0]], reference, 0.1)
    assert metrics["reward_accuracy"] == 1.0 and math.isfinite(metrics["loss"])
    assert "fallen by 1.50 nats on average, to -3.50" in (warn_of_chosen(metrics, 0.1) or "")
    assert warn_of_chosen(preference_metrics(reference, reference, 0.1), 0.1) is None


def test_flags(tmp_path):
    check_metric_name("reward_margin", generates=True, method="dpo")
    for name, method in (("perplexity", "dpo"), ("reward_accuracy", "sft")):
        with pytest.raises(UserError, match=f"--metric_for_best_model={name}"):
            check_metric_name(name, generates=True, method=method)
    dpo = replaced(Config(), method="dpo")

    def rate(config: Config, given: Collection[str]) -> float:
        return with_rate_of_method(config, given).optimizer.learning_rate

    assert rate(dpo, ()) == 5e-5 and rate(replaced(dpo, lora_rank=0), ()) == 1e-6
    assert rate(dpo, {"learning_rate"}) == rate(Config(), ()) == 5e-4
    file = tmp_path / "train.jsonl"
    file.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 5)
    flags = {"model": LLAMA, "train_file": str(file), "streaming": "true", "do_train": True}
    config = replaced(dpo, model_dir=str(tmp_path / "model"), **flags)
    with pytest.raises(UserError, match="--method=dpo needs all rows beforehand"):
        prepare(config, {"method", *flags})
