"""Hashes of contents, from which cache keys are made."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def hash_parts(parts: Iterable[str | bytes]) -> str:
    """Returns a hash of texts and of the borders between them: "ab", "c" is not "a", "bc"."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()


def hash_folder(folder: str) -> str:
    """Returns a hash of the names and contents of all files in a folder."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    parts = [(str(path.relative_to(folder)), path.read_bytes()) for path in paths]
    return hash_parts(part for pair in parts for part in pair)
