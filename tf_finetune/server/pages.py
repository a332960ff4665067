"""Pages of lists, in OpenAI's form."""

from collections.abc import Callable, Sequence
from typing import Any

from tf_finetune.server.failures import ApiError


def listed(
    page: tuple[Sequence[Any], bool] | None, shown: Callable[[Any], dict[str, Any]], after: Any
) -> dict[str, Any]:
    """Returns the answer for a page of a list.

    Args:
        page: The rows, and whether more follow; None: the row before them is not there.
        shown: Returns a row as clients see it.
        after: The id of the row before them, for the error message.

    Raises:
        ApiError: The row before them is not there.
    """
    if page is None:
        raise ApiError(400, f"after={after!r:.80}: there is no such object.", "after")
    data = [shown(row) for row in page[0]]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": page[1],
    }
