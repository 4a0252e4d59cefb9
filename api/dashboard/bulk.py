"""What is done to several jobs at once: asked about first where nothing brings it back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response

from api.dashboard.actions import make_after
from api.dashboard.rows import find_row
from api.plumbing import recipes
from api.plumbing.auth import acting, require
from api.plumbing.runtime import farm
from shared.jobs import lifecycle, removal
from shared.jobs.keys import Caller
from shared.jobs.ledger import Values
from shared.vocabulary.errors import WanfarmError

_MOST: Final = 100


@dataclass(frozen=True, slots=True)
class Deed:
    """What a button of the list does to one job; `asks` when that cannot be undone."""

    verb: str
    done: str
    act: Callable[[Values, Caller], str]  # gives the id of the job to look at
    asks: str = ""


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


DEEDS: Final = {
    "rerun": Deed(
        "Re-run", "queued again", lambda row, by: make_after(row, by, recipes.remixed, "remixed")
    ),
    "promote": Deed(
        "Promote", "promoted", lambda row, by: make_after(row, by, recipes.promoted, "promoted")
    ),
    "cancel": Deed(
        "Cancel", "asked to stop", _cancel, "What they have rendered so far is dropped."
    ),
    "delete": Deed(
        "Delete", "deleted", _delete, "Rows, files and history go. Nothing brings them back."
    ),
}


def register(pages: Blueprint) -> None:
    """Serve the form of the list."""
    pages.add_url_rule("/jobs/ticked", view_func=ticked, methods=["POST"])


def ticked() -> str | Response:
    """Do what was asked to each ticked job, and tell what became of it."""
    ids, do = request.form.getlist("ids"), request.form.get("do", "")
    if do == "compare":
        return redirect(f"/compare?{urlencode({'ids': ','.join(ids)}, safe=',')}", 303)
    caller = require(request, "submit")
    deed = DEEDS.get(do)
    if deed is None or not 1 <= len(ids) <= _MOST:
        raise WanfarmError(
            "invalid_value",
            f"{len(ids)} jobs are ticked. Something can be done to 1 to {_MOST} at once. "
            "Go back, tick some, and choose what to do.",
            param="ids",
        )
    rows = [find_row(one, caller) for one in dict.fromkeys(ids)]
    if deed.asks and "sure" not in request.form:
        return render_template("ticked.html", deed=deed, do=do, rows=rows)
    outcomes = [_outcome(deed, row, caller) for row in rows]
    return render_template("ticked.html", deed=deed, outcomes=outcomes)


def _outcome(deed: Deed, row: Values, caller: Caller) -> Outcome:
    try:
        return Outcome(row, shown=deed.act(row, caller))
    except WanfarmError as err:
        return Outcome(row, refused=err.message)
