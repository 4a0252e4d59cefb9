"""The two statements of intake, each for several orders: what decides about them; their rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Connection,
    String,
    Text,
    bindparam,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from shared.jobs import charges, groups
from shared.jobs.ledger import Values
from shared.jobs.orders import Order
from shared.jobs.queries import PLACE_LIMIT
from shared.machinery.tables import GpuGroup, Video
from shared.vocabulary.states import VideoState

FIRST: Final[Values] = {"from": None, "to": VideoState.QUEUED.value}  # what the first event tells
Key = tuple[str, str | None]  # a tenant, and its Idempotency-Key


@dataclass(frozen=True, slots=True)
class Seen:
    """What decides about orders, as of one moment."""

    made_before: Mapping[Key, tuple[str, str]]  # of what request, and what it made
    paused: bool
    reason: str | None
    dispatches: bool
    busy: frozenset[str]  # tenants that have something waiting or running
    written: int  # the number of the next transaction
    groups: list[Values]  # what each offers


def look(db: Connection, orders: Sequence[Order]) -> Seen:
    """Read what decides about some orders."""
    asked = {
        "tenants": [order.tenant for order in orders],
        "keys": [order.idempotency_key for order in orders],
    }
    rows = db.execute(_LOOK, asked).mappings().all()
    about = rows[0]
    offers = [column.name for column in groups.OFFER]
    known = [{name: row[name] for name in offers} for row in rows if row["name"] is not None]
    return Seen(
        made_before={(t, key): (print_, made) for t, key, print_, made in about["made"] or ()},
        paused=about["paused"],
        reason=about["reason"],
        dispatches=about["dispatches"],
        busy=frozenset(about["busy"]),
        written=about["written"],
        groups=[groups.judged(one) for one in known],
    )


_ABOUT: Final = (
    text("""
SELECT what IS NOT NULL AS paused, reason,
       NOT EXISTS (SELECT FROM pauses WHERE what = 'dispatch') AS dispatches,
       CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint) AS written,
       ARRAY(SELECT DISTINCT asking
               FROM unnest(:tenants) AS asking
              WHERE EXISTS (SELECT FROM videos WHERE tenant = asking
                               AND state IN ('queued', 'in_progress'))) AS busy,
       (SELECT jsonb_agg(jsonb_build_array(tenant, key, fingerprint, object_id))
          FROM unnest(:tenants, :keys) AS asked (tenant, key)
          JOIN idempotency USING (tenant, key)) AS made
  FROM (SELECT) AS here
  LEFT JOIN pauses ON what = 'intake'
""")
    .bindparams(bindparam("tenants", type_=ARRAY(Text)), bindparam("keys", type_=ARRAY(Text)))
    .columns(
        paused=Boolean,
        reason=String,
        dispatches=Boolean,
        written=BigInteger,
        busy=ARRAY(Text),
        made=JSONB,
    )
)
_LOOK: Final = (
    select(about := _ABOUT.subquery(), *groups.OFFER)
    .select_from(about.outerjoin(GpuGroup, groups.NOT_FORGOTTEN))
    .order_by(GpuGroup.name)
)


def store(db: Connection, new: Mapping[str, Order], seen: Seen) -> dict[str, Values]:
    """Write videos, first events and idempotency rows in one statement.

    Args:
        db: a connection.
        new: orders by the ids of their videos.
        seen: what was looked at before.

    Returns:
        By id the row as `queries.one` reads it, with its `place`; without those whose key has
        been taken in the meantime.
    """
    sleeping = {order.tenant for order in new.values()} - seen.busy
    if sleeping:
        db.execute(charges.wake(sorted(sleeping)))
    # in one order everywhere: two that hold a key that the other waits for would wait for ever
    ordered = sorted(new.items(), key=lambda one: (one[1].tenant, one[1].idempotency_key or ""))
    videos = {video_id: _video(video_id, order) for video_id, order in ordered}
    sent = [_sent(videos[video_id], order) for video_id, order in ordered]
    made = db.execute(_STORE, {"orders": json.dumps(sent)}).mappings().all()
    rows = {row["id"]: _UNSET | videos[row["id"]] | dict(row) for row in made}
    for row in rows.values():
        row["place"] = row.pop("before") + 1 + sum(_is_before(one, row) for one in rows.values())
    return rows


def _is_before(one: Values, other: Values) -> bool:
    """Tell whether a video comes first, of two that arrive together."""
    turn = (-one["priority"], one["id"])
    return one["model"] == other["model"] and turn < (-other["priority"], other["id"])


_UNSET: Final[Values] = dict.fromkeys(column.name for column in Video.__table__.c)


def _sent(video: Values, order: Order) -> Values:
    return {
        "video": {name: value for name, value in video.items() if value is not None},
        "key": order.idempotency_key,
        "fingerprint": order.fingerprint,
        "start_within_s": order.delivery.start_within_s,
        "finish_within_s": order.delivery.finish_within_s,
    }


def _video(video_id: str, order: Order) -> Values:
    """The columns of a new video that an order decides."""
    spec, delivery, source = order.spec, order.delivery, order.source
    return {
        "id": video_id,
        "tenant": order.tenant,
        "key_id": order.key_id,
        "key_name": order.key_name,
        "state": VideoState.QUEUED.value,
        "attempt": 0,
        "seq": 1,
        "attempts_left": delivery.max_attempts,
        "model": spec.model,
        "spec": spec.model_dump(mode="json"),
        "asked": list(order.asked),
        "tokens": spec.tokens,
        "image_sha256": spec.image.sha256 if spec.image else None,
        "priority": delivery.priority,
        "group_wanted": delivery.group,
        "user": delivery.user,
        "metadata": delivery.metadata,
        "warnings": list(order.warnings),
        "remixed_from": source.video_id if source and source.made == "remixed" else None,
        "batch_id": order.batch_id,
        "promoted_from": source.video_id if source and source.made == "promoted" else None,
        "webhook_url": delivery.webhook_url,
        "expires_in_s": delivery.expires_in_s,
        "progress": 0,
    }


_GIVEN: Final = (
    "id, tenant, key_id, key_name, state, attempt, seq, attempts_left, model, spec, asked, tokens,"
    ' image_sha256, priority, group_wanted, "user", metadata, warnings, remixed_from,'
    " promoted_from, batch_id, webhook_url, expires_in_s, progress"
)
_STORE: Final = text(f"""
WITH given AS (
  SELECT new.*, sent ->> 'key' AS taken_key, sent ->> 'fingerprint' AS taken_for,
         now() + make_interval(secs => CAST(sent ->> 'start_within_s' AS float8)) AS starts,
         now() + make_interval(secs => CAST(sent ->> 'finish_within_s' AS float8)) AS finishes
    FROM jsonb_array_elements(CAST(:orders AS jsonb)) AS sent
   CROSS JOIN LATERAL jsonb_populate_record(CAST(NULL AS videos), sent -> 'video') AS new),
free AS (
  INSERT INTO idempotency (tenant, key, fingerprint, object_id)
  SELECT tenant, taken_key, taken_for, coalesce(batch_id, id) FROM given
   WHERE taken_key IS NOT NULL
   ORDER BY tenant, taken_key
  ON CONFLICT DO NOTHING
  RETURNING object_id),
made AS (
  INSERT INTO videos ({_GIVEN}, start_by, finish_by)
  SELECT {_GIVEN}, starts, finishes FROM given
   WHERE taken_key IS NULL OR coalesce(batch_id, id) IN (SELECT object_id FROM free)
  RETURNING id, seq, model, priority, created_at, run_after, start_by, finish_by),
recorded AS (
  INSERT INTO events (video_id, seq, type, attempt, data)
  SELECT id, seq, 'state', 0, CAST(:first AS jsonb) FROM made),
turns AS (
  SELECT model, priority,
         (SELECT count(*) FROM (
            SELECT FROM videos
             WHERE videos.state = 'queued' AND videos.model = those.model
               AND videos.priority >= those.priority  -- bounds what is read of the index
               AND (videos.priority > those.priority OR videos.id < those.first)
             LIMIT {PLACE_LIMIT}) AS ahead) AS before
    FROM (SELECT model, priority, min(id) AS first
            FROM given GROUP BY model, priority) AS those)
SELECT made.*, made.created_at AS at, before FROM made JOIN turns USING (model, priority)
""").bindparams(first=json.dumps(FIRST))  # noqa: S608 - of constants alone
