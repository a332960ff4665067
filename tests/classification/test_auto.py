"""The rate and the length of a training that no flag gives."""

import json
import re

import pytest

import run_classifier
from tf_finetune import Problem, build_classifier, load_encoder
from tf_finetune.classification.auto import choose
from tf_finetune.classification.config import Config
from tf_finetune.runs.flags import parse_flags
from tf_finetune.runs.settings import auto_names, replaced

AUTO = {"learning_rate", "num_train_epochs"}


@pytest.fixture(scope="module")
def classifier(minilm_dir):
    encoder = load_encoder(str(minilm_dir), num_layers=1)
    return build_classifier(encoder, Problem("single_label", ("text",), ("a", "b")))


def test_less_data_are_read_more_often(classifier):
    epochs = []
    for rows in (10, 1_000, 4_000, 6_000, 100_000):
        config, told = choose(Config(), AUTO, classifier, rows)
        epochs.append(config.loop.num_train_epochs)
        assert (
            told[0] == f"epochs     {epochs[-1]:.0f} (auto: an epoch has {-(-rows // 32):,} steps)"
        )
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[0] == 10 and epochs[-1] == 3
    few, many = (
        choose(replaced(Config(), train_batch_size=size), AUTO, classifier, 6_000)[0]
        for size in (8, 64)
    )
    assert few.loop.num_train_epochs < many.loop.num_train_epochs


def test_a_short_training_takes_a_higher_rate(classifier):
    rates = []
    for steps in (5, 600, 1_000, 1_200, 50_000):
        config, told = choose(replaced(Config(), max_steps=steps), AUTO, classifier, 100)
        rates.append(config.optimizer.learning_rate)
        assert config.loop.max_steps == steps
        # No word of epochs.
        assert told == [
            f"rate       {rates[-1]:g} (auto: {steps:,} steps of an encoder of width 384)"
        ]
    assert rates == [2e-4, 2e-4, 1.2e-4, 1e-4, 1e-4]
    config, _ = choose(
        replaced(Config(), num_train_epochs=12.0), {"learning_rate"}, classifier, 3200
    )
    assert config.optimizer.learning_rate == 1e-4


def test_few_weights_take_a_higher_rate(classifier):
    usual = choose(Config(), AUTO, classifier, 100)[0].optimizer.learning_rate
    for flags in ({"lora_rank": 8}, {"freeze": "encoder"}):
        config, told = choose(replaced(Config(), **flags), AUTO, classifier, 100)
        assert config.optimizer.learning_rate == pytest.approx(10 * usual)
        assert "frozen" in told[-1]


def test_what_a_flag_gives_stays(classifier):
    given = replaced(Config(), learning_rate=1e-3, num_train_epochs=7.0)
    assert choose(given, (), classifier, 100) == (given, [])
    config, told = choose(given, {"num_train_epochs"}, classifier, 100)
    assert config.optimizer.learning_rate == 1e-3 and config.loop.num_train_epochs == 10
    assert len(told) == 1


def test_auto_after_a_flagfile_takes_its_value_back(tmp_path):
    (tmp_path / "run.cfg").write_text("--learning_rate=1e-3\n--num_train_epochs=4\n")
    parsed = parse_flags(Config, ["x", f"--flagfile={tmp_path}/run.cfg", "--learning_rate=auto"])
    assert parsed is not None
    config, given = parsed
    assert given == {"num_train_epochs"} and auto_names(Config) - given == {"learning_rate"}
    assert config.optimizer.learning_rate == Config().optimizer.learning_rate


def test_a_run_keeps_what_it_chose(tiny_bert_dir, tmp_path, capsys):
    rows = [f"a {('good', 'bad')[i % 2]} film {i}\t{('good', 'bad')[i % 2]}" for i in range(24)]
    (tmp_path / "rows.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    command = ["x", f"--encoder={tiny_bert_dir}", f"--train_file={tmp_path}/rows.tsv"]
    command += ["--max_seq_length=16", "--train_batch_size=8", "--do_train"]
    out = f"--model_dir={tmp_path}/out"
    export = ["--do_export", "--export_formats=hugging_face"]
    assert run_classifier.main([*command, out, *export]) == 0
    shown = capsys.readouterr().out
    assert "rate       0.0005 (auto: 30 steps of an encoder of width 16)" in shown
    assert "epochs     10 (auto: an epoch has 3 steps)" in shown
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["train"]["steps"] == 30
    record = json.loads((tmp_path / "out" / "config.json").read_text())
    assert record["optimizer"]["learning_rate"] == 5e-4
    flags = (tmp_path / "out" / "train.cfg").read_text().splitlines()
    assert {"--learning_rate=0.0005", "--num_train_epochs=10.0"} <= set(flags)

    card = (tmp_path / "out" / "hugging_face" / "README.md").read_text()
    for name, value in (("learning_rate", "0.0005"), ("num_train_epochs", "10")):
        assert re.search(rf"{name}\W+{value}\b", card)

    # The same command goes on with it, and so does one that says the same.
    for more in ([], ["--learning_rate=auto"], ["--learning_rate=5e-4", "--num_train_epochs=10"]):
        assert run_classifier.main([*command, out, *more]) == 0
        shown = capsys.readouterr().out
        assert "going on from step 30 of 30" in shown and "(auto:" not in shown
    assert run_classifier.main([*command, out, "--learning_rate=1e-3"]) == 2
    assert "--learning_rate: 0.0005 there, 0.001 now" in capsys.readouterr().err


def test_a_word_that_is_not_auto_is_refused(capsys):
    assert run_classifier.main(["x", "--learning_rate=fast"]) == 2
    error = capsys.readouterr().err
    assert "--learning_rate=fast" in error and "auto" in error
