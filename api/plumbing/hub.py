"""One thread per process that wakes whoever waits for a video; the ledger says what happened.

The feed is only a doorbell here too: a waiter reads Postgres after each wake, so a lost message
costs a second at most and never an event.
"""

import random
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from redis.exceptions import RedisError

from shared.jobs.ledger import Values
from shared.machinery.farm import Farm
from shared.machinery.feed import EVENTS, Subscription
from shared.machinery.logs import logger
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.metrics import STREAMS, STREAMS_REFUSED

_POLL_S: Final = 1.0  # between looks without Redis
_BACKLOG: Final = 1000  # moves that a slow listener may be behind; it then misses the oldest
_LISTEN_S: Final = 0.25  # between looks whether to stop
_AGAIN_S: Final = (5, 15)  # until one that is refused comes back: not all at once


class Watch:
    """One waiter's bell for one video."""

    def __init__(self, stopping: threading.Event) -> None:
        """Begin silent; whoever watches looks once before the first wait."""
        self._rung = threading.Event()
        self._stopping = stopping

    def ring(self) -> None:
        """Wake the waiter."""
        self._rung.set()

    def wait(self, seconds: float) -> bool:
        """Wait until something may have happened, at most so long; read Postgres afterwards.

        Returns:
            Whether it was rung.
        """
        rung = self._rung.wait(max(0.0, seconds))
        self._rung.clear()
        return rung

    @property
    def over(self) -> bool:
        """Tell whether this process is stopping and the waiter must let go."""
        return self._stopping.is_set()


class Follower:
    """One listener's share of the live feed: what videos do, for as long as it keeps up."""

    def __init__(self, tenant: str | None, stopping: threading.Event) -> None:
        """Take whose videos; None means everybody's."""
        self._tenant = tenant
        self._bell = Watch(stopping)
        self._lines: deque[Values] = deque(maxlen=_BACKLOG)

    def hear(self, message: Values) -> None:
        """Take a message of the feed along if it is a move of the right videos."""
        event = message["event"]
        if event["type"] == "state" and self._tenant in {None, message["tenant"]}:
            self._lines.append(event)
            self._bell.ring()

    def wait(self, seconds: float) -> list[Values]:
        """Give what has come, or comes within so many seconds."""
        self._bell.wait(0 if self._lines else seconds)
        return [self._lines.popleft() for _ in range(len(self._lines))]

    @property
    def over(self) -> bool:
        """Tell whether this process is stopping and the listener must let go."""
        return self._bell.over

    def ring(self) -> None:
        """Wake the listener."""
        self._bell.ring()


class Hub(threading.Thread):
    """Listens to the feed while somebody waits; rings all of them each second without Redis."""

    def __init__(self, farm: Farm) -> None:
        """Prepare; `start()` begins."""
        super().__init__(name="hub", daemon=True)
        self._farm = farm
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._watched = threading.Event()  # nobody else needs the news
        self._watches: defaultdict[str, set[Watch]] = defaultdict(set)
        self._followers: set[Follower] = set()
        self._held: Counter[str] = Counter()
        farm.meters.set(STREAMS, 0)

    @property
    def held(self) -> int:
        """How many answers are held open."""
        return self._held.total()

    @contextmanager
    def watching(self, video_id: str) -> Generator[Watch]:
        """Be woken by a video's events until the block ends."""
        watch = Watch(self._stopping)
        with self._lock:
            self._watches[video_id].add(watch)
            self._watched.set()
        try:
            yield watch
        finally:
            with self._lock:
                self._watches[video_id].discard(watch)
                if not self._watches[video_id]:
                    del self._watches[video_id]
                self._rest()

    @contextmanager
    def following(self, tenant: str | None) -> Generator[Follower]:
        """Hear all moves of a tenant's videos until the block ends, those before it never."""
        follower = Follower(tenant, self._stopping)
        with self._lock:
            self._followers.add(follower)
            self._watched.set()
        try:
            yield follower
        finally:
            with self._lock:
                self._followers.discard(follower)
                self._rest()

    def _rest(self) -> None:
        """Stop listening when nobody needs the news; under the lock."""
        if not self._watches and not self._followers:
            self._watched.clear()

    def hold(self, key_id: str) -> "Slot":
        """Take a place among the held-open answers.

        Raises:
            WanfarmError: `too_many_streams` of this process, or `stream_limit` of the key.
        """
        settings = self._farm.settings
        with self._lock:
            self.refuse_when_full()
            if self._held[key_id] >= settings.max_streams_per_key:
                self._farm.meters.count(STREAMS_REFUSED)
                raise WanfarmError(
                    "stream_limit",
                    f"This key holds {settings.max_streams_per_key} answers open. "
                    "That is its limit. Close one, or retry in 5 s.",
                    retry_after_s=5,
                )
            self._held[key_id] += 1
            self._farm.meters.set(STREAMS, self.held)
        return Slot(self, key_id)

    def refuse_when_full(self) -> None:
        """Refuse whoever would be held, at no cost; each is told another time to come back.

        Raises:
            WanfarmError: `too_many_streams` of this process.
        """
        most, again_s = self._farm.settings.max_streams, random.randint(*_AGAIN_S)  # noqa: S311
        if self.held >= most:
            self._farm.meters.count(STREAMS_REFUSED)
            raise WanfarmError(
                "too_many_streams",
                f"All {most} places for held-open answers are taken. "
                f"Each one costs a thread. Poll meanwhile, or retry in {again_s} s.",
                retry_after_s=again_s,
            )

    def release(self, key_id: str) -> None:
        """Give a place back; called by `Slot`."""
        with self._lock:
            self._held[key_id] -= 1
            if not self._held[key_id]:
                del self._held[key_id]
            self._farm.meters.set(STREAMS, self.held)

    def run(self) -> None:
        """Listen until stopped; without Redis ring everybody each second and try again."""
        log = logger()
        while not self._stopping.is_set():
            if not self._watched.wait(_POLL_S):
                continue
            try:
                with self._farm.feed.subscription(EVENTS) as events:
                    self._ring_all()  # whatever was missed before we listened
                    self._listen(events)
            except RedisError as err:
                log.warning("hub.polling", error=type(err).__name__)
                self._ring_all()
                self._stopping.wait(_POLL_S)

    def stop(self) -> None:
        """End the thread and let every waiter go."""
        self._stopping.set()
        self._watched.set()  # so that it ends at once
        self._ring_all()

    def _listen(self, events: Subscription) -> None:
        while self._watched.is_set() and not self._stopping.is_set():
            message = events.next(_LISTEN_S)
            if message is not None:
                self._pass_on(message)

    def _pass_on(self, message: Values) -> None:
        with self._lock:
            waiting = tuple(self._watches.get(message["event"]["video_id"], ()))
            followers = tuple(self._followers)
        for watch in waiting:
            watch.ring()
        for follower in followers:
            follower.hear(message)

    def _ring_all(self) -> None:
        with self._lock:
            watches = [watch for some in self._watches.values() for watch in some]
            waiting: list[Watch | Follower] = [*watches, *self._followers]
        for watch in waiting:
            watch.ring()


class Slot:
    """A place among the held-open answers; giving it back twice is fine."""

    def __init__(self, hub: Hub, key_id: str) -> None:
        """Taken by `Hub.hold`."""
        self._hub = hub
        self._key_id = key_id
        self._lock = threading.Lock()
        self._taken = True

    def release(self) -> None:
        """Give the place back."""
        with self._lock:
            if self._taken:
                self._taken = False
                self._hub.release(self._key_id)
