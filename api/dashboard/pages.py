"""The pages that read: overview, jobs, job; each with the fragment that keeps it fresh."""

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from flask import Blueprint, Flask, Response, render_template, request
from werkzeug.routing import PathConverter

from api.dashboard import actions, admin, assets, bulk, comparing, docs, group_pages, login, shell
from api.dashboard.bars import Chart, draw
from api.dashboard.detail import JobPage, job_page
from api.dashboard.listing import Listing, asked, choices, listing
from api.dashboard.rows import find_row, jobs_of, tenant_of
from api.dashboard.views import GroupCard, Line, group_card, line
from api.dashboard.words import duration
from api.plumbing.auth import current_caller, require
from api.plumbing.links import base_url
from api.plumbing.runtime import farm as farm_of_request
from shared.jobs import board, forecast, groups, pauses, queries
from shared.jobs.board import Board, Live
from shared.jobs.keys import Caller
from shared.jobs.ledger import Values
from shared.machinery.farm import Farm
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.ids import new_id
from shared.vocabulary.states import GroupState

_RECENT: Final = 12


class PagePath(PathConverter):
    """Whatever is neither a page nor part of the API; the API answers for its own paths."""

    regex = r"(?!(?:v1|openapi\.json|metrics|livez|readyz|health)(?:/|$)).+"


def register(app: Flask, farm: Farm) -> None:
    """Add the dashboard to the app."""
    pages = Blueprint("dashboard", __name__, template_folder="../templates")
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    shell.install(pages)
    assets.register(pages)
    login.register(pages)
    actions.register(pages)
    bulk.register(pages)
    comparing.register(pages)
    group_pages.register(pages)
    admin.register(pages)
    docs.register(pages)
    pages.add_url_rule("/", view_func=overview)
    pages.add_url_rule("/_/overview", view_func=overview_fragment)
    pages.add_url_rule("/jobs", view_func=jobs)
    pages.add_url_rule("/_/jobs", view_func=jobs_fragment)
    pages.add_url_rule("/jobs/<video_id>", view_func=job)
    pages.add_url_rule("/_/jobs/<video_id>", view_func=job_fragment)
    app.url_map.converters["page"] = PagePath
    pages.add_url_rule("/<page:path>", view_func=nothing)
    app.register_blueprint(pages)


@dataclass(frozen=True, slots=True)
class Overview:
    """The farm at a glance."""

    board: Board
    groups: list[GroupCard]
    recent: list[Line]
    problems: list[str]
    empty_in: str | None  # how long until all that waits is rendered
    chart: Chart  # of the last hours

    @property
    def up(self) -> int:
        """Groups that could render."""
        return sum(card.badge.tone != "bad" for card in self.groups)


def overview() -> str:
    """Show the farm at a glance."""
    return render_template("overview.html", farm=_overview(require(request, "read")))


def overview_fragment() -> Response:
    """Show the part of it that moves."""
    caller = require(request, "read")
    return shell.cheap(render_template("_fragments/overview.html", farm=_overview(caller)))


def jobs() -> str:
    """List jobs."""
    caller = require(request, "read")
    page = _listing(caller)
    offered = choices(farm_of_request(), page.asked, tenant_of(caller))
    return render_template("jobs.html", page=page, choices=offered)


def jobs_fragment() -> Response:
    """List the same rows as they are now."""
    page = _listing(require(request, "read"))
    return shell.cheap(render_template("_fragments/jobs.html", page=page))


def job(video_id: str) -> str:
    """Show one video."""
    return render_template("job.html", job=_job(video_id), form_key=new_id("form"))


def job_fragment(video_id: str) -> Response:
    """Show the part of it that moves."""
    return shell.cheap(render_template("_fragments/job.html", job=_job(video_id)))


def nothing(path: str) -> str:
    """Say that there is no such page; who is logged in stays so."""
    with suppress(WanfarmError):
        current_caller(request)
    raise WanfarmError("not_found", f"There is no page '/{path[:80]}'. Start from the overview.")


def _overview(caller: Caller) -> Overview:
    farm, tenant = farm_of_request(), tenant_of(caller)
    rows = queries.page(farm, queries.Filter(tenant=tenant), limit=_RECENT).rows
    known = groups.all_groups(farm)
    jobs = {row["id"]: row for row in rows} | jobs_of(known, caller)
    standing = board.read(farm, tenant)
    everything = standing.live if tenant is None else board.live(farm)
    return Overview(
        board=standing,
        groups=[group_card(one, jobs) for one in known],
        recent=[line(row) for row in rows],
        problems=[*_problems(known), *_closed_doors()],
        empty_in=_empty_in(farm, everything, known),
        chart=draw(board.throughput(farm, tenant), board.SPANS * board.SPAN_S // 3600),
    )


def _empty_in(farm: Farm, live: list[Live], known: list[Values]) -> str | None:
    drain = forecast.drained(farm, live, known)
    if drain is None or any(row["what"] == "dispatch" for row in pauses.closed(farm)):
        return None
    moments = (drain.likely, drain.earliest, drain.latest)
    likely, least, most = (duration(max(0.0, moment - time.time())) for moment in moments)
    return f"~{likely} ({least}–{most})"  # noqa: RUF001 - a dash between two ends


def _problems(known: list[Values]) -> list[str]:
    """What an operator should see first, most severe first."""
    down = [one for one in known if one["state"] is GroupState.DOWN]
    reasons = [(one["problem"] or "no reason given").rstrip(".") for one in down]
    words = [f"{one['name']} is down: {why}." for one, why in zip(down, reasons, strict=True)]
    if not known:
        return ["No group has joined this farm yet. Jobs wait until one does."]
    if len(down) == len(known):
        return ["No group is up. Jobs wait until one is."]
    return words


def _closed_doors() -> list[str]:
    """What a full store has closed, or somebody."""
    farm = farm_of_request()
    full = pauses.lack_of_room(farm)
    effects = {"intake": "New videos are refused", "dispatch": "No video is started"}
    return ([full] if full else []) + [
        f"{effects[one['what']]}: paused by {one['by']}"
        + (f" ({one['reason']})." if one["reason"] else ".")
        for one in pauses.closed(farm)
    ]


def _listing(caller: Caller) -> Listing:
    return listing(farm_of_request(), asked(request.args), tenant_of(caller))


def _job(video_id: str) -> JobPage:
    row = find_row(video_id, require(request, "read"))
    return job_page(farm_of_request(), row, base_url())
