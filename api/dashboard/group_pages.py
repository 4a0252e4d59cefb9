"""The pages of GPU groups, and what admins ask of a group there. None of them asks a worker."""

from dataclasses import dataclass
from typing import Final, cast, get_args

from flask import Blueprint, Response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from api.dashboard import shell
from api.dashboard.group_detail import GroupPage, group_page, parallel_words
from api.dashboard.rows import jobs_of
from api.dashboard.views import GroupCard, group_card
from api.plumbing.auth import acting, require
from api.plumbing.runtime import farm
from shared.jobs import group_history, groups
from shared.jobs.groups import DrainMode
from shared.vocabulary.errors import WanfarmError

_LONGEST_REASON: Final = 300  # of the column


def register(pages: Blueprint) -> None:
    """Serve the list, one group, and the two posts."""
    pages.add_url_rule("/groups", view_func=all_groups)
    pages.add_url_rule("/_/groups", view_func=all_groups_fragment)
    pages.add_url_rule("/groups/<name>", view_func=group)
    pages.add_url_rule("/_/groups/<name>", view_func=group_fragment)
    pages.add_url_rule("/groups/<name>/drain", view_func=drain, methods=["POST"])
    pages.add_url_rule("/groups/<name>/resume", view_func=resume, methods=["POST"])


@dataclass(frozen=True, slots=True)
class Entry:
    """A group in the list."""

    card: GroupCard
    parallel: str | None
    completed_1h: int
    failure_streak: int
    drain: str | None


def all_groups() -> str:
    """List the groups of the last day."""
    return render_template("groups.html", entries=_entries())


def all_groups_fragment() -> Response:
    """List them as they are now."""
    return shell.cheap(render_template("_fragments/groups.html", entries=_entries()))


def group(name: str) -> str:
    """Show one group."""
    return render_template("group.html", page=_page(name))


def group_fragment(name: str) -> Response:
    """Show it as it is now."""
    return shell.cheap(render_template("_fragments/group.html", page=_page(name)))


def drain(name: str) -> BaseResponse:
    """Have a group take no other job; its page then says what it makes of that."""
    caller = require(request, "admin")
    groups.find(groups.all_groups(farm()), name)
    mode = request.form.get("mode", "finish")
    if mode not in get_args(DrainMode):
        raise WanfarmError(
            "invalid_value",
            f"mode is '{mode[:20]}'. A group drains by 'finish' or by 'requeue'. Choose one.",
            param="mode",
        )
    groups.drain(farm(), name, cast(DrainMode, mode), _reason(), actor=acting(caller))
    return redirect(f"/groups/{name}", 303)


def resume(name: str) -> BaseResponse:
    """Let a group take jobs again."""
    caller = require(request, "admin")
    groups.find(groups.all_groups(farm()), name)
    groups.resume(farm(), name, actor=acting(caller))
    return redirect(f"/groups/{name}", 303)


def _reason() -> str | None:
    """Read why, for people.

    Raises:
        WanfarmError: `invalid_value`.
    """
    reason = request.form.get("reason", "").strip()
    if len(reason) > _LONGEST_REASON or not reason.isprintable():
        raise WanfarmError(
            "invalid_value",
            f"The reason has {len(reason)} characters, or some that are no text. It is kept on one "
            f"line. Write up to {_LONGEST_REASON} characters.",
            param="reason",
        )
    return reason or None


def _entries() -> list[Entry]:
    caller = require(request, "read")
    known = groups.all_groups(farm())
    jobs = jobs_of(known, caller)
    lately = group_history.lately(farm(), [one["name"] for one in known])
    return [
        Entry(
            card=group_card(one, jobs),
            parallel=parallel_words(one, lately[one["name"]]),
            completed_1h=lately[one["name"]].completed_1h,
            failure_streak=one["failure_streak"],
            drain=one["drain"],
        )
        for one in known
    ]


def _page(name: str) -> GroupPage:
    caller = require(request, "read")
    known = groups.all_groups(farm())
    return group_page(farm(), groups.find(known, name), known, caller)
