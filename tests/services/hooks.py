"""What tests of webhooks say often: who listens, what is logged, one try for all that is due."""

import ssl

from sqlalchemy import func, select, update

from shared.jobs import deliveries, keys, lifecycle, webhooks
from shared.jobs.deliveries import Answer
from shared.jobs.outbox import FINAL_EVENTS
from shared.machinery.tables import WebhookDelivery
from tests.services.jobs import ago, claimed
from worker.deliveries import deliver
from worker.outgoing import Sender

NO = Answer(500, 3)
RESULT = {"bytes": 1, "sha256": "0" * 64, "files": {}, "codec": "h264"}
RESULT |= {"width": 64, "height": 64, "frames": 5, "fps": 16}


def completed(farm, **given) -> str:
    claim = claimed(farm, **given)
    lifecycle.complete(farm, claim.fence, RESULT, {})
    return claim.fence.video_id


def listen(farm, url: str, *events: str, tenant: str = "default") -> dict:
    keys.ensure_tenant(farm, tenant)
    given = {"url": url, "events": list(events or FINAL_EVENTS)}
    return webhooks.add(farm, tenant, given)


def log(farm) -> list[dict]:
    """The deliveries, oldest first."""
    return webhooks.deliveries(farm, None, state=None, after=None, limit=100).rows[::-1]


def told(farm) -> list[tuple]:
    return sorted((one["type"], one["url"]) for one in log(farm))


def send(farm) -> int:
    """Make one try for everything that is due."""
    tries = 0
    sender = Sender(ssl.create_default_context(), farm.settings.webhook_allow_private, total_s=5)
    while due := deliveries.claim(farm):
        deliver(farm, sender, due)
        tries += 1
    return tries


def let_be_due(farm) -> None:
    with farm.db.connect() as db:
        db.execute(update(WebhookDelivery).values(next_at=ago(1)))


def due_in_s(farm) -> float:
    with farm.db.connect() as db:
        left = func.extract("epoch", WebhookDelivery.next_at - func.now())
        return float(db.scalar(select(left)))


def secret(farm) -> str:
    return webhooks.secrets_of(farm, "default").current
