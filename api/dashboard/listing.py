"""The list of jobs: its filters live in the URL, its cursor is an id."""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from werkzeug.datastructures import MultiDict

from api.dashboard.views import Line, line
from api.dashboard.words import short_id
from shared.jobs import batches, queries
from shared.jobs.ledger import Values
from shared.machinery.farm import Farm
from shared.vocabulary.ids import is_id
from shared.vocabulary.states import VideoState
from shared.vocabulary.video import BatchObject

PAGE: Final = 30


@dataclass(frozen=True, slots=True)
class Asked:
    """What the URL asks for; what is not understood narrows nothing."""

    text: str
    state: str
    model: str
    group: str
    batch: str
    view: str  # list or grid; empty: whichever fits
    after: str | None  # older than this id
    before: str | None  # newer than this id

    @property
    def filters(self) -> dict[str, str]:
        """The filters that are set, as they stand in the URL."""
        given = {"q": self.text, "state": self.state, "model": self.model, "group": self.group}
        given["batch"] = self.batch
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
    def poll(self) -> str:
        """Where the same rows come from as a fragment."""
        return self.link(after=self.after, before=self.before).replace("/jobs", "/_/jobs", 1)


def asked(args: "MultiDict[str, str]") -> Asked:
    """Read the URL."""
    state, batch, view = (args.get(name, "") for name in ("state", "batch", "view"))
    return Asked(
        text=args.get("q", "").strip()[:200],
        state=state if state in set(VideoState) else "",
        model=args.get("model", "")[:64],
        group=args.get("group", "")[:32],
        batch=batch if is_id(batch, "batch") else "",
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


def listing(farm: Farm, wanted: Asked, tenant: str | None) -> Listing:
    """Read the rows of a page; a cursor whose row is gone still works."""
    which = queries.Filter(
        tenant=tenant,
        states=[VideoState(wanted.state)] if wanted.state else (),
        model=wanted.model or None,
        group=wanted.group or None,
        batch=wanted.batch or None,
        text=wanted.text or None,
    )
    if batch := batches.one(farm, wanted.batch, tenant) if wanted.batch else None:
        return _of_batch(farm, wanted, which, batch)
    up = wanted.before is not None
    cursor = wanted.before or wanted.after
    page = queries.page(farm, which, limit=PAGE, after=cursor, ascending=up)
    rows: list[dict[str, Any]] = page.rows[::-1] if up else page.rows
    has_newer = page.has_more if up else wanted.after is not None
    has_older = up or page.has_more
    return Listing(
        asked=wanted,
        lines=[line(row) for row in rows],
        older=wanted.link(after=rows[-1]["id"]) if rows and has_older else None,
        newer=wanted.link(before=rows[0]["id"]) if rows and has_newer else None,
    )


def _of_batch(farm: Farm, wanted: Asked, which: queries.Filter, batch: Values) -> Listing:
    """Show a batch whole and in its own order."""
    rows = queries.page(farm, which, limit=batches.MOST, ascending=True).rows
    varied = {one["video_id"]: batches.differs_words(one["set"]) for one in batch["items"]}
    shown = batches.show(batch, "")
    head = BatchHead(
        shown,
        title=shown.name or f"Batch {short_id(shown.id)}",
        words=", ".join(f"{n} {VideoState(state).word}" for state, n in shown.counts.items() if n),
        is_live=shown.completed_at is None,
    )
    return Listing(wanted, [line(row, varied[row["id"]]) for row in rows], batch=head)


def _cursor(text: str | None) -> str | None:
    return text if text and is_id(text, "video") else None
