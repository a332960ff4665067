"""Flags of other tools are answered with ours, and with no flag that the program has not."""

import pytest

from tf_finetune.classification.config import Config
from tf_finetune.errors import UserError
from tf_finetune.runs.flags import parse_flags
from tf_finetune.runs.other_names import _ADVICE, _HERE, _SAME, other_name_hint
from tf_finetune.runs.settings import settings

FLAGS = {field.name for *_, field in settings(Config)}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        # Hugging Face's TrainingArguments and run_glue.py.
        ("--output_dir=x", "--model_dir."),
        ("--model_name_or_path=x", "--encoder."),
        ("--per_device_train_batch_size=8", "--train_batch_size."),
        ("--per_device_eval_batch_size=8", "--eval_batch_size."),
        ("--warmup_ratio=0.1", "--warmup_proportion."),
        ("--warmup_steps=10", "--warmup_proportion, a share of all steps."),
        ("--overwrite_output_dir", "--overwrite."),
        ("--max_length=8", "--max_seq_length."),
        ("--save_steps=8", "--save_checkpoints_steps."),
        ("--fp16", "--precision=mixed_float16."),
        ("--bf16=true", "--precision=mixed_bfloat16."),
        ("--text_column_name=x", "--text_columns."),
        ("--label_column_name=x", "--label_column."),
        ("--resume_from_checkpoint=x", "--model_dir."),
        # The first BERT, and TensorFlow Models.
        ("--init_checkpoint=x", "--init_from."),
        ("--iterations_per_loop=8", "--steps_per_loop."),
        ("--tpu_name=x", "--tpu."),
        ("--eval_data_path=x", "--validation_file."),
        # OpenAI, AutoTrain, fastText, spaCy, and what people type.
        ("--n_epochs=2", "--num_train_epochs."),
        ("--training_file=x", "--train_file."),
        ("--epochs=2", "--num_train_epochs."),
        ("--batch-size=8", "--train_batch_size."),
        ("--lr=1", "--learning_rate."),
        ("-lr=1", "--learning_rate."),
        ("--paths.dev=x", "--validation_file."),
        ("--dev_file=x", "--validation_file."),
        ("--predict_file=x", "--test_file, with --do_predict."),
        ("--do_test", "--do_predict, and --do_eval for its metrics."),
    ],
)
def test_ours_is_named(theirs, ours):
    with pytest.raises(UserError) as caught:
        parse_flags(Config, ["x", theirs])
    assert f"no such flag. Here it is {ours} See --help." in str(caught.value)


@pytest.mark.parametrize(
    "theirs", ["--num_workers=2", "--report_to=none", "--no_cuda", "--optim=x"]
)
def test_what_nothing_here_does_has_an_advice(theirs):
    with pytest.raises(UserError, match=r"no such flag\. (Leave it out|The optimizer|Set the env)"):
        parse_flags(Config, ["x", theirs])


@pytest.mark.parametrize("name", ["weight-decay", "Weight_Decay", "weight.decay", "WEIGHT-DECAY"])
def test_our_own_spelt_otherwise(name):
    assert other_name_hint(name, FLAGS) == "Write --weight_decay."


def test_the_table_names_flags_that_there_are_and_no_name_twice():
    assert {ours.partition("=")[0].partition(",")[0] for ours in _SAME} <= FLAGS | {"flagfile"}
    names = [name for table in _SAME.values() for name in table.split()]
    assert len(set(names)) == len(names) == len(_HERE)
    assert not {*_HERE, *_ADVICE} & FLAGS and not _HERE.keys() & _ADVICE.keys()


def test_a_program_without_the_flag_does_not_name_it():
    assert other_name_hint("model_name_or_path", {"seed"}) == ""
    assert other_name_hint("fp16", {"seed"}) == ""
    assert other_name_hint("random_seed", {"seed"}) == "Here it is --seed."
    assert other_name_hint("nothing_like_it", FLAGS) == ""
