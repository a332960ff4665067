"""Cases of which the test command runs some, and `make test_thorough` all."""

from collections.abc import Iterable
from typing import Any

import pytest


def mostly(*kept: Any, others: Iterable[Any]) -> list[Any]:
    """Returns cases for `parametrize`: those that are kept, and others that are thorough."""
    marked = (other if isinstance(other, tuple) else (other,) for other in others)
    return [*kept, *(pytest.param(*values, marks=pytest.mark.thorough) for values in marked)]
