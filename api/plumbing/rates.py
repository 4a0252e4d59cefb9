"""How often a key may ask: counted in this process, so that no request waits for another server.

Each key has so many requests in hand, which come back evenly; a burst may use them all (the
generic cell rate algorithm, ITU-T I.371).
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from shared.jobs.keys import Caller
from shared.machinery.settings import Settings
from shared.vocabulary.errors import WanfarmError

Rate = Literal["submits", "uploads", "requests"]
_PERIODS: Final[dict[Rate, tuple[float, str]]] = {
    "submits": (60, "a minute"),
    "uploads": (60, "a minute"),
    "requests": (1, "a second"),
}


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a key may still ask for; as the answer's X-RateLimit headers tell it."""

    limit: int
    remaining: int
    reset_s: float  # until all of it is back


@dataclass(slots=True)
class Rates:
    """Until when the requests in hand of each key are spoken for."""

    clock: Callable[[], float] = time.monotonic
    _spent: dict[tuple[str, Rate], float] = field(default_factory=dict[tuple[str, Rate], float])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, settings: Settings, caller: Caller, rate: Rate) -> Allowance | None:
        """Count a request; None where there is no limit.

        Raises:
            WanfarmError: `rate_limited`.
        """
        limit = _limit(settings, caller, rate)
        if not limit:
            return None
        period, words = _PERIODS[rate]
        each, now = period / limit, self.clock()
        with self._lock:
            until = max(self._spent.get((caller.key_id, rate), now), now)
            wait = until + each - now - period
            if wait <= 0:
                self._spent[caller.key_id, rate] = until + each
        if wait > 0:
            raise _too_many(caller, f"{limit} {rate} {words}", wait)
        return Allowance(limit, math.floor(-wait / each + 1e-6), until + each - now)


def _limit(settings: Settings, caller: Caller, rate: Rate) -> int:
    """How many in a period; 0 for no limit."""
    if rate == "submits":
        return caller.limits.submit_per_min or settings.submit_per_min
    return settings.uploads_per_min if rate == "uploads" else settings.requests_per_s


def _too_many(caller: Caller, what: str, wait_s: float) -> WanfarmError:
    wait = math.ceil(wait_s)
    return WanfarmError(
        "rate_limited",
        f"Key '{caller.key_name}' may make {what}. They are used up. Retry in {wait} s.",
        retry_after_s=wait,
    )
