"""The versions of what a run was made with."""

import importlib.metadata
import platform

from tf_finetune import __version__

_PACKAGES = ("tensorflow", "tensorflow-text", "keras", "keras-hub", "tf-models-official")


def package_versions() -> dict[str, str]:
    """Returns the versions of the packages that results depend on, and of Python."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return versions | {"tf_finetune": __version__, "python": platform.python_version()}
