"""What people do here: create, cancel, run again, choose a theme. Plain form posts."""

from collections.abc import Callable
from typing import Final, Literal

from flask import Blueprint, make_response, redirect, render_template, request
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response

from api.dashboard import foresight, newform
from api.dashboard.rows import find_batch, find_row
from api.dashboard.shell import THEME_COOKIE, THEMES, local_path
from api.plumbing import asking, recipes
from api.plumbing.auth import check_csrf, require
from api.plumbing.files import send_stored
from api.plumbing.runtime import farm
from shared.jobs import batches, groups, intake, lifecycle, orders
from shared.jobs.keys import Caller
from shared.jobs.ledger import Values
from shared.jobs.removal import image_key
from shared.machinery.storage import Served
from shared.vocabulary.errors import CODES, Fault, WanfarmError
from shared.vocabulary.ids import new_id
from shared.vocabulary.request import Overrides
from shared.vocabulary.spec import ImageRef

Recipe = Callable[[Values, asking.Sent], tuple[Overrides, ImageRef | None]]
Made = Literal["remixed", "promoted"]
_YEAR_S: Final = 31_536_000


def register(pages: Blueprint) -> None:
    """Serve the form, the posts, and the images that jobs start from."""
    pages.add_url_rule("/theme", view_func=choose_theme, methods=["POST"])
    pages.add_url_rule("/new", view_func=new)
    pages.add_url_rule("/new", view_func=create, methods=["POST"])
    pages.add_url_rule("/new/estimate", view_func=estimate, methods=["POST"])
    pages.add_url_rule("/jobs/<video_id>/cancel", view_func=cancel, methods=["POST"])
    pages.add_url_rule("/batches/<batch_id>/cancel", view_func=cancel_batch, methods=["POST"])
    pages.add_url_rule("/jobs/<video_id>/rerun", view_func=rerun, methods=["POST"])
    pages.add_url_rule("/jobs/<video_id>/promote", view_func=promote, methods=["POST"])
    pages.add_url_rule("/jobs/<video_id>/image", view_func=input_image)


def choose_theme() -> Response:
    """Remember a theme in a cookie, so that the next page comes in it at once."""
    check_csrf(request)
    answer = redirect(local_path(request.form.get("next")), 303)
    theme = request.form.get("theme")
    if theme in THEMES:
        answer.set_cookie(THEME_COOKIE, theme, max_age=_YEAR_S, samesite="Lax", httponly=True)
    return answer


def new() -> str:
    """Show the form: empty, filled from a job, or with what was typed for another model."""
    caller = require(request, "submit")
    return _form_page(request.args, _source(request.args.get("from"), caller))


def create() -> Response:
    """Queue what the form asks for, or show it again with everything that is wrong."""
    caller = require(request, "submit")
    source = _source(request.form.get("from"), caller)
    if "show_model" in request.form:  # without JavaScript: the same form for another model
        return make_response(_form_page(MultiDict(request.form), source))
    try:
        read = newform.read_form(farm(), request, caller, source)
        key = request.form.get("form_key", "")[:64]
        page = newform.submit(farm(), caller, read, source, key)
    except WanfarmError as err:
        return _refused(err, source)
    return redirect(page, 303)


def estimate() -> str:
    """Foresee what the form asks for, as far as it is filled in; nothing is stored."""
    caller = require(request, "submit")
    if not request.form.get("prompt", "").strip():
        return render_template("_fragments/estimate.html")
    source = _source(request.form.get("from"), caller)
    try:
        read = newform.read_form(farm(), request, caller, source, foresight.ANY_IMAGE)
        rail = foresight.foresee(farm(), read)
    except WanfarmError as err:
        return render_template("_fragments/estimate.html", fault=asking.faults_of(err)[0].message)
    return render_template("_fragments/estimate.html", rail=rail)


def _refused(err: WanfarmError, source: Values | None) -> Response:
    typed: MultiDict[str, str] = MultiDict(request.form)
    faults = asking.faults_of(err)
    if err.code == "idempotency_key_reused":
        typed["form_key"] = new_id("form")
        message = "This form has already made a video. Send it again to make another one."
        faults = (Fault("", err.code, message),)
    return make_response(_form_page(typed, source, faults), CODES[err.code].status)


def _form_page(
    values: "MultiDict[str, str]", source: Values | None, faults: tuple[Fault, ...] = ()
) -> str:
    served = groups.served_models(groups.all_groups(farm()))
    form = newform.make_form(farm(), served, values, source, faults)
    return render_template("new.html", form=form)


def _source(video_id: str | None, caller: Caller) -> Values | None:
    return find_row(video_id, caller) if video_id else None


def cancel(video_id: str) -> Response:
    """Ask for a job's end; its page then says what became of that."""
    caller = require(request, "submit")
    row = find_row(video_id, caller)
    lifecycle.cancel(farm(), row["id"], by=caller.key_name)
    return redirect(f"/jobs/{row['id']}", 303)


def cancel_batch(batch_id: str) -> Response:
    """Ask for the end of every job of a batch; its page then says what became of that."""
    caller = require(request, "submit")
    batch = find_batch(batch_id, caller)
    batches.cancel(farm(), batch, by=caller.key_name)
    return redirect(f"/jobs?batch={batch['id']}", 303)


def rerun(video_id: str) -> Response:
    """Queue the same video again: same seed, same settings, a job of its own."""
    return _made_after(video_id, recipes.remixed, "remixed")


def promote(video_id: str) -> Response:
    """Queue a draft in full quality: same seed and shape, the model's own steps."""
    return _made_after(video_id, recipes.promoted, "promoted")


def _made_after(video_id: str, lay: Recipe, made: Made) -> Response:
    caller = require(request, "submit")
    row = find_row(video_id, caller)
    key = request.form.get("idempotency_key", "")[:64] or None
    return redirect(f"/jobs/{make_after(row, caller, lay, made, key)}", 303)


def make_after(row: Values, caller: Caller, lay: Recipe, made: Made, key: str | None = None) -> str:
    """Queue a video after another one; gives its id.

    Raises:
        WanfarmError: what intake refuses it for.
    """
    as_it_was = asking.Sent(Overrides(), None, names_image=False)
    fields, image = lay(row, as_it_was)
    resolved = asking.settle(farm(), fields, image)
    order = asking.order(caller, resolved, orders.Source(row["id"], made), key, {})
    return intake.submit(farm(), order).video_id


def input_image(video_id: str) -> Response:
    """Send the image that a job starts from."""
    row = find_row(video_id, require(request, "read"))
    if row["image_sha256"] is None:
        raise WanfarmError("not_found", "This job starts from text alone. It has no image.")
    sha256 = row["image_sha256"]
    return send_stored(image_key(sha256), sha256, Served("image/png", f"{sha256[:16]}.png"))
