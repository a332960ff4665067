import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from tf_finetune.classification.config import Config
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig, LoopConfig
from tf_finetune.runs.flags import flagfile_text, help_text, parse_flags
from tf_finetune.runs.lora_config import LoraConfig
from tf_finetune.runs.settings import replaced, settings

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


@dataclass(frozen=True)
class Other:
    """Shared sections with defaults of its own."""

    program: ClassVar[str] = "other.py"

    data: DataConfig = DataConfig(max_seq_length=1024, validation_fraction=0.15)
    lora: LoraConfig = LoraConfig(lora_rank=12, lora_targets=("q_proj", "v_proj"))
    loop: LoopConfig = LoopConfig(load_best_model_at_end=False)


def test_a_configuration_has_defaults_of_its_own(tmp_path):
    parsed = parse_flags(Other, ["other.py", "--lora_rank=8"])
    assert parsed == (replaced(Other(), lora_rank=8), {"lora_rank"})
    assert parse().lora == LoraConfig(lora_rank=0)
    text = help_text(Other, "other.py")
    for shown in ("Default: 1024.", "Default: 12.", "Default: q_proj,v_proj.", "Default: 0.15."):
        assert shown in text and shown not in help_text(Config, "run_classifier.py")
    # Their own defaults stay, and those of the section have to be said.
    config = replaced(
        Other(),
        max_seq_length=128,
        validation_fraction=None,
        lora_targets=(),
        load_best_model_at_end=True,
    )
    lines = flagfile_text(config).split()
    assert sorted(lines) == [
        *("--load_best_model_at_end=true", "--lora_targets=", "--max_seq_length=128"),
        "--num_train_epochs=3.0",
        "--validation_fraction=",
    ]
    (tmp_path / "run.cfg").write_text(flagfile_text(config))
    parsed = parse_flags(Other, ["other.py", f"--flagfile={tmp_path}/run.cfg"])
    assert parsed is not None and parsed[0] == config
    assert flagfile_text(Other()) == "--num_train_epochs=3.0\n"


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
        *("Data:", "Labels:", "Model:", "LoRA:", "Distillation:", "Optimizer:", "Training:"),
        *("Hardware:", "Run:", "Report:"),
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
        ("train.tsv", "Stray argument 'train.tsv': .*files are joined by commas"),
        ("max_steps=2", "begins with two hyphens: --max_steps=2"),
        ("\u2014do_train", "begins with two hyphens: --do_train"),  # As word processors write it.
        ("--weight-decay=1", "--weight-decay: no such flag. Write --weight_decay."),
    ],
)
def test_bad_flags_are_named(argument, complaint):
    with pytest.raises(UserError, match="(?s)" + complaint):
        parse(argument)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--do_train", "True"], "'True': write --do_train=true, or --do_train."),
        (["--do_train", "1", "--seed=3"], "'1': write --do_train=true, or --do_train."),
        (["--do_eval", "false"], "'false': write --do_eval=false, or --nodo_eval."),
        (["-do_export", "yes"], "'yes': write --do_export=true, or --do_export."),
        (["--seed=1", "True"], "every value belongs to a flag"),
        (["--do_train", "train.tsv"], "every value belongs to a flag"),
    ],
)
def test_a_value_after_a_blank_that_belongs_to_no_flag(arguments, complaint):
    with pytest.raises(UserError, match=re.escape(complaint)):
        parse(*arguments)


def test_values_after_a_blank_that_do():
    config = parse("--seed", "3", "-do_train", "--model_dir", "out", "--do_eval=False")
    assert config.runtime.seed == 3 and config.run.model_dir == "out"
    assert config.run.do_train and not config.run.do_eval


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbf--seed=1\n--do_train\n", (1, True)),
        (b"\xef\xbb\xbf# A comment\n--seed=1\r\n\r\n", (1, False)),
        (b"--seed=2\n\xef\xbb\xbf--seed=1\n--do_train", (1, True)),  # Two files, joined.
        (b"\xef\xbb\xbf\n  // A comment\n \t --do_train \n", (42, True)),
        (b"\xef\xbb\xbf", (42, False)),
    ],
)
def test_byte_order_marks_blanks_and_comments_of_a_flagfile(tmp_path, content, expected):
    (tmp_path / "run.cfg").write_bytes(content)
    config = parse(f"--flagfile={tmp_path}/run.cfg")
    assert (config.runtime.seed, config.run.do_train) == expected
    (tmp_path / "outer.cfg").write_bytes(f"\ufeff--flagfile={tmp_path}/run.cfg".encode())
    assert parse(f"--flagfile={tmp_path}/outer.cfg") == config


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("--seed 3", "--seed 3: no such flag. Write --seed=3."),
        ("seed=3", "'seed=3': a flag begins with two hyphens: --seed=3."),
        ("--flagfile other.cfg", "Write --flagfile=other.cfg."),
        ("--flagfile={0}/run.cfg", "this file reads itself"),
        ("--flagfile={0}/no.cfg", "--flagfile={0}/no.cfg: cannot be read: No such file"),
        ("--flagfile={0}", "--flagfile={0}: cannot be read: Is a directory"),
        ("--flagfile=", "no file is named"),
    ],
)
def test_what_is_wrong_in_a_flagfile_is_named(tmp_path, content, complaint):
    (tmp_path / "run.cfg").write_text(content.format(tmp_path))
    with pytest.raises(UserError, match=re.escape(complaint.format(tmp_path))):
        parse(f"--flagfile={tmp_path}/run.cfg")


def test_a_flagfile_of_another_encoding(tmp_path):
    for encoding in ("utf-16", "latin-1"):
        (tmp_path / "run.cfg").write_bytes("--label_column=Größe".encode(encoding))
        with pytest.raises(UserError, match=r"run.cfg: not UTF-8 text: .* Save it as UTF-8"):
            parse(f"--flagfile={tmp_path}/run.cfg")


def test_a_flagfile_does_not_depend_on_the_locale(tmp_path):
    (tmp_path / "run.cfg").write_text("--label_column=Größe\n--nonsense=1\n", encoding="utf-8")
    script = f"import run_classifier; run_classifier.main(['x', '--flagfile={tmp_path}/run.cfg'])"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert b"--nonsense: no such flag" in done.stderr


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
