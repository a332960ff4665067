import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar

import pytest

from tf_finetune.classification.config import Config
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig, OptimizerConfig
from tf_finetune.runs.settings import (
    allowed_range,
    check_values,
    differences,
    from_record,
    replaced,
    sections,
    setting,
    settings,
    to_record,
    value_type,
    values_of,
)


@dataclass(frozen=True)
class One:
    title: ClassVar[str] = "One"

    names: tuple[str, ...] = setting((), "some names")
    rate: float = setting(0.5, "a rate", above=0, maximum=1)
    kind: str = setting("a", "a kind", choices=("a", "b"), may_change=True)

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True)
class Two:
    title: ClassVar[str] = "Two"

    steps: int | None = setting(None, "some steps", minimum=1)
    eager: bool = setting(False, "eager", names_data=True)

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True)
class OtherPair:
    """The same sections, with other defaults."""

    one: One = One(names=("x",), rate=0.25)
    two: Two = Two(steps=4)


@dataclass(frozen=True)
class Pair:
    one: One = One()
    two: Two = Two()


def test_sections_and_settings_in_their_order():
    for config in (Pair, Pair()):
        assert sections(config) == {"one": One, "two": Two}
        assert [(name, section, field.name) for name, section, field in settings(config)] == [
            ("one", One, "names"),
            ("one", One, "rate"),
            ("one", One, "kind"),
            ("two", Two, "steps"),
            ("two", Two, "eager"),
        ]
    assert value_type(One, "names") == (tuple, False)
    assert value_type(Two, "steps") == (int, True)
    fields = {field.name: field for *_, field in settings(Pair)}
    assert allowed_range(fields["rate"]) == "> 0 and <= 1" and not allowed_range(fields["kind"])


def test_names_of_settings_are_unique():
    """Flags and records know settings by their names alone."""
    names = [field.name for *_, field in settings(Config)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: One(rate=0.0), r"--rate=0\.0: must be > 0 and <= 1"),
        (lambda: One(rate=float("nan")), "--rate=nan: must be a finite number"),
        (lambda: One(kind="c"), "--kind=c: allowed are a, b"),
        (lambda: One(names=("a", "")), "--names=.*empty"),
        (lambda: One(names=("a\nb",)), "line end"),
        (lambda: One(names=(" a",)), "blank"),
        (lambda: Two(steps=0), "--steps=0: must be >= 1"),
        (lambda: replaced(Pair(), steps=-1), "--steps=-1"),
        (lambda: from_record(Pair, {"two": {"steps": -1}}), "--steps=-1"),
    ],
)
def test_values_are_checked_wherever_they_come_from(make, complaint):
    with pytest.raises(UserError, match=complaint):
        make()


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DataConfig().max_seq_length = 3  # type: ignore[misc]
    with pytest.raises(UserError):
        dataclasses.replace(Config(), optimizer=OptimizerConfig(learning_rate=-1.0))


def test_a_record_gives_the_config_back():
    config = replaced(Config(), text_columns=("a", "b"), max_steps=3, do_eval=True)
    record = json.loads(json.dumps(to_record(config)))
    assert from_record(Config, record) == config
    assert list(record) == [
        *("data", "labels", "encoder", "lora", "distillation", "optimizer", "loop", "runtime"),
        *("run", "report"),
    ]


def test_a_record_is_read_by_names_however_it_was_grouped():
    """Earlier versions had the sections data, model, train and runtime, and other settings."""
    record = {
        "data": {"train_file": "a.tsv", "text_columns": ["a", "b"], "class_weights": "balanced"},
        "model": {"encoder": "package:x", "freeze": "embeddings", "no_longer": [1, {}]},
        "train": {"learning_rate": 1, "max_steps": 7, "threshold": 0.25},
        "runtime": {"seed": 3, "do_train": True, "export_encoder": False, "tpu": None},
    }
    config = from_record(Config, record)
    assert config == replaced(
        Config(),
        hidden_act="gelu_new",
        train_file="a.tsv",
        text_columns=("a", "b"),
        class_weights="balanced",
        encoder="package:x",
        freeze="embeddings",
        learning_rate=1,
        max_steps=7,
        threshold=0.25,
        seed=3,
        do_train=True,
    )
    assert config.encoder.class_weights == "balanced" and config.labels.text_columns == ("a", "b")
    assert from_record(Config, {}) == replaced(Config(), hidden_act="gelu_new")


def test_what_a_record_lacks_is_as_in_the_configuration_without_arguments():
    record = {"any": {"steps": 5, "names": [], "kind": "b"}}
    assert from_record(OtherPair, record) == OtherPair(One((), 0.25, "b"), Two(5))
    assert from_record(Pair, record) == Pair(One((), 0.5, "b"), Two(5))
    assert from_record(OtherPair, {"two": {"steps": None}}) == OtherPair(two=Two())


@pytest.mark.parametrize(
    "record",
    [
        {"one": {"names": "a"}},
        {"one": {"rate": "0.5"}},
        {"one": {"rate": None}},
        {"two": {"steps": 1.5}},
        {"two": {"steps": [1]}},
        {"two": {"eager": 1}},
        {"two": 3},
        {"two": None},
        {"two": ["steps"]},
    ],
)
def test_a_damaged_record_is_noticed(record):
    with pytest.raises((TypeError, AttributeError)):
        from_record(Pair, record)


def test_differences_are_those_that_may_not_change():
    now = Pair(One(rate=0.25, kind="b"), Two(steps=3))
    assert differences(Pair(), now) == [
        "  --rate: 0.5 there, 0.25 now",
        "  --steps: None there, 3 now",
    ]
    assert differences(Pair(), now, {"steps", "kind"}) == ["  --steps: None there, 3 now"]
    assert differences(now, now) == [] == differences(Pair(), now, ())


def test_what_may_change_between_two_calls_of_one_training():
    changing = {field.name for *_, field in settings(Config) if field.metadata["may_change"]}
    assert changing == {
        *("do_train", "do_eval", "do_predict", "do_export", "overwrite"),
        *("export_encoder", "export_formats", "quantization", "max_quality_loss", "estimate"),
        *("model_dir", "eval_batch_size", "predict_batch_size", "max_predict_samples"),
        *(
            "test_file",
            "threshold",
            "tune_thresholds",
            "reject_below",
            "keep_checkpoint_max",
            "tokenized_cache_dir",
        ),
        *("save_checkpoints_steps", "log_steps", "steps_per_loop", "distribution_strategy", "tpu"),
        *("jit_compile", "data_report", "do_report", "slice_columns", "export_version"),
        *("label_separator", "label_format", "id_column", "quoting"),
    }


def test_what_names_data():
    naming = {field.name for *_, field in settings(Config) if field.metadata["names_data"]}
    assert naming == {
        *("data_dir", "train_file", "validation_file", "test_file", "tfds_name", "tfds_data_dir"),
        *("max_train_samples", "max_eval_samples", "max_predict_samples"),
        *("validation_fraction", "test_fraction"),
    }


def test_settings_are_replaced_and_taken_by_name():
    config = replaced(Pair(), kind="b", steps=2)
    assert config == Pair(One(kind="b"), Two(steps=2))
    assert values_of(config, ("steps", "kind", "no_such")) == {"kind": "b", "steps": 2}
    every = {"names": (), "rate": 0.5, "kind": "b", "steps": 2, "eager": False}
    assert values_of(config) == every
    assert replaced(Pair(), **values_of(config, ("steps",))) == Pair(two=Two(steps=2))
    with pytest.raises(TypeError, match="no such settings: speed"):
        replaced(config, kind="a", speed=3)
