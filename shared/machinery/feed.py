"""Redis pub/sub: events and nudges, best effort. Whoever misses one reads Postgres."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

from redis.client import PubSub
from redis.exceptions import RedisError

from shared.machinery.courier import Courier
from shared.machinery.doorbell import redis_client
from shared.machinery.logs import logger
from shared.machinery.settings import Settings

EVENTS: Final = "events"
NUDGES: Final = "nudges"


class Feed:
    """Publishes JSON on the farm's channels, and hands out subscriptions."""

    def __init__(self, settings: Settings) -> None:
        """Prepare the client; connects at first use."""
        self._redis = redis_client(settings)
        self._courier = Courier("feed", self._send)
        self._prefix = settings.key_prefix
        self._log = logger()

    def publish(self, channel: str, message: dict[str, Any]) -> None:
        """Send to whoever listens now, soon; a failure is logged and forgotten."""
        self._courier.send((self._prefix + channel, json.dumps(message)))

    def _send(self, messages: list[tuple[str, str]]) -> None:
        line = self._redis.pipeline(transaction=False)
        for channel, text in messages:
            line.publish(channel, text)
        try:
            line.execute()
        except RedisError as err:
            self._log.warning("feed.lost", messages=len(messages), error=type(err).__name__)

    def answers(self) -> bool:
        """Tell whether Redis answers now."""
        try:
            return bool(self._redis.ping())
        except RedisError:
            return False

    @contextmanager
    def subscription(self, channel: str) -> Generator["Subscription"]:
        """Listen to a channel until the block ends.

        Raises:
            RedisError: when Redis cannot be reached; fall back to Postgres and try again later.
        """
        pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
        try:
            pubsub.subscribe(self._prefix + channel)
            yield Subscription(pubsub)
        finally:
            pubsub.close()

    def close(self) -> None:
        """Send what waits, if Redis answers; drop the connections."""
        if self._courier.close():
            self._redis.close()


class Subscription:
    """One listener on one channel."""

    def __init__(self, pubsub: PubSub) -> None:
        """Take over a subscribed connection."""
        self._pubsub = pubsub

    def next(self, timeout_s: float) -> dict[str, Any] | None:
        """Wait for the next message, at most so long; None when none came.

        Raises:
            RedisError: when the connection is gone.
        """
        message: dict[str, Any] | None = self._pubsub.get_message(timeout=timeout_s)
        return json.loads(message["data"]) if message else None
