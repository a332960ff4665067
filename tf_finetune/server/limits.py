"""How many requests a client may make: so many a minute, and so many at a time."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

_SECOND = 10**9
_MINUTE = 60 * _SECOND
# Seconds after which a client with too many requests at a time may try again.
RETRY_AFTER = 1


@dataclass(frozen=True)
class Verdict:
    """Whether a request is answered.

    Attributes:
        refusal: Why it is not; None: it is.
        headers: Of the answer or the refusal, as OpenAI's.
    """

    refusal: str | None
    headers: dict[str, str]


class Limits:
    """Counts the requests of each client for itself: a flood of one delays no other.

    Each client has a bucket of `per_minute` requests, which fills up evenly, within a minute. Kept
    is when it will be full. Times are whole nanoseconds times `per_minute`: there a request is
    worth a minute, and nothing is rounded.

    It is not for several threads.
    """

    def __init__(
        self,
        per_minute: int | None,
        at_a_time: int | None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Has seen nobody yet.

        Args:
            per_minute: The most requests of a client in a minute; None: any number.
            at_a_time: The most that are answered at a time; None: any number.
            clock: Tells the time in nanoseconds.
        """
        self._per_minute, self._at_a_time, self._clock = per_minute, at_a_time, clock
        # Who asked last stands last.
        self._full: dict[str, int] = {}
        self._at_work: Counter[str] = Counter()

    def begin(self, client: str) -> Verdict:
        """Takes a request or refuses it; `end` follows one that is taken.

        Args:
            client: Whose it is.
        """
        if self._at_a_time and self._at_work[client] >= self._at_a_time:
            message = f"{self._at_a_time} of your requests are being answered, as many as may be"
            return Verdict(
                f"Rate limit reached: {message} at a time. Try again when one has ended.",
                {"retry-after": str(RETRY_AFTER)},
            )
        verdict = self._take(client) if self._per_minute else Verdict(None, {})
        if verdict.refusal is None:
            self._at_work[client] += 1
        return verdict

    def end(self, client: str) -> None:
        """Makes room: a request has been answered, or its client is gone."""
        self._at_work[client] -= 1
        if not self._at_work[client]:
            del self._at_work[client]

    def _take(self, client: str) -> Verdict:
        """Takes a request from a client's bucket."""
        most = self._per_minute or 0
        now = self._clock() * most
        # A full one is as that of somebody new.
        for other in list(takewhile(lambda one: self._full[one] <= now, self._full)):
            del self._full[other]
        full = max(self._full.pop(client, now), now)
        late = full + _MINUTE - now - most * _MINUTE
        self._full[client] = full = full if late > 0 else full + _MINUTE
        headers = {
            "x-ratelimit-limit-requests": str(most),
            "x-ratelimit-remaining-requests": str(most + (now - full) // _MINUTE),
            "x-ratelimit-reset-requests": _duration((full - now) / (most * _SECOND)),
        }
        if late <= 0:
            return Verdict(None, headers)
        seconds = math.ceil(late / (most * _SECOND))
        return Verdict(
            f"Rate limit reached: {most} requests a minute. Try again in {seconds} s.",
            {**headers, "retry-after": str(seconds)},
        )


def _duration(seconds: float) -> str:
    """Returns a time as OpenAI writes it: `12ms`, `1.5s`, `1m0s`."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return (f"{minutes}m" if minutes else "") + f"{rest / 1000:g}s"
