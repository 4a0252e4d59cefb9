"""What is true of the ledger at any moment: rules over rows and files, which are only read.

Every write is one statement, so each rule holds in every snapshot, whatever was killed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from sqlalchemy import Select, func, select, text
from sqlalchemy.orm import InstrumentedAttribute

from shared.jobs import removal
from shared.jobs.ledger import Values
from shared.machinery.database import snapshot
from shared.machinery.farm import Farm
from shared.machinery.tables import File, Video
from shared.vocabulary.states import MOVES, VideoState

T = TypeVar("T")

_LATE_S: Final = 30  # a lease that ran out is taken back within this time
_PAGE: Final = 500
_FINAL: Final = [state.value for state in MOVES if state.is_final]
_MOVES: Final = ["- queued", *(f"{old} {new}" for old in MOVES for new in MOVES[old])]
RULES: Final[dict[str, str]] = {
    "a video that runs has a live lease": """
        SELECT id, format('its lease ran out at %s', lease_until)
          FROM videos
         WHERE state = 'in_progress'
           AND (lease_until IS NULL OR now() - make_interval(secs => :late_s)
                -- after a restart of the database nobody is counted as lost for one lease
                > greatest(lease_until,
                           pg_postmaster_start_time() + make_interval(secs => :lease_s)))""",
    "a state has what belongs to it": """
        SELECT id, format('it is %s', state)
          FROM videos
         WHERE (state = 'in_progress') <> (lease_until IS NOT NULL)
            OR (state = ANY(:final)) <> (completed_at IS NOT NULL)
            OR (state = 'completed') <> (result IS NOT NULL)
            OR (state IN ('failed', 'cancelled') AND error IS NULL)""",
    "events are numbered without a gap": """
        SELECT id, format('of events 1 to %s it has %s', seq, told.number)
          FROM videos
         CROSS JOIN LATERAL (SELECT count(*) AS number, min(seq) AS first, max(seq) AS last
                               FROM events WHERE video_id = videos.id) AS told
         WHERE told.first IS DISTINCT FROM 1 OR told.last IS DISTINCT FROM videos.seq
            OR (told.number <> videos.seq AND (completed_at IS NULL
                -- upkeep forgets the steps of videos that ended a day ago
                OR completed_at > now() - interval '23 hours'))""",
    "a history follows the moves of a video": """
        SELECT video_id, format('event %s moves it from %s to %s, it was %s', seq,
                                coalesce(old, '-'), new, coalesce(before, '-'))
          FROM (SELECT video_id, seq, data ->> 'from' AS old, data ->> 'to' AS new,
                       lag(data ->> 'to') OVER (PARTITION BY video_id ORDER BY seq) AS before
                  FROM events WHERE type = 'state') AS told
         WHERE old IS DISTINCT FROM before
            OR coalesce(old, '-') || ' ' || new <> ALL(:moves)""",
    "a history ends where the video is": """
        SELECT id, format('it is %s, its last event says %s', state, coalesce(told.new, '-'))
          FROM videos
          LEFT JOIN LATERAL (SELECT data ->> 'to' AS new FROM events
                              WHERE video_id = id AND type = 'state'
                              ORDER BY seq DESC LIMIT 1) AS told ON TRUE
         WHERE told.new IS DISTINCT FROM state""",
    "attempts are numbered, and one is open while the video runs": """
        SELECT id, format('it is %s in attempt %s; %s attempts, %s open', state, attempt,
                          made.number, made.open)
          FROM videos
         CROSS JOIN LATERAL (SELECT count(*) AS number, max(number) AS last,
                                    count(*) FILTER (WHERE ended_at IS NULL) AS open,
                                    max(number) FILTER (WHERE ended_at IS NULL) AS open_one
                               FROM attempts WHERE video_id = id) AS made
         WHERE made.number <> attempt OR coalesce(made.last, 0) <> attempt
            OR made.open <> CASE WHEN state = 'in_progress' THEN 1 ELSE 0 END
            OR made.open_one <> attempt""",
    "attempts do not overlap": """
        SELECT later.video_id, format('attempt %s began before attempt %s had ended',
                                      later.number, earlier.number)
          FROM attempts AS later
          JOIN attempts AS earlier ON earlier.video_id = later.video_id
           AND earlier.number < later.number
         WHERE coalesce(earlier.ended_at, now()) > later.claimed_at + interval '1 second'""",
    "a completed video has one result, of its last attempt": """
        SELECT id, format('it is %s in attempt %s; %s attempts completed', state, attempt,
                          made.number)
          FROM videos
         CROSS JOIN LATERAL (SELECT count(*) AS number, max(number) AS last
                               FROM attempts
                              WHERE video_id = id AND outcome = 'completed') AS made
         WHERE made.number <> CASE WHEN state = 'completed' THEN 1 ELSE 0 END
            OR made.last <> attempt OR (result ->> 'attempt')::int > attempt""",
    "a tenant is charged what its attempts cost": """
        SELECT name, format('it has used %s s, its attempts cost %s s', used_s,
                            purged_s + told.cost_s)
          FROM tenants
         CROSS JOIN LATERAL (SELECT coalesce(sum(charged_s), 0) AS cost_s
                               FROM attempts JOIN videos ON id = video_id
                              WHERE tenant = name) AS told
         WHERE abs(used_s - purged_s - told.cost_s) > 1e-6 * greatest(1, used_s)
            OR used_s < -1e-6""",
    "a batch counts its videos that are not over": """
        SELECT id, format('it counts %s, there are %s', unfinished, told.number)
          FROM batches
         CROSS JOIN LATERAL (SELECT count(*) AS number FROM videos
                              WHERE batch_id = batches.id AND completed_at IS NULL) AS told
         WHERE unfinished <> told.number""",
}
FILES: Final = "a result's files are there, byte for byte"
PICTURES: Final = "an uploaded file's picture is there, byte for byte"
STRAYS: Final = "every stored file belongs to a video or was uploaded"


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that does not hold, and of what."""

    rule: str
    of: str  # a video, a tenant, a batch, an uploaded file or a stored key
    what: str


def broken(farm: Farm, late_s: float = _LATE_S) -> Iterator[Broken]:
    """Find what breaks a rule, in the ledger first, then on the disk.

    Args:
        farm: the handles.
        late_s: how long after its end a lease may stand before it counts as forgotten.
    """
    yield from _in_ledger(farm, late_s)
    for video_id, named in _results(farm):
        for file in named.values():
            if what := _wrong(farm, file):
                yield Broken(FILES, video_id, f"{file['key']} {what}")
    for file_id, sha256 in _uploads(farm):
        stored = {"key": removal.image_key(sha256), "sha256": sha256}
        if what := _wrong(farm, stored):
            yield Broken(PICTURES, file_id, f"{stored['key']} {what}")
    for key in removal.strays(farm):
        yield Broken(STRAYS, key, "nothing refers to it")


def _in_ledger(farm: Farm, late_s: float) -> list[Broken]:
    given: Values = {"lease_s": farm.settings.lease_s, "late_s": late_s}
    given |= {"final": _FINAL, "moves": _MOVES}
    found: list[Broken] = []
    with snapshot(farm.db) as db:
        db.execute(text("SET LOCAL statement_timeout = 0"))  # it reads everything there is
        for rule, statement in RULES.items():
            wanted = {name: value for name, value in given.items() if f":{name}" in statement}
            found += [Broken(rule, *row) for row in db.execute(text(statement), wanted)]
    return found


def _results(farm: Farm) -> Iterator[tuple[str, dict[str, Values]]]:
    """The files of all results that have not expired."""
    statement = (
        select(Video.id, Video.result["files"])
        .where(Video.state == VideoState.COMPLETED, Video.delete_requested_at.is_(None))
        .where(~Video.result.has_key("expired"))
    )
    return _all(farm, statement, Video.id)


def _uploads(farm: Farm) -> Iterator[tuple[str, str]]:
    """The pictures of all uploaded files that have not expired."""
    return _all(farm, select(File.id, File.sha256).where(File.expires_at > func.now()), File.id)


def _all(
    farm: Farm, statement: Select[str, T], by: InstrumentedAttribute[str]
) -> Iterator[tuple[str, T]]:
    """Read rows of an id and a fact, page by page."""
    last = ""
    while True:
        with farm.db.connect() as db:
            page = statement.where(by > last).order_by(by).limit(_PAGE)
            rows = db.execute(page).all()
        if not rows:
            return
        yield from ((row[0], row[1]) for row in rows)
        last = rows[-1][0]


def _wrong(farm: Farm, file: Values) -> str:
    """Tell what is wrong with a stored file, if anything is."""
    found = farm.storage.sha256(file["key"])
    if found is None:
        return "is not there"
    return "" if found == file["sha256"] else "has other bytes than were stored"
