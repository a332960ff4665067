"""Adapter directories of PEFT: `adapter_config.json` and `adapter_model.safetensors`."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from tf_finetune.errors import UserError
from tf_finetune.files import replaced_directory
from tf_finetune.formats.handles import read_object
from tf_finetune.formats.tensors import float32, open_tensors
from tf_finetune.models.lora import Adapter, Lora

_PREFIX = "base_model.model."
_KEY = re.compile(rf"(?:{re.escape(_PREFIX)})?(.+)\.lora_([AB])\.weight")
# What makes of an adapter more than x·A·B beside its module; each must be off.
_OTHER_KINDS = (
    *("use_dora", "modules_to_save", "bias", "rank_pattern", "alpha_pattern", "lora_bias"),
    *("layers_to_transform", "layer_replication", "trainable_token_indices", "target_parameters"),
    *("alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config", "kasa_config"),
    *("monteclora_config",),
)
# Modules that a classifier trains whole, by the parts of their names.
_WHOLE = ("classifier", "pre_classifier", "pooler", "head")
_OFF: tuple[Any, ...] = (None, False, "none", {}, [])
# Initialisations that change the base's weights too.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


class PeftAdapter(NamedTuple):
    """An adapter as PEFT saved it.

    Attributes:
        lora: Its settings; the targets are the last parts of its modules' names.
        factors: By the name of each module A, float32 [inputs, rank], and B, [rank, outputs].
        base: The model that it was trained on, as its maker wrote it.
    """

    lora: Lora
    factors: dict[str, tuple[np.ndarray, np.ndarray]]
    base: str | None


def read_adapter(directory: str | os.PathLike[str]) -> PeftAdapter:
    """Reads an adapter directory of PEFT's.

    Args:
        directory: Contains `adapter_config.json` and `adapter_model.safetensors` or `.bin`.

    Returns:
        The adapter.

    Raises:
        UserError: A file is missing or damaged, or the adapter is of another kind than LoRA.
    """
    folder = Path(directory)
    file = folder / "adapter_config.json"
    config = read_object(file)
    if config.get("peft_type") != "LORA":
        raise UserError(
            f"{file} has peft_type={config.get('peft_type')!r}; only 'LORA' can be read."
        )
    for key in _OTHER_KINDS:
        if config.get(key) not in _OFF:
            raise UserError(
                f"{file} has {key}={config[key]!r}, which cannot be computed; only LoRA without it "
                "can be read. Merge the adapter into its base with PEFT's merge_and_unload, and "
                "give the merged model."
            )
    if str(config.get("init_lora_weights")).startswith(_CHANGES_BASE):
        raise UserError(
            f"{file} has init_lora_weights={config['init_lora_weights']!r}, which changes the "
            "base's weights too. Save the adapter with PEFT's "
            "path_initial_model_for_weight_conversion."
        )
    factors = _factors(folder)
    rank = int(_number(config, "r", 8))
    for module, (a, b) in factors.items():
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != rank or b.shape[0] != rank:
            raise UserError(
                f"{folder}: the adapter of {module} has factors of shapes {a.T.shape} and "
                f"{b.T.shape}, and {file.name} r={rank!r}. Save it again."
            )
    lora = Lora(
        rank=rank,
        alpha=_number(config, "lora_alpha", 8.0),
        dropout=_number(config, "lora_dropout", 0.0),
        targets=_targets(factors),
        rslora=bool(config.get("use_rslora")),
    )
    return PeftAdapter(lora, factors, config.get("base_model_name_or_path"))


def assign_adapter(
    found: PeftAdapter, adapters: Mapping[str, Adapter], directory: str | os.PathLike[str]
) -> None:
    """Gives a network's adapters the values of PEFT's.

    Args:
        found: The adapter that was read.
        adapters: The network's, by the names of their modules.
        directory: Where it was read, for error messages.

    Raises:
        UserError: It was trained on another model: modules or shapes differ.
    """
    remedy = f"It was trained on {found.base!r}; give that model, or another adapter."
    strange = [module for module in found.factors if module not in adapters]
    lacking = [module for module in adapters if module not in found.factors]
    if strange:
        has = f"{min(adapters)} to {max(adapters)}" if adapters else "none of those"
        raise UserError(
            f"{directory}: an adapter for another model: this one has no module {strange[0]}, but "
            f"{has}. {remedy}"
        )
    if lacking:
        raise UserError(
            f"{directory}: an adapter without weights for {lacking[0]} and {len(lacking) - 1} "
            f"more modules, which the model has. {remedy}"
        )
    for module, values in found.factors.items():
        for variable, value in zip(adapters[module], values, strict=True):
            if tuple(variable.shape) != value.shape:
                raise UserError(
                    f"{directory}: an adapter for another model: that of {module} has the shape "
                    f"{value.shape}, not {tuple(variable.shape)}. {remedy}"
                )
            variable.assign(value)


def write_adapter(
    directory: str | os.PathLike[str],
    lora: Lora,
    factors: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    base: str,
    transposed: bool = False,
    others: Mapping[str, bytes] | None = None,
    saved_modules: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes an adapter directory that PEFT loads; an existing one is replaced.

    Args:
        directory: The folder.
        lora: The adapter's settings.
        factors: By the name of each module in transformers A [inputs, rank] and B [rank, outputs].
        base: The name of the base model, or its folder.
        transposed: Whether the base stores its kernels [inputs, outputs], as GPT-2 does.
        others: Further files by their names, such as the tokenizer's.
        saved_modules: The weights of a classifier's modules that are trained whole, such as its
            head, by their names in transformers; None: it is a causal language model.
    """
    tensors = {
        f"{_PREFIX}{name}": np.ascontiguousarray(value)
        for name, value in (saved_modules or {}).items()
    }
    for module, pair in factors.items():
        for letter, value in zip("AB", pair, strict=True):
            name = f"{_PREFIX}{module}.lora_{letter}.weight"
            tensors[name] = np.ascontiguousarray(np.asarray(value, "float32").T)
    config = {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
        "lora_dropout": lora.dropout,
        "modules_to_save": _modules(saved_modules or {}),
        "peft_type": "LORA",
        "r": lora.rank,
        "target_modules": list(_targets(factors)),
        "task_type": "SEQ_CLS" if saved_modules else "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": lora.rslora,
    }
    with replaced_directory(directory) as folder:
        for name, content in (others or {}).items():
            (folder / name).write_bytes(content)
        path = folder / "adapter_model.safetensors"
        save_file(tensors, path, metadata={"format": "pt"})
        # The library leaves it to its owner alone; a server may be another user.
        path.chmod(0o644)
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (folder / "adapter_config.json").write_text(text, encoding="utf-8")


def _factors(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reads A and B of each module."""
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, load in open_tensors(folder, "adapter_").items():
        if (key := _KEY.fullmatch(name)) is None:
            raise UserError(
                f"{folder}: its tensor {name} is none of LoRA's for a linear layer "
                f"({_PREFIX}….lora_A.weight), and cannot be read."
            )
        try:
            parts.setdefault(key[1], {})[key[2]] = float32(name, load()).T
        except UserError as error:
            raise UserError(f"{folder}: {error}") from error
    if halves := [module for module, pair in parts.items() if len(pair) != 2]:
        raise UserError(f"{folder} has only one of lora_A and lora_B for {halves[0]}. Save again.")
    return {module: (pair["A"], pair["B"]) for module, pair in sorted(parts.items())}


def _modules(weights: Mapping[str, Any]) -> list[str] | None:
    """Returns the names by which PEFT knows modules that are trained whole; None: there are none.

    It looks for the ends of names; those of a head's layers are all below its first one.
    """
    parts = {part for name in weights for part in name.split(".") if part in _WHOLE}
    return sorted(parts) or None


def _targets(modules: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sorted({module.rpartition(".")[2] for module in modules}))


def _number(config: Mapping[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if type(value) not in (int, float):
        raise UserError(f"adapter_config.json has {key}={value!r}; it must be a number.")
    return float(value)
