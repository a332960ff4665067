import subprocess
import sys
from pathlib import Path

import pytest

from tf_finetune.classification.config import Config
from tf_finetune.errors import UserError
from tf_finetune.runs.flags import flagfile_text, help_text, parse_flags
from tf_finetune.runs.settings import settings

REPOSITORY = Path(__file__).resolve().parents[2]


def parse(*arguments: str) -> Config:
    flags = parse_flags(Config, ["run_classifier.py", *arguments])
    assert flags is not None
    return flags[0]


def test_defaults_are_those_of_the_dataclasses():
    assert parse() == Config()


def test_flags_of_every_type_reach_the_config():
    config = parse(
        "--text_columns=a,b",
        "--learning_rate=1e-4",
        "--train_batch_size=8",
        "--do_train",
        "--seed=7",
    )
    assert config.labels.text_columns == ("a", "b")
    assert config.optimizer.learning_rate == 1e-4
    assert config.data.train_batch_size == 8
    assert config.run.do_train and config.runtime.seed == 7


def test_a_flagfile_repeats_its_run(tmp_path):
    config = parse(
        "--task_name=mrpc", '--label_names=a,"b,c"', "--max_steps=3", "--warmup_proportion=0"
    )
    assert config.labels.label_names == ("a", "b,c")
    file = tmp_path / "run.cfg"
    file.write_text(flagfile_text(config, "a header\nof two lines"))
    assert parse(f"--flagfile={file}") == config


def test_the_later_of_two_values_counts(tmp_path):
    file = tmp_path / "run.cfg"
    file.write_text("--seed=1\n")
    assert parse(f"--flagfile={file}", "--seed=2").runtime.seed == 2
    assert parse("--seed=2", f"--flagfile={file}").runtime.seed == 1


def test_help_names_every_flag_with_its_default():
    text = help_text(Config, "run_classifier.py")
    assert text.startswith("Usage: python run_classifier.py ")
    names = [field.name for *_, field in settings(Config)]
    for name in names:
        assert f"--{name}\n" in text
    assert text.count("Default:") == len(names)


def test_help_has_a_part_for_every_section():
    text = help_text(Config, "run_classifier.py")
    parts = [line for line in text.splitlines() if line.endswith(":") and line[0] != " "]
    assert parts == [
        *("Data:", "Labels:", "Model:", "Optimizer:", "Training:", "Hardware:", "Run:"),
    ]


def test_the_flags_that_were_given_are_named(tmp_path):
    file = tmp_path / "run.cfg"
    file.write_text("--seed=42\n")
    parsed = parse_flags(Config, ["x", f"--flagfile={file}", "--nodo_eval", "--encoder="])
    assert parsed is not None
    config, given = parsed
    assert config == Config() and given == {"seed", "do_eval", "encoder"}
    assert parse_flags(Config, ["x", "--help"]) is None


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("--learning_rat=3", "Did you mean --learning_rate"),
        ("--learning_rate=fast", "learning_rate"),
        ("--learning_rate=0", "must be > 0"),
        ("--train_batch_size=0", "--train_batch_size=0: must be >= 1"),
        ("--precision=half", "mixed_bfloat16"),
        ("--learning_rate=inf", "finite"),
        ("--num_train_epochs=1e300", "<= 10000"),
        ("--max_steps=100000000000000000000", "must be >= 1 and <= 1e"),
        ("--seed=1099511627776", "must be >= 0 and <="),
        ("--freeze=first_²_layers", "first_N_layers"),
        ("--label_names=a,,b", "empty"),
        ("--label_separator= ", "blank"),
        ("--text_columns=a,a", "twice"),
        ("--export_encoder", "--do_export"),
        ("--task_name=mrcp", "--task_name=mrcp: allowed are cola, .*mrpc"),
        ("--text_columns=a,b,c", "one or two"),
        ("--gradient_accumulation_steps=5", "does not divide"),
        ("--freeze=first_two_layers", "first_N_layers"),
        ("--head=my_module", "module:Class"),
        ("--flagfile=missing.cfg", "missing.cfg"),
        ("train.tsv", "Stray argument 'train.tsv'"),
    ],
)
def test_bad_flags_are_named(argument, complaint):
    with pytest.raises(UserError, match="(?s)" + complaint):
        parse(argument)


def test_help_and_bad_flags_answer_without_tensorflow():
    script = (
        "import sys, run_classifier\n"
        "assert run_classifier.main(['x', '--help']) == 0\n"
        "assert run_classifier.main(['x', '--seed=-1']) == 2\n"
        "assert run_classifier.main(['x', '--do_train']) == 2\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'sklearn', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True)
