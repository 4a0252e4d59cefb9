"""The list of jobs: its filters live in the URL, its cursor is an id."""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from werkzeug.datastructures import MultiDict

from api.dashboard.views import Line, line
from shared.jobs import queries
from shared.machinery.farm import Farm
from shared.vocabulary.ids import is_id
from shared.vocabulary.states import VideoState

PAGE: Final = 30


@dataclass(frozen=True, slots=True)
class Asked:
    """What the URL asks for; what is not understood narrows nothing."""

    text: str
    state: str
    model: str
    group: str
    after: str | None  # older than this id
    before: str | None  # newer than this id

    @property
    def filters(self) -> dict[str, str]:
        """The filters that are set, as they stand in the URL."""
        given = {"q": self.text, "state": self.state, "model": self.model, "group": self.group}
        return {name: value for name, value in given.items() if value}

    def link(self, **changes: str | None) -> str:
        """A URL of this list with other parameters; None leaves one out."""
        wanted = {name: value for name, value in (self.filters | changes).items() if value}
        return f"/jobs?{urlencode(wanted)}" if wanted else "/jobs"

    @property
    def poll(self) -> str:
        """Where the same rows come from as a fragment."""
        return self.link(after=self.after, before=self.before).replace("/jobs", "/_/jobs", 1)


def asked(args: "MultiDict[str, str]") -> Asked:
    """Read the URL."""
    state = args.get("state", "")
    return Asked(
        text=args.get("q", "").strip()[:200],
        state=state if state in set(VideoState) else "",
        model=args.get("model", "")[:64],
        group=args.get("group", "")[:32],
        after=_cursor(args.get("after")),
        before=_cursor(args.get("before")),
    )


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of the list and the ways on."""

    asked: Asked
    lines: list[Line]
    older: str | None
    newer: str | None


def listing(farm: Farm, wanted: Asked, tenant: str | None) -> Listing:
    """Read the rows of a page; a cursor whose row is gone still works."""
    which = queries.Filter(
        tenant=tenant,
        states=[VideoState(wanted.state)] if wanted.state else (),
        model=wanted.model or None,
        group=wanted.group or None,
        text=wanted.text or None,
    )
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


def _cursor(text: str | None) -> str | None:
    return text if text and is_id(text, "video") else None
