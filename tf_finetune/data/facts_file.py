"""Writes what is known of a run's data to a file."""

import json
from collections.abc import Mapping
from typing import Any

from tf_finetune.files import replaced_file


def write_facts(path: str, facts: Mapping[str, Any]) -> None:
    """Writes facts atomically as JSON.

    Raises:
        OSError: The file cannot be written.
    """
    text = json.dumps(facts, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    with replaced_file(path) as file:
        # A path may hold surrogates, which are valid in JSON as escapes.
        file.write(text.encode("utf-8", "backslashreplace"))
