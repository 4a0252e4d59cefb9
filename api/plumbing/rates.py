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
    wait_s: float  # until there is room for this request; 0 where there is


@dataclass(slots=True)
class Rates:
    """Until when the requests in hand of each key are spoken for."""

    clock: Callable[[], float] = time.monotonic
    _spent: dict[tuple[str, Rate], float] = field(default_factory=dict[tuple[str, Rate], float])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, settings: Settings, caller: Caller, rate: Rate) -> Allowance | None:
        """Count a request, unless it is one too many; None where there is no limit."""
        limit = _limit(settings, caller, rate)
        if not limit:
            return None
        period, _ = _PERIODS[rate]
        each, now = period / limit, self.clock()
        with self._lock:
            until = max(self._spent.get((caller.key_id, rate), now), now)
            wait = until + each - now - period
            if wait <= 0:
                until = self._spent[caller.key_id, rate] = until + each
        left = max(0, math.floor(-wait / each + 1e-6))
        return Allowance(limit, left, until - now, max(0.0, wait))


def _limit(settings: Settings, caller: Caller, rate: Rate) -> int:
    """How many in a period; 0 for no limit."""
    if rate == "submits":
        return caller.limits.submit_per_min or settings.submit_per_min
    return settings.uploads_per_min if rate == "uploads" else settings.requests_per_s


def refuse_beyond(allowance: Allowance | None, caller: Caller, rate: Rate) -> None:
    """Raise for a request that is one too many.

    Raises:
        WanfarmError: `rate_limited`.
    """
    if allowance is None or not allowance.wait_s:
        return
    wait, (_, period) = math.ceil(allowance.wait_s), _PERIODS[rate]
    raise WanfarmError(
        "rate_limited",
        f"Key '{caller.key_name}' may make {allowance.limit} {rate} {period}. They are used up. "
        f"Retry in {wait} s.",
        retry_after_s=wait,
    )
