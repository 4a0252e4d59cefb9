"""Is it alive, is it ready, how is it doing, and what does it speak?"""

from typing import Final

from flask import Response, current_app, request
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from api.plumbing.auth import require
from api.plumbing.metrics import CONTENT_TYPE
from api.plumbing.openapi import DOCUMENT
from api.plumbing.registry import Call, NoQuery, Route, endpoint
from api.plumbing.runtime import farm, runtime
from api.plumbing.schemas import Readiness
from api.plumbing.wire import json_response
from shared.jobs import groups, pauses
from shared.machinery.database import is_current
from shared.machinery.farm import Farm
from shared.machinery.storage import fault_of
from shared.vocabulary.errors import WanfarmError

_OK: Final = "ok"
_LITTLE_ROOM: Final = "nearly full, new videos are refused"


def _open(
    path: str,
    summary: str,
    returns: type[BaseModel] | None = None,
    media: str = "application/json",
) -> Route[NoQuery]:
    return Route(
        method="GET",
        path=path,
        scope=None,
        summary=summary,
        query=NoQuery,
        returns=returns,
        media=(media,),
    )


@endpoint(_open("/livez", "Tell that the process serves."))
def livez(_call: Call[NoQuery]) -> Response:
    """Answer, and touch nothing."""
    return json_response({"status": _OK})


@endpoint(_open("/readyz", "Tell whether work can be taken.", Readiness))
def readyz(_call: Call[NoQuery]) -> Response:
    """Check what a request needs; Redis is only the doorbell."""
    return json_response(_ready(farm()))


@endpoint(_open("/health", "Tell whether work can be taken and rendered.", Readiness))
def health(_call: Call[NoQuery]) -> Response:
    """Check what a render needs: all of readiness, and a group."""
    ready = _ready(farm())
    if not groups.served_models(groups.all_groups(farm())):
        raise WanfarmError(
            "not_ready", "No GPU group is up. Videos are taken and wait. Start a worker."
        )
    return json_response(ready)


@endpoint(
    _open("/metrics", "Tell the farm's figures in the Prometheus text format.", media="text/plain")
)
def metrics(_call: Call[NoQuery]) -> Response:
    """Render the metrics."""
    if farm().settings.metrics_auth:
        require(request, "read")
    return Response(runtime().metrics.text(), content_type=CONTENT_TYPE)


@endpoint(_open("/openapi.json", "Describe this API."))
def openapi(_call: Call[NoQuery]) -> Response:
    """Give the OpenAPI document, made from the same models that check requests."""
    return Response(current_app.extensions[DOCUMENT], mimetype="application/json")


def _ready(handles: Farm) -> Readiness:
    checks = {
        "postgres": _OK,
        "schema": _schema(handles),
        "storage": _storage(handles),
        "redis": _OK if handles.feed.answers() else "no answer",
    }
    if checks["schema"] == "no answer":
        checks["postgres"] = "no answer"
    bearable = {("redis", checks["redis"]), ("storage", _LITTLE_ROOM)}
    lame = [one for one in checks.items() if one[1] != _OK]
    bad = [f"{name}: {said}" for name, said in lame if (name, said) not in bearable]
    if bad:
        raise WanfarmError("not_ready", f"The farm is not ready ({', '.join(bad)}). Retry soon.")
    return Readiness(status="degraded" if lame else "ok", checks=checks)


def _storage(handles: Farm) -> str:
    if fault := fault_of(handles.storage):
        return "full" if fault.code == "storage_full" else "not writable"
    return _LITTLE_ROOM if pauses.lack_of_room(handles) else _OK


def _schema(handles: Farm) -> str:
    try:
        return _OK if is_current(handles.db) else "older or newer than this build"
    except SQLAlchemyError:
        return "no answer"


ENDPOINTS: Final = (livez, readyz, health, metrics, openapi)
