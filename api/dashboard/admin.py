"""The pages of whoever runs the farm: doors, keys, webhooks, the audit log, settings."""

from typing import Annotated, Any, Final
from urllib.parse import urlencode

from flask import Blueprint, g, make_response, redirect, render_template, request
from pydantic import Field
from werkzeug.wrappers import Response

from api.dashboard import adminviews
from api.plumbing import deeds
from api.plumbing.asking import faults_of
from api.plumbing.auth import acting, require
from api.plumbing.deeds import KeyRequest, PauseRequest
from api.plumbing.registry import small_body
from api.plumbing.runtime import farm
from shared.jobs import audit, keys, pauses, webhooks
from shared.jobs.keys import Caller
from shared.machinery.effective import effective
from shared.vocabulary.errors import CODES, WanfarmError
from shared.vocabulary.ids import is_id

_NEWEST: Final = 50
_ACTIONS: Final[dict[str, audit.Action]] = {action: action for action in audit.ACTIONS}
_SECTIONS: Final = (
    ("Queue", "/admin"),
    ("Keys", "/admin/keys"),
    ("Webhooks", "/admin/webhooks"),
    ("Audit", "/admin/audit"),
    ("Settings", "/admin/settings"),
)


class KeyForm(KeyRequest):
    """A key as the page asks for it: its id was drawn with the form, so that it is made once."""

    key_id: Annotated[str, Field(pattern=keys.ID_PATTERN)]


def register(pages: Blueprint) -> None:
    """Serve the sections and what is done in them."""
    pages.add_url_rule("/admin", view_func=show_queue)
    pages.add_url_rule("/admin/pause", view_func=pause, methods=["POST"])
    pages.add_url_rule("/admin/resume", view_func=reopen, methods=["POST"])
    pages.add_url_rule("/admin/keys", view_func=show_keys)
    pages.add_url_rule("/admin/keys", view_func=make_key, methods=["POST"])
    pages.add_url_rule("/admin/keys/<key_id>/revoke", view_func=revoke_key, methods=["POST"])
    pages.add_url_rule("/admin/webhooks", view_func=show_webhooks)
    redeliver_rule = "/admin/webhooks/<event_id>/redeliver"
    pages.add_url_rule(redeliver_rule, view_func=redeliver, methods=["POST"])
    pages.add_url_rule("/admin/audit", view_func=show_audit)
    pages.add_url_rule("/admin/settings", view_func=show_settings)


def show_queue() -> str:
    """Show the two doors, and what a full store has closed."""
    require(request, "admin")
    doors = adminviews.doors(pauses.closed(farm()))
    return _section("Queue", doors=doors, full=pauses.lack_of_room(farm()))


def pause() -> Response:
    """Close a door."""
    caller = require(request, "admin")
    deeds.pause(caller, small_body(PauseRequest))
    return _done("/admin")


def reopen() -> Response:
    """Open a door."""
    caller = require(request, "admin")
    deeds.reopen(caller, small_body(PauseRequest))
    return _done("/admin")


def show_keys() -> str:
    """List the keys, and offer to make one."""
    return _keys(require(request, "admin"))


def make_key() -> Response:
    """Make a key and show it this once, or show the form again with what is wrong."""
    caller = require(request, "admin")
    try:
        asked = small_body(KeyForm)
        made, key = deeds.make_key(caller, asked, asked.key_id)
    except WanfarmError as err:
        faults = {fault.param: fault.message for fault in faults_of(err)}
        page = _keys(caller, values=request.form, faults=faults)
        return make_response(page, CODES[err.code].status)
    return make_response(_keys(caller, made=made, key=key))


def revoke_key(key_id: str) -> Response:
    """End a key's life; who ends that of his own session has to log in again."""
    deeds.revoke_key(require(request, "admin"), key_id)
    return _done("/admin/keys")


def show_webhooks() -> str:
    """List the newest deliveries: all, or those that nobody tries any more."""
    require(request, "admin")
    dead = request.args.get("state") == "dead"
    log = webhooks.deliveries(
        farm(), None, state="dead" if dead else None, after=None, limit=_NEWEST
    )
    lines = [adminviews.delivery_line(row) for row in log.rows]
    return _section("Webhooks", lines=lines, dead=dead, has_more=log.has_more, newest=_NEWEST)


def redeliver(event_id: str) -> Response:
    """Have one more try made at once."""
    caller = require(request, "admin")
    webhooks.redeliver(farm(), event_id, None, actor=acting(caller))
    return _done("/admin/webhooks", state="dead" if request.form.get("state") == "dead" else "")


def show_audit() -> str:
    """List who did what."""
    require(request, "admin")
    action = _ACTIONS.get(request.args.get("action", ""))
    after = request.args.get("after", "")
    log = audit.deeds(
        farm(), limit=_NEWEST, action=action, after=after if is_id(after, "audit") else None
    )
    names = _key_names()
    older = {"action": action or "", "after": log.rows[-1]["id"]} if log.has_more else None
    return _section(
        "Audit",
        lines=[adminviews.deed_line(row, names) for row in log.rows],
        actions=audit.ACTIONS,
        action=action,
        older=_link("/admin/audit", **older) if older else None,
    )


def show_settings() -> str:
    """Tell how long things are kept, and what this process was set to."""
    require(request, "admin")
    found = effective(farm().settings)
    return _section(
        "Settings",
        changed=[one for one in found if one.source != "default"],
        defaults=[one for one in found if one.source == "default"],
        kept=adminviews.retention(farm().settings),
    )


def _keys(caller: Caller, **more: Any) -> str:  # noqa: ANN401 - the template's
    lines = [adminviews.key_line(row, caller.key_id) for row in keys.all_keys(farm())]
    form = dict[str, Any](values={}, faults={}, made=None, key=None) | more
    return _section(
        "Keys",
        living=[one for one in lines if one.lives],
        ended=[one for one in lines if not one.lives],
        scopes=keys.SCOPES,
        lifetimes=adminviews.LIFETIMES,
        key_id=keys.new_key_id(),
        **form,
    )


def _section(name: str, **content: Any) -> str:  # noqa: ANN401 - the template's
    template = f"admin/{name.lower()}.html"
    return render_template(template, section=name, sections=_SECTIONS, done=_told(), **content)


def _done(path: str, **query: str) -> Response:
    """Go back to a section, which tells what was done from the row that it left."""
    return redirect(_link(path, done=g.request_id, **query), 303)


def _told() -> adminviews.DeedLine | None:
    request_id = request.args.get("done", "")
    if not request_id or not request_id.isprintable():
        return None
    rows = audit.deeds(farm(), limit=1, request_id=request_id).rows
    return adminviews.deed_line(rows[0], _key_names()) if rows else None


def _key_names() -> dict[str, str]:
    return {row["id"]: row["name"] for row in keys.all_keys(farm())}


def _link(path: str, **query: str) -> str:
    said = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(said)}" if said else path
