"""What `--learning_rate=auto` and `--num_train_epochs=auto` stand for."""

import math
from collections.abc import Collection

from tf_finetune.classification.classifier import Classifier
from tf_finetune.classification.config import Config
from tf_finetune.data.plan import count_steps
from tf_finetune.runs.settings import replaced

# Found on held-out parts of five training files with an encoder of width 384: docs/defaults.md.
# Wider ones take less: 2e-5 to 5e-5 at 768 is of Devlin et al. 2018, A.3.
_RATE, _WIDTH, _HIGHEST_RATE = 1e-4, 384, 5e-4
# Trainings of fewer steps than the first number take more, up to twice as much.
_LONG, _MOST = 1_200, 2.0
# Of adapters, as of RoBERTa's in Hu et al. 2021, table 9; and of a head alone.
_FEW_WEIGHTS = 10
_LEAST_EPOCHS, _MOST_EPOCHS, _STEPS = 3, 10, 1_000


def choose(
    config: Config, auto: Collection[str], classifier: Classifier, num_rows: int
) -> tuple[Config, list[str]]:
    """Chooses the rate and the length of a training.

    Args:
        config: Of the run.
        auto: The settings that are left to the program.
        classifier: What is trained.
        num_rows: The rows of an epoch.

    Returns:
        The configuration, and what was chosen and why, in lines.
    """
    lines, batch_size = [], config.data.train_batch_size
    if "num_train_epochs" in auto:
        steps = count_steps(num_rows, batch_size)
        epochs = min(max(math.ceil(_STEPS / steps), _LEAST_EPOCHS), _MOST_EPOCHS)
        config = replaced(config, num_train_epochs=float(epochs))
        if not config.loop.max_steps:
            lines.append(f"epochs     {epochs} (auto: an epoch has {steps:,} steps)")
    if "learning_rate" in auto:
        width = classifier.encoder.hidden_size
        steps = config.loop.max_steps or count_steps(
            num_rows, batch_size, config.loop.num_train_epochs
        )
        rate = _RATE * min(max(_LONG / steps, 1.0), _MOST) * (_WIDTH / width) ** 2
        rate = min(rate, _HIGHEST_RATE)
        why = f"{steps:,} steps of an encoder of width {width}"
        if config.lora.lora_rank or config.encoder.freeze == "encoder":
            rate *= _FEW_WEIGHTS
            why += ", most of whose weights are frozen"
        config = replaced(config, learning_rate=float(f"{rate:.1e}"))
        lines.append(f"rate       {config.optimizer.learning_rate:g} (auto: {why})")
    return config, lines
