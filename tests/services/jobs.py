"""What the tests of the services say often: a small video, an offer, a row edited by hand."""

from typing import Any

from sqlalchemy import func, select, text, update

from shared.jobs import intake, keys, lifecycle, orders, queries
from shared.jobs.ledger import in_seconds
from shared.jobs.scheduling import Offer
from shared.machinery.farm import Farm
from shared.machinery.tables import Attempt, Event, Video
from shared.vocabulary.errors import JobFailure
from shared.vocabulary.spec import Delivery, FailureKind, GenerationSpec
from tests.conftest import wait_for

MODEL, OTHER_MODEL = "wan-tiny-t2v", "wan-tiny-ti2v"
OFFER = Offer("g0", "life-1", 1, (MODEL, OTHER_MODEL))
RESULT = {"bytes": 1, "sha256": "0" * 64, "files": {}}
DIED = JobFailure(FailureKind.RANK_DIED, "Rank 0 died (SIGKILL).")
_SPEC = {"model": MODEL, "prompt": "a ball", "width": 64, "height": 64, "frames": 5, "steps": 2}


def order(farm: Farm, **given: Any) -> orders.Order:
    """A small order; fields of order, delivery and spec by name."""
    tenant = given.pop("tenant", "default")
    keys.ensure_tenant(farm, tenant)
    delivery = {name: given.pop(name) for name in list(given) if name in Delivery.model_fields}
    about = {name: given.pop(name) for name in list(given) if name in orders.Order.__slots__}
    spec = GenerationSpec.model_validate(_SPEC | {"seed": 1} | given)
    about = {"key_id": "testkey1", "key_name": "test", "asked": tuple(given)} | about
    return orders.Order(tenant=tenant, spec=spec, delivery=Delivery(**delivery), **about)


def submit(farm: Farm, **given: Any) -> str:
    return intake.submit(farm, order(farm, **given)).video_id


def claimed(farm: Farm, **given: Any) -> lifecycle.Claim:
    """A video that an attempt holds."""
    video_id = submit(farm, **given)
    claim = take(farm)
    assert claim.fence.video_id == video_id
    return claim


def take(farm: Farm, offer: Offer = OFFER) -> lifecycle.Claim:
    claim = lifecycle.claim(farm, offer)
    assert claim is not None, "nothing was due"
    return claim


def completed(farm: Farm, **given: Any) -> str:
    claim = claimed(farm, **given)
    lifecycle.complete(farm, claim.fence, RESULT, {})
    return claim.fence.video_id


def row(farm: Farm, video_id: str) -> dict[str, Any]:
    found = queries.one(farm, video_id, None)
    assert found is not None
    return found


def edit(farm: Farm, video_id: str, **columns: Any) -> None:
    """Change a row by hand: how time moves in these tests."""
    with farm.db.connect() as db:
        db.execute(update(Video).where(Video.id == video_id).values(**columns))


def ago(seconds: float) -> Any:
    return in_seconds(-seconds)


def let_lease_expire(farm: Farm, video_id: str) -> None:
    """The lease runs out, on a Postgres that has been up for longer than one."""
    edit(farm, video_id, lease_until=ago(1))
    wait_for(lambda: uptime_s(farm) > farm.settings.lease_s)


def uptime_s(farm: Farm) -> float:
    with farm.db.connect() as db:
        return db.scalar(text("SELECT extract(epoch FROM now() - pg_postmaster_start_time())"))


def let_back_off_pass(farm: Farm, video_id: str) -> None:
    edit(farm, video_id, run_after=ago(1))


def states_of(farm: Farm, video_id: str) -> list[str]:
    """Where a video has been, from its ledger; the numbers of the lines have no gap."""
    events = queries.events(farm, video_id)
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    return [event["to"] for event in events if event["type"] == "state"]


def everything(farm: Farm) -> list[Any]:
    """All rows that a late writer could have touched."""
    with farm.db.connect() as db:
        return [
            db.execute(select(*table.__table__.c).order_by(*table.__table__.primary_key)).all()
            for table in (Video, Attempt, Event)
        ]


def seconds_until(farm: Farm, video_id: str, column: str) -> float:
    """How far ahead a moment of a row is, by the database's clock."""
    ahead = func.extract("epoch", getattr(Video, column) - func.now())
    with farm.db.connect() as db:
        return float(db.scalar(select(ahead).where(Video.id == video_id)))
