"""The head that a classification checkpoint of transformers brings."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tf_finetune.classification.checkpoints import checkpoint_problem
from tf_finetune.classification.hugging_face import has_native_head, stored_head
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder
from tf_finetune.formats.tensors import float32, open_tensors


def keep_head(encoder: Encoder, model: keras.Model, problem: Problem, *, must: bool) -> bool:
    """Gives a model the head of its encoder's checkpoint, if it is of the same labels.

    Args:
        encoder: From a folder in Hugging Face's format.
        model: From `connect`.
        problem: What the model learns; its labels may stand in another order.
        must: Whether it is an error if the head cannot be kept.

    Returns:
        Whether it is kept.

    Raises:
        UserError: It must be kept and cannot, or it is damaged.
    """
    head, source = model.get_layer("head"), encoder.source
    problems = []
    if source is None:
        problems.append("it is not in Hugging Face's format")
    else:
        theirs = checkpoint_problem(dict(source.config), problem.text_columns, encoder.handle)
        if theirs.problem_type != problem.problem_type:
            problems.append(f"it learnt {theirs.problem_type}, not {problem.problem_type}")
        elif {*theirs.label_names} != {*problem.label_names}:
            problems.append(f"its labels are {', '.join(theirs.label_names[:9])}")
    if not has_native_head(encoder, model):
        problems.append("the head is another one than --head=native")
    if problems:
        if must:
            raise UserError(
                f"--init_from={encoder.handle}: its head cannot be used: {problems[0]}."
            )
        return False
    order = [theirs.label_names.index(name) for name in problem.label_names]
    return load_head_weights(encoder, head, order or None, must=must)


def load_head_weights(
    encoder: Encoder, head: Any, order: Sequence[int] | None = None, *, must: bool = True
) -> bool:
    """Gives a native head the weights of its encoder's checkpoint.

    Args:
        encoder: From a folder in Hugging Face's format.
        head: From `make_head`, built.
        order: The checkpoint's number of each logit; None: the same.
        must: Whether it is an error if the checkpoint has no head.

    Returns:
        Whether it has one.

    Raises:
        UserError: The checkpoint has no such head and must, or it has one of another shape.
    """
    assert encoder.source is not None
    directory, native = encoder.source.directory, encoder.native_head
    tensors = open_tensors(directory)
    stored = stored_head(head, native.dense or "", native.out, native.norm or "")
    names = [name for part in stored for name in part.names]
    if missing := [name for name in names if name not in tensors]:
        if not must:
            return False
        raise UserError(
            f"{directory} holds no classification head: its weights lack {missing[0]}. Give a "
            "checkpoint of transformers' …ForSequenceClassification, or --encoder in place of "
            "--init_from."
        )

    def read(name: str) -> np.ndarray:
        value = float32(name, tensors[name]())
        is_out = name.startswith(f"{native.out}.")
        return value[order] if is_out and order and len(value) == len(order) else value

    try:
        for part in stored:
            part.assign(read)
    except ValueError as error:
        raise UserError(
            f"{directory}: {error}, as its config.json says. Compare its files with the original's."
        ) from error
    return True
