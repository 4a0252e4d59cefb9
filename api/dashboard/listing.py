"""The list of jobs: its filters live in the URL, its cursor is an id."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode

from werkzeug.datastructures import MultiDict

from api.dashboard.views import Line, line
from api.dashboard.words import now, short_id
from shared.jobs import batches, groups, keys, queries
from shared.jobs.ledger import Values
from shared.machinery.farm import Farm
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.ids import is_id
from shared.vocabulary.states import VideoState
from shared.vocabulary.video import BatchObject

PAGE: Final = 30
SPANS: Final = {  # what `since` may be: how long ago, and how that reads
    "1h": (timedelta(hours=1), "last hour"),
    "24h": (timedelta(hours=24), "last 24 hours"),
    "7d": (timedelta(days=7), "last 7 days"),
}
_BATCHES: Final = 20  # to choose from; older ones are reached from their videos


@dataclass(frozen=True, slots=True)
class Asked:
    """What the URL asks for; what is not understood narrows nothing."""

    text: str
    state: str
    model: str
    group: str
    key: str  # a key's name
    batch: str
    since: str  # one of SPANS
    view: str  # list or grid; empty: whichever fits
    after: str | None  # older than this id
    before: str | None  # newer than this id

    @property
    def filters(self) -> dict[str, str]:
        """The filters that are set, as they stand in the URL."""
        given = {"q": self.text, "state": self.state, "model": self.model, "group": self.group}
        given |= {"key": self.key, "batch": self.batch, "since": self.since}
        return {name: value for name, value in given.items() if value}

    def link(self, **changes: str | None) -> str:
        """A URL of this list with other parameters; None leaves one out."""
        asked = self.filters | {"view": self.view} | changes
        wanted = {name: value for name, value in asked.items() if value}
        return f"/jobs?{urlencode(wanted)}" if wanted else "/jobs"

    @property
    def is_grid(self) -> bool:
        """Tell whether posters are shown; those of a batch are, unless a list is asked for."""
        return self.view == "grid" or (bool(self.batch) and self.view != "list")

    @property
    def ticked(self) -> str:
        """Where the buttons send to; the filters go along, for all that match them."""
        return self.link(view=None).replace("/jobs", "/jobs/ticked", 1)

    @property
    def poll(self) -> str:
        """Where the same rows come from as a fragment."""
        return self.link(after=self.after, before=self.before).replace("/jobs", "/_/jobs", 1)


def asked(args: "MultiDict[str, str]") -> Asked:
    """Read the URL."""
    state, batch, since = (args.get(name, "") for name in ("state", "batch", "since"))
    view = args.get("view", "")
    return Asked(
        text=args.get("q", "").strip()[:200],
        state=state if state in set(VideoState) else "",
        model=args.get("model", "")[:64],
        group=args.get("group", "")[:32],
        key=args.get("key", "")[:64],
        batch=batch if is_id(batch, "batch") else "",
        since=since if since in SPANS else "",
        view=view if view in {"list", "grid"} else "",
        after=_cursor(args.get("after")),
        before=_cursor(args.get("before")),
    )


@dataclass(frozen=True, slots=True)
class BatchHead:
    """What is said of a batch above its videos."""

    shown: BatchObject
    title: str
    words: str  # how many are where
    is_live: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of the list and the ways on."""

    asked: Asked
    lines: list[Line]
    older: str | None = None
    newer: str | None = None
    batch: BatchHead | None = None  # the one that the list is narrowed to


@dataclass(frozen=True, slots=True)
class Choices:
    """What the list can be narrowed to: a value and its words each."""

    state: list[tuple[str, str]]
    model: list[tuple[str, str]]
    group: list[tuple[str, str]]
    key: list[tuple[str, str]]
    batch: list[tuple[str, str]]
    since: list[tuple[str, str]]


def choices(farm: Farm, wanted: Asked, tenant: str | None) -> Choices:
    """Read what there is; a value in the URL stays one, also when nothing has it any more."""
    known = sorted({one["name"] for one in groups.all_groups(farm)})
    names = sorted({one["name"] for one in keys.all_keys(farm, tenant)})
    return Choices(
        state=[(state.value, f"{state.glyph} {state.word}") for state in VideoState],
        model=_with([(name, name) for name in MODELS], wanted.model),
        group=_with([(name, name) for name in known], wanted.group),
        key=_with([(name, name) for name in names], wanted.key),
        batch=_with(_batch_words(farm, tenant), wanted.batch, short_id(wanted.batch)),
        since=[(name, words) for name, (_, words) in SPANS.items()],
    )


def _batch_words(farm: Farm, tenant: str | None) -> list[tuple[str, str]]:
    newest = batches.newest(farm, tenant, _BATCHES)
    return [(one["id"], one["name"] or f"batch {short_id(one['id'])}") for one in newest]


def _with(known: list[tuple[str, str]], value: str, words: str = "") -> list[tuple[str, str]]:
    if not value or any(one == value for one, _ in known):
        return known
    return [*known, (value, words or value)]


def which(wanted: Asked, tenant: str | None) -> queries.Filter:
    """Phrase what the URL asks for as a filter of rows."""
    span = SPANS.get(wanted.since)
    return queries.Filter(
        tenant=tenant,
        states=[VideoState(wanted.state)] if wanted.state else (),
        model=wanted.model or None,
        group=wanted.group or None,
        key_name=wanted.key or None,
        batch=wanted.batch or None,
        text=wanted.text or None,
        created_after=now() - span[0] if span else None,
    )


def listing(farm: Farm, wanted: Asked, tenant: str | None) -> Listing:
    """Read the rows of a page; a cursor whose row is gone still works."""
    if batch := batches.one(farm, wanted.batch, tenant) if wanted.batch else None:
        return _of_batch(farm, wanted, tenant, batch)
    up = wanted.before is not None
    cursor = wanted.before or wanted.after
    page = queries.page(farm, which(wanted, tenant), limit=PAGE, after=cursor, ascending=up)
    rows: list[dict[str, Any]] = page.rows[::-1] if up else page.rows
    has_newer = page.has_more if up else wanted.after is not None
    has_older = up or page.has_more
    return Listing(
        asked=wanted,
        lines=[line(row) for row in rows],
        older=wanted.link(after=rows[-1]["id"]) if rows and has_older else None,
        newer=wanted.link(before=rows[0]["id"]) if rows and has_newer else None,
    )


def _of_batch(farm: Farm, wanted: Asked, tenant: str | None, batch: Values) -> Listing:
    """Show a batch whole and in its own order."""
    found = queries.page(farm, which(wanted, tenant), limit=batches.MOST, ascending=True)
    varied = {one["video_id"]: batches.differs_words(one["set"]) for one in batch["items"]}
    shown = batches.show(batch, "")
    head = BatchHead(
        shown,
        title=shown.name or f"Batch {short_id(shown.id)}",
        words=", ".join(f"{n} {VideoState(state).word}" for state, n in shown.counts.items() if n),
        is_live=shown.completed_at is None,
    )
    return Listing(wanted, [line(row, varied[row["id"]]) for row in found.rows], batch=head)


def _cursor(text: str | None) -> str | None:
    return text if text and is_id(text, "video") else None
