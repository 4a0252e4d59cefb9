"""What is done to several jobs at once: asked about first where nothing brings it back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response

from api.dashboard import comparing
from api.dashboard.actions import make_after
from api.dashboard.listing import Asked, asked, which
from api.dashboard.rows import find_row, tenant_of
from api.plumbing import recipes
from api.plumbing.auth import acting, require
from api.plumbing.runtime import farm
from shared.jobs import lifecycle, queries, removal
from shared.jobs.keys import Caller
from shared.jobs.ledger import Values
from shared.vocabulary.errors import WanfarmError

_MOST: Final = 500


@dataclass(frozen=True, slots=True)
class Deed:
    """What a button of the list does to one job."""

    verb: str
    done: str
    effect: str  # what the question says
    act: Callable[[Values, Caller], str]  # gives the id of the job to look at
    is_final: bool = False  # asked about even for a single job


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one job."""

    row: Values
    shown: str = ""  # the job to look at
    refused: str = ""  # why nothing was done


def _cancel(row: Values, caller: Caller) -> str:
    lifecycle.cancel(farm(), row["id"], by=caller.key_name)
    return row["id"]


def _delete(row: Values, caller: Caller) -> str:
    removal.delete(farm(), row["id"], by=caller.key_name, actor=acting(caller))
    return ""


def _rerun(row: Values, caller: Caller) -> str:
    return make_after(row, caller, recipes.remixed, "remixed")


def _promote(row: Values, caller: Caller) -> str:
    return make_after(row, caller, recipes.promoted, "promoted")


DEEDS: Final = {
    "rerun": Deed("Re-run", "queued again", "Each makes a new job with the same seed.", _rerun),
    "promote": Deed("Promote", "promoted", "Each makes a new job in full quality.", _promote),
    "cancel": Deed(
        "Cancel",
        "asked to stop",
        "What they have rendered so far is dropped.",
        _cancel,
        is_final=True,
    ),
    "delete": Deed(
        "Delete",
        "deleted",
        "Rows, files and history go. Nothing brings them back.",
        _delete,
        is_final=True,
    ),
}


def register(pages: Blueprint) -> None:
    """Serve the form of the list."""
    pages.add_url_rule("/jobs/ticked", view_func=ticked, methods=["POST"])


def ticked() -> str | Response:
    """Do what was asked to each ticked job, or to all that match, and tell what became of it."""
    do, deed = request.form.get("do", ""), DEEDS.get(request.form.get("do", ""))
    caller = require(request, "read" if do == "compare" else "submit")
    back, all_of_them = asked(request.args), "all" in request.form
    found = _matching(back, caller) if all_of_them else None
    ids = found.ids if found else comparing.parts(request.form.getlist("ids"))
    if do == "compare":
        these = ",".join(comparing.ids_of(ids))
        return redirect(f"/compare?{urlencode({'ids': these}, safe=',')}", 303)
    if deed is None or not 1 <= len(ids) <= _MOST:
        raise _nothing_to_do(len(ids))
    rows = [find_row(one, caller) for one in ids]
    if all_of_them or (deed.is_final and "sure" not in request.form):
        more = found is not None and found.has_more
        return render_template("ticked.html", deed=deed, do=do, rows=rows, more=more, back=back)
    outcomes = [_outcome(deed, row, caller) for row in rows]
    return render_template("ticked.html", deed=deed, outcomes=outcomes, back=back)


@dataclass(frozen=True, slots=True)
class _Found:
    """The newest jobs that match the filters; the question names them, so that none comes later."""

    ids: list[str]
    has_more: bool


def _matching(wanted: Asked, caller: Caller) -> _Found:
    page = queries.page(farm(), which(wanted, tenant_of(caller)), limit=_MOST)
    return _Found([row["id"] for row in page.rows], page.has_more)


def _nothing_to_do(count: int) -> WanfarmError:
    return WanfarmError(
        "invalid_value",
        f"{count} jobs are ticked. Something can be done to 1 to {_MOST} at once. "
        "Go back, tick some, and choose what to do.",
        param="ids",
    )


def _outcome(deed: Deed, row: Values, caller: Caller) -> Outcome:
    try:
        return Outcome(row, shown=deed.act(row, caller))
    except WanfarmError as err:
        return Outcome(row, refused=err.message)
