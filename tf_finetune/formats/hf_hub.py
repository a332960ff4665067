"""Models of the Hugging Face Hub, downloaded by its own client into its own cache."""

from pathlib import Path

from tf_finetune.errors import UserError
from tf_finetune.formats.families import decoder_config
from tf_finetune.formats.handles import read_object

# All but the weights; those of a subfolder belong to other programs, but for KerasHub's assets.
_SMALL = ("*.json", "*.jinja", "*.txt", "*.model", "*.md", "LICENSE*", "NOTICE*", "assets/*")
# The first kind that a repository has is the one that is read.
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "*.gguf")


def download(name: str) -> Path:
    """Downloads a language model, or finds it in the Hub's cache.

    Args:
        name: `org/name`, or `org/name@revision`.

    Returns:
        The folder: a snapshot in the Hub's cache, whose place `HF_HOME` sets.

    Raises:
        UserError: There is no such model, it may not be read, there is no network, or it is no
            language model of ours; that is found before its weights are downloaded.
    """
    folder = _snapshot(name, _SMALL)
    config_file = folder / "config.json"
    config = read_object(config_file) if config_file.is_file() else {}
    if "registered_name" in config:
        return _snapshot(name, ("*.weights.h5",))
    if config:
        decoder_config(config, f"hf://{name}")
    for pattern in _WEIGHTS:
        folder = _snapshot(name, (pattern,))
        if any(folder.glob(pattern)):
            break
    return folder


def _snapshot(name: str, patterns: tuple[str, ...]) -> Path:
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
            f"then copy that folder and give it: --model=/path/to/{folder}. Or set HF_HOME to a "
            "cache that has it."
        ) from error
