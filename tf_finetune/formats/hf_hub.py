"""Models of the Hugging Face Hub, downloaded by its own client into its own cache."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.formats.handles import read_object

# All but the weights; those of a subfolder belong to other programs, but for KerasHub's assets.
_SMALL = ("*.json", "*.jinja", "*.txt", "*.model", "*.md", "LICENSE*", "NOTICE*", "assets/*")


def download(
    name: str, check: Callable[[dict[str, Any]], None], weights: Sequence[str], flag: str
) -> Path:
    """Downloads a model, or finds it in the Hub's cache.

    Args:
        name: `org/name`, or `org/name@revision`.
        check: Raises a `UserError` for a config.json of another kind than is looked for.
        weights: Patterns of the weights' files; the first kind that the model has is downloaded.
        flag: The flag to name in error messages.

    Returns:
        The folder: a snapshot in the Hub's cache, whose place `HF_HOME` sets.

    Raises:
        UserError: There is no such model, it may not be read, there is no network, or it is of
            another kind; that is found before its weights are downloaded.
    """
    folder = _snapshot(name, _SMALL, flag)
    config_file = folder / "config.json"
    config = read_object(config_file) if config_file.is_file() else {}
    if "registered_name" in config:
        return _snapshot(name, ("*.weights.h5",), flag)
    if config:
        check(config)
    for pattern in weights:
        folder = _snapshot(name, (pattern,), flag)
        if any(folder.glob(pattern)):
            break
    return folder


def download_config(name: str, flag: str) -> Path:
    """Downloads what a model has beside its weights, or finds it in the Hub's cache.

    Args:
        name: `org/name`, or `org/name@revision`.
        flag: The flag to name in error messages.

    Returns:
        The folder.

    Raises:
        UserError: See `download`.
    """
    try:
        return _snapshot(name, _SMALL, flag)
    except UserError as error:
        raise UserError(f"--{flag}=hf://{name}: {error}") from error


def with_commit(handle: str, folder: Path) -> str:
    """Returns a handle `hf://org/name` with the commit that its snapshot's folder is named after.

    Args:
        handle: The handle, with a revision or without.
        folder: From `download`.
    """
    return f"{handle.partition('@')[0]}@{folder.name}"


def is_of(recorded: str | None, handle: str | None) -> bool:
    """Whether a handle `with_commit` is one of the model that a handle without revision names."""
    return bool(recorded and handle and "@" in recorded and recorded.rpartition("@")[0] == handle)


def _snapshot(name: str, patterns: tuple[str, ...], flag: str) -> Path:
    """Returns the snapshot's folder, with the files of these patterns in it."""
    from huggingface_hub import errors, snapshot_download

    repository, _, revision = name.partition("@")
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=list(patterns),
                ignore_patterns=[] if "assets/*" in patterns else ["*/*"],
            )
        )
    except errors.GatedRepoError as error:
        raise UserError(
            f"its owner asks for consent. Give it on https://huggingface.co/{repository}, then "
            "log in: hf auth login; or set HF_TOKEN."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"the Hugging Face Hub has no model {repository!r}, or it is private: then log in, "
            "hf auth login, or set HF_TOKEN."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"the Hugging Face Hub's {repository!r} has no revision {revision!r}."
        ) from error
    except errors.HFValidationError as error:
        raise UserError(f"no name of the Hugging Face Hub: {error}") from error
    # Those of the network come from several libraries.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        folder = repository.rpartition("/")[2]
        raise UserError(
            f"it cannot be downloaded, and is not complete in the Hub's cache: {reason} On a "
            f"machine with network access run: hf download {repository} --local-dir {folder}; "
            f"then copy that folder and give it: --{flag}=/path/to/{folder}. Or set HF_HOME to a "
            "cache that has it."
        ) from error
