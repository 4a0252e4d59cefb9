"""Sends webhooks: takes what is due, renders, signs and posts it, and writes down the answer."""

import base64
import hashlib
import hmac
import json
import ssl
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from shared.jobs import batches, deliveries, presenters, queries, webhooks
from shared.jobs.deliveries import Due
from shared.machinery.farm import Farm
from shared.machinery.logs import logger
from shared.vocabulary.metrics import DELIVERIES
from worker.outgoing import Sender

_LOOK_S: Final = 1.0
_THREADS: Final = 16
_LANE_THREADS: Final = 4  # so that one slow receiver leaves room for the others


class Deliverer(threading.Thread):
    """A thread that looks for due deliveries, over a pool that sends them."""

    def __init__(self, farm: Farm) -> None:
        """Prepare; `start()` begins."""
        super().__init__(name="deliveries", daemon=True)
        self._farm = farm
        private = farm.settings.webhook_allow_private
        self._sender = Sender(ssl.create_default_context(), allow_private=private)
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._lanes = Counter[str]()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Send, whatever the database says."""
        log = logger()
        with ThreadPoolExecutor(_THREADS, "delivery") as pool:
            while not self._ended.is_set():
                try:
                    self._send_what_is_due(pool)
                except SQLAlchemyError as err:
                    log.warning("deliveries.failed", error=type(err).__name__)
                self._wake.wait(_LOOK_S)
                self._wake.clear()

    def stop(self) -> None:
        """Begin no other try; `join` waits for those under way, 15 s at most."""
        self._ended.set()
        self._wake.set()

    def _send_what_is_due(self, pool: ThreadPoolExecutor) -> None:
        while not self._ended.is_set():
            with self._lock:
                busy = [lane for lane, count in self._lanes.items() if count >= _LANE_THREADS]
                if self._lanes.total() >= _THREADS:
                    return
            due = deliveries.claim(self._farm, busy)
            if due is None:
                return
            with self._lock:
                self._lanes[due.lane] += 1
            pool.submit(self._try, due)

    def _try(self, due: Due) -> None:
        try:
            deliver(self._farm, self._sender, due)
        except Exception as err:  # noqa: BLE001 - the end of a thread; after its lease it is sent again
            logger().warning("delivery.failed", id=due.id, error=type(err).__name__)
        finally:
            with self._lock:
                self._lanes[due.lane] -= 1
            self._wake.set()


def deliver(farm: Farm, sender: Sender, due: Due) -> None:
    """Make one try and write down what came of it."""
    body = due.body or _body(farm, due)
    if body is None:  # what it tells of was deleted in this moment, and takes it along
        return
    signing = webhooks.secrets_of(farm, due.tenant).all
    answer = sender.post(due.url, body.encode(), headers(due, body, signing))
    kept = deliveries.record(farm, due, answer)
    again = "dead" if deliveries.is_last(due, answer) else "failed"
    farm.meters.count(DELIVERIES, outcome="delivered" if answer.is_good else again)
    logger().info(
        "delivery.tried",
        id=due.id,
        type=due.type,
        tries=due.tries,
        status=answer.status,
        problem=answer.problem,
        recorded=kept,
    )


def headers(due: Due, body: str, signing: Iterable[str]) -> dict[str, str]:
    """Write the headers of a try, signed with each secret (Standard Webhooks 1.0)."""
    sent = str(int(due.tried_at.timestamp()))
    text = f"{due.id}.{sent}.{body}".encode()
    return {
        "content-type": "application/json",
        "user-agent": "wanfarm",
        "connection": "close",
        "webhook-id": due.id,
        "webhook-timestamp": sent,
        "webhook-signature": " ".join(f"v1,{_signature(one, text)}" for one in signing),
    }


def _signature(secret: str, text: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()


def _body(farm: Farm, due: Due) -> str | None:
    """Render what every try will carry; None when what it tells of is gone."""
    data = _data(farm, due)
    if data is None:
        return None
    event = {
        "id": due.id,
        "object": "event",
        "type": due.type,
        "created_at": int(due.at.timestamp()),
        "timestamp": due.at.isoformat(timespec="milliseconds"),
        "data": data,
    }
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return deliveries.keep_body(farm, due, text)


def _data(farm: Farm, due: Due) -> dict[str, Any] | None:
    """Show what an event tells of: a video, a batch, or in a test the endpoint."""
    base_url = (farm.settings.public_url or "").rstrip("/")
    if due.batch_id is not None:
        batch = batches.one(farm, due.batch_id, None)
        return batches.show(batch, base_url).model_dump(mode="json") if batch else None
    if due.video_id is not None:
        row = queries.one(farm, due.video_id, None)
        return presenters.video(farm, row, base_url).model_dump(mode="json") if row else None
    return {"id": due.endpoint_id, "object": "webhook"}
