"""The settings of a generator's run: shared sections, prompts, the decoder, adapters, decoding."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from tf_finetune.data.chat_config import ChatDataConfig
from tf_finetune.errors import UserError
from tf_finetune.generation.sampling_config import SamplingConfig
from tf_finetune.runs.config import (
    DataConfig,
    LoopConfig,
    OptimizerConfig,
    RunConfig,
    RuntimeConfig,
    check_slices,
)
from tf_finetune.runs.lora_config import LoraConfig
from tf_finetune.runs.report_config import ReportConfig
from tf_finetune.runs.settings import check_values, replaced, setting

MODEL_HELP = (
    "the pre-trained language model: a local directory in Hugging Face's format or of a KerasHub "
    "preset, hf://org/name, a .gguf file, or package:<python module>"
)


@dataclass(frozen=True)
class DecoderConfig:
    """The decoder, its text side, and what is learnt."""

    title: ClassVar[str] = "Model"

    model: str | None = setting(None, MODEL_HELP, path="one")
    adapter: str | None = setting(
        None, "PEFT adapter directory to go on from; the model is its base", path="one"
    )
    init_from: str | None = setting(
        None, "model_dir of an earlier run: start from its model, e.g. dpo after sft", path="one"
    )
    chat_template: str | None = setting(
        None,
        "jinja file in place of the checkpoint's own chat template; plain: prompt and completion "
        "are joined as they are",
        path="one",
    )
    method: str = setting(
        "sft",
        "sft: learn the answers; dpo: prefer the chosen answers to the rejected ones, by default "
        "with --learning_rate=5e-5, and 1e-6 where all weights are trained",
        choices=("sft", "dpo"),
    )
    beta: float = setting(0.1, "dpo: how strongly the model is held to where it began", above=0)
    packing: bool = setting(
        False, "pack short rows into rows of --max_seq_length; attention stays in each of them"
    )
    gradient_checkpointing: bool = setting(
        False, "keep less of the forward pass in memory, and compute it again", may_change=True
    )

    def __post_init__(self) -> None:
        check_values(self)
        if self.method == "dpo" and self.packing:
            raise UserError("--packing does not go with --method=dpo. Leave it out.")


@dataclass(frozen=True)
class EvaluationConfig:
    """How answers are evaluated, and what the base model is told for a fair comparison."""

    title: ClassVar[str] = "Evaluation"

    generate_samples: int = setting(
        200, "rows of the test file that --do_eval has answered", minimum=1, may_change=True
    )
    compare_base: bool = setting(
        True, "--do_eval: the base model beside the tuned one, on the same rows", may_change=True
    )
    base_prompt: str | None = setting(
        None,
        "what the base model is told of the answers' format, in a column of its own",
        may_change=True,
    )
    num_fewshot: int = setting(
        3,
        "training rows that the base model is shown as examples, in a column of its own; 0: none",
        minimum=0,
        may_change=True,
    )
    general_file: str | None = setting(
        None,
        "rows on other matters: --do_eval tells what was forgotten of them",
        path="list",
        may_change=True,
    )

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True)
class ChattingConfig:
    """What is done in a terminal beside training."""

    title: ClassVar[str] = "Terminal"

    interactive: bool = setting(
        False, "chat with the model of --model_dir, or with --model as it is", may_change=True
    )
    show_examples: int = setting(
        0,
        "print so many training rows with the learnt tokens marked, and end",
        minimum=0,
        may_change=True,
    )

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True)
class Config:
    """A whole run of a generator."""

    program: ClassVar[str] = "run_generator.py"

    data: DataConfig = DataConfig(
        max_seq_length=1024, train_batch_size=16, eval_batch_size=16, predict_batch_size=16
    )
    chat: ChatDataConfig = ChatDataConfig()
    decoder: DecoderConfig = DecoderConfig()
    lora: LoraConfig = LoraConfig(lora_rank=16, lora_alpha=32.0)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-4, weight_decay=0.0)
    loop: LoopConfig = LoopConfig(num_train_epochs=1.0)
    sampling: SamplingConfig = SamplingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    chatting: ChattingConfig = ChattingConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    run: RunConfig = RunConfig()
    report: ReportConfig = ReportConfig()

    def __post_init__(self) -> None:
        check_slices(self.data, self.loop)
        if self.run.export_version:
            raise UserError("--export_version: a generator's export has no versions. Leave it out.")
        if self.decoder.adapter and not self.lora.lora_rank:
            raise UserError(
                f"--adapter={self.decoder.adapter} does not go with --lora_rank=0: an adapter is "
                "trained beside its base. Leave one of them out."
            )


def with_rate_of_method(config: Config, given: Collection[str]) -> Config:
    """Sets the learning rate to that of the method, if no flag gives one.

    Adapters are trained at ten times the rate of all weights, and answers at ten times that of
    preferences, which would soon lose their start.

    Args:
        config: The configuration of a training.
        given: The names of the explicit flags.
    """
    if "learning_rate" in given:
        return config
    has_adapters = bool(config.lora.lora_rank)
    if config.decoder.method == "dpo":
        return replaced(config, learning_rate=5e-5 if has_adapters else 1e-6)
    return config if has_adapters else replaced(config, learning_rate=5e-5)
