"""The Celery client: tell a queue that there may be work. Losing a ring is harmless."""

from collections import Counter
from typing import Final

from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from shared.machinery.courier import Courier
from shared.machinery.logs import logger
from shared.machinery.meters import Meters
from shared.machinery.settings import Settings
from shared.vocabulary.metrics import DOORBELLS_LOST

RING: Final = "wanfarm.ring"
ENOUGH: Final = 64  # rings that wait: whoever is idle hears one of them
_FAULTS: Final = (OperationalError, RedisError, OSError)


def celery_app(settings: Settings, *, answer_s: float = 5) -> Celery:
    """Build the Celery app that rings and is rung.

    Redis and Celery are trusted with nothing but "look": no results, no retries, no late
    acknowledgement, so that a redelivery never runs a job twice. Every wait on the broker is
    bounded by `answer_s`.
    """
    app = Celery("wanfarm", broker=settings.redis_url, set_as_current=False)
    app.conf.update(
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        task_publish_retry=False,
        task_create_missing_queues=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_transport_options={
            "global_keyprefix": settings.key_prefix,
            "socket_timeout": answer_s,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "visibility_timeout": 43_200,
            "max_retries": 0,
        },
    )
    return app


def queue_of(model: str) -> str:
    """Name the queue on which workers of a model listen."""
    return f"wanfarm.{model}"


class Doorbell:
    """Rings for a model; a ring that fails is logged, counted and forgotten."""

    def __init__(self, settings: Settings, meters: Meters) -> None:
        """Prepare the client; connects at the first ring."""
        self._app = celery_app(settings, answer_s=2)  # the tick goes on after it
        self._redis = redis_client(settings)
        self._prefix = settings.key_prefix
        self._courier = Courier("doorbell", self._ring_for)
        self._meters = meters
        self._log = logger()

    def ring(self, model: str, times: int = 1) -> bool:
        """Say that there may be work for a model; bounded in time, never raises for the broker.

        Args:
            model: its id.
            times: how many idle workers should look.

        Returns:
            Whether a ring waits to be heard; no other is added to many.
        """
        try:
            for _ in range(min(times, ENOUGH - self._unheard(model))):
                self._app.send_task(RING, queue=queue_of(model), retry=False)
        except _FAULTS as err:
            self._log.warning("doorbell.lost", model=model, error=type(err).__name__)
            self._meters.count(DOORBELLS_LOST)
            return False
        return True

    def ring_soon(self, model: str) -> None:
        """Ring once, and let nobody wait for that."""
        self._courier.send(model)

    def _ring_for(self, models: list[str]) -> None:
        for model, times in Counter(models).items():
            self.ring(model, times)

    def waiting(self, model: str) -> int | None:
        """Count the rings not yet heard, or None when Redis cannot say."""
        try:
            return self._unheard(model)
        except RedisError:
            return None

    def _unheard(self, model: str) -> int:
        return int(self._redis.llen(self._prefix + queue_of(model)))

    def close(self) -> None:
        """Ring for what waits, if Redis answers; drop the connections."""
        if self._courier.close():
            self._app.close()
            self._redis.close()


def redis_client(settings: Settings) -> Redis:
    """Connect to Redis with every wait bounded."""
    return Redis.from_url(
        settings.redis_url,
        socket_timeout=2,
        socket_connect_timeout=1,
        socket_keepalive=True,
        health_check_interval=10,
    )
