"""What tests of charges and shares say often: what was used, and attempts that took their time."""

from sqlalchemy import func, select, text, update

from shared.jobs import lifecycle
from shared.machinery.farm import Farm
from shared.machinery.tables import Attempt, Tenant, Video
from tests.services.jobs import RESULT, ago, submit, take

_COLUMNS = ", ".join(f'"{one.name}"' for one in Video.__table__.c if one.name != "id")
_COPIES = f"""
WITH made AS (
  INSERT INTO videos (id, {_COLUMNS})
  SELECT left(id, 27) || to_char(n, 'FM00000'), {_COLUMNS}
    FROM videos CROSS JOIN generate_series(1, :copies) AS n WHERE id = :id
  RETURNING id)
INSERT INTO events (video_id, seq, type, attempt, data)
SELECT made.id, 1, 'state', 0, first.data
  FROM made CROSS JOIN events AS first WHERE first.video_id = :id
"""


def used(farm: Farm, tenant: str = "default") -> float:
    with farm.db.connect() as db:
        return db.scalar(select(Tenant.used_s).where(Tenant.name == tenant))


def taken(farm: Farm) -> list[float]:
    """How long each ended attempt held its group, by its own row; oldest end first."""
    seconds = func.extract("epoch", Attempt.ended_at - Attempt.claimed_at)
    ended = select(seconds).where(Attempt.ended_at.is_not(None)).order_by(Attempt.ended_at)
    with farm.db.connect() as db:
        return [float(one) for one in db.scalars(ended)]


def tenant_of(farm: Farm, claim: lifecycle.Claim) -> str:
    with farm.db.connect() as db:
        return db.scalar(select(Video.tenant).where(Video.id == claim.fence.video_id))


def let_it_take(farm: Farm, claim: lifecycle.Claim, seconds: float) -> None:
    """Let an attempt have begun some seconds ago."""
    with farm.db.connect() as db:
        mine = (Attempt.video_id == claim.fence.video_id, Attempt.number == claim.fence.attempt)
        db.execute(update(Attempt).where(*mine).values(claimed_at=ago(seconds)))


def finish(farm: Farm, claim: lifecycle.Claim, seconds: float) -> str:
    """Complete a video after so long; gives its tenant."""
    let_it_take(farm, claim, seconds)
    lifecycle.complete(farm, claim.fence, RESULT, {})
    return tenant_of(farm, claim)


def run(farm: Farm, seconds: float) -> str:
    """Claim the next video and complete it after so long; gives its tenant."""
    return finish(farm, take(farm), seconds)


def flood(farm: Farm, videos: int, **given: object) -> None:
    """Let so many equal videos wait, in no time."""
    first = submit(farm, **given)
    with farm.db.connect() as db:
        db.execute(text("SET statement_timeout = 0"))
        db.execute(text(_COPIES), {"id": first, "copies": videos - 1})
