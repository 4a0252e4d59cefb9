"""The OpenAPI 3.1 document, made from the routes and models that serve."""

from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from api.plumbing.registry import Endpoint, Route
from api.plumbing.schemas import ErrorEnvelope
from shared.machinery.meters import own_version
from shared.vocabulary.errors import CODES
from shared.vocabulary.request import Overrides

DOCUMENT: Final = "wanfarm.openapi"
_REF: Final = "#/components/schemas/{model}"
_BODY_CODES: Final = (
    "invalid_json", "invalid_form", "unknown_field", "body_too_large", "unsupported_media_type",
)  # fmt: skip
_VIDEO_CODES: Final = (  # what the fields of a video can be refused for
    "ambiguous_form", "conflicting_fields", "does_not_fit", "image_not_allowed", "image_required",
    "image_too_large", "invalid_cache_policy", "invalid_image", "invalid_value", "lora_mismatch",
    "missing_field", "not_for_model", "unsupported_feature", "url_fetch_disabled", "use_batches",
)  # fmt: skip
_NAMES_IN_BODIES: Final = frozenset({"lora_not_found", "model_not_found"})  # there they are no 404
_HEADERS: Final = {
    "Idempotency-Key": "1 to 255 printable characters; sent again, it makes no second video.",
    "If-None-Match": "The ETag that you have; 304 while it is still the one.",
    "If-Range": "The ETag that the range is to be of.",
    "Last-Event-ID": "The last event that you have; the stream goes on behind it.",
    "Prefer": "`wait=20` is the same as `?wait=20`.",
    "Range": "One range of bytes.",
}
_RATE_HEADERS: Final = {  # none where the limit is set to 0
    f"X-RateLimit-{name}": {"schema": {"type": "integer"}, "description": text}
    for name, text in {
        "Limit": "Requests of this kind that the key has.",
        "Remaining": "Those that are left.",
        "Reset": "Seconds until all of them are back.",
    }.items()
}
_ALWAYS: Final = ("invalid_header", "internal_error", "database_unavailable")

Json = dict[str, Any]


def document(endpoints: Iterable[Endpoint[Any]]) -> Json:
    """Describe every endpoint."""
    routes = [one.route for one in endpoints]
    found, definitions = models_json_schema(_models(routes), ref_template=_REF)
    refs: dict[Any, Json] = dict(found)
    schemas: Json = definitions.get("$defs", {})
    paths: dict[str, Json] = {}
    for route in routes:
        item = paths.setdefault(route.path.replace(":path}", "}"), {})
        item[route.method.lower()] = _operation(route, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "wanfarm",
            "version": own_version(),
            "summary": "A self-hosted render farm for Wan2.2 video.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "headers": _RATE_HEADERS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


_Key = tuple[type[BaseModel], JsonSchemaMode]


def _models(routes: list[Route[Any]]) -> list[_Key]:
    """List the models of all bodies and answers, each once."""
    used: dict[_Key, None] = {(ErrorEnvelope, "serialization"): None}
    for route in routes:
        if route.body is not None:
            used[(route.body, "validation")] = None
        if route.returns is not None:
            used[(route.returns, "serialization")] = None
    return list(used)


def _operation(route: Route[Any], refs: dict[Any, Json]) -> Json:
    operation: Json = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": _responses(route, refs),
        "security": [{"key": []}] if route.scope else [],
    }
    if route.scope:
        operation["description"] = f"Needs the scope `{route.scope}`."
    if route.body is not None:
        schema = refs[(route.body, "validation")]
        required = any(field.is_required() for field in route.body.model_fields.values())
        operation["requestBody"] = {
            "required": required,
            "content": {form: {"schema": schema} for form in route.forms},
        }
    return operation


def _operation_id(route: Route[Any]) -> str:
    words = [part.strip("{}").replace(":path", "") for part in route.path.strip("/").split("/")]
    return "_".join([route.method.lower(), *words]).replace(".", "_")


def _parameters(route: Route[Any]) -> list[Json]:
    found: list[Json] = [
        {"name": part.strip("{}").removesuffix(":path"), "in": "path", "required": True,
         "schema": {"type": "string"}}
        for part in route.path.split("/")
        if part.startswith("{")
    ]  # fmt: skip
    schema = route.query.model_json_schema()
    for name, shape in schema.get("properties", {}).items():
        parameter: Json = {"name": name, "in": "query", "schema": _without_null(shape)}
        if name == "metadata":
            parameter |= {"style": "deepObject", "explode": True}
        elif name == "status":
            parameter |= {"style": "form", "explode": False}
        found.append(parameter)
    found += [
        {"name": name, "in": "header", "schema": {"type": "string", "description": _HEADERS[name]}}
        for name in route.headers
    ]
    return found


def _without_null(shape: Json) -> Json:
    """Describe a parameter without `null`: it is left out instead."""
    branches = [one for one in shape.get("anyOf", ()) if one.get("type") != "null"]
    if len(branches) != 1:
        return shape
    rest = {key: value for key, value in shape.items() if key not in {"anyOf", "default"}}
    return rest | branches[0]


def _responses(route: Route[Any], refs: dict[Any, Json]) -> Json:
    responses: Json = {"200": {"description": "Done.", "content": _content(route, refs)}}
    told = {name: {"$ref": f"#/components/headers/{name}"} for name in _RATE_HEADERS}
    if route.scope:
        responses["200"]["headers"] = told
    if "If-None-Match" in route.headers:
        responses["304"] = {"description": "Not modified."}
    if "Range" in route.headers:
        responses["206"] = {"description": "The range.", "content": _content(route, refs)}
        responses["302"] = {"description": "Where to fetch it, on a farm that keeps it in S3."}
    if "Last-Event-ID" in route.headers:
        responses["204"] = {"description": "The stream is over."}
    by_status: dict[int, list[str]] = {}
    for code in _codes(route):
        in_body = route.body is not None and code in _NAMES_IN_BODIES
        by_status.setdefault(400 if in_body else CODES[code].status, []).append(code)
    envelope = {"application/json": {"schema": refs[(ErrorEnvelope, "serialization")]}}
    for status, codes in sorted(by_status.items()):
        described = ", ".join(f"`{code}`" for code in sorted(codes))
        responses[str(status)] = {"description": described, "content": envelope}
    if route.scope:
        responses["429"]["headers"] = told
    return responses


def _content(route: Route[Any], refs: dict[Any, Json]) -> Json:
    if route.returns is None:
        return {media: {} for media in route.media}
    schema = refs[(route.returns, "serialization")]
    return {
        media: {"schema": schema} if media == "application/json" else {} for media in route.media
    }


def _codes(route: Route[Any]) -> set[str]:
    codes = {*_ALWAYS, *route.errors}
    if route.scope:
        codes |= {"missing_key", "invalid_key", "scope_missing", "csrf_failed", "rate_limited"}
    if "{video_id}" in route.path:
        codes.add("video_not_found")
    if route.query.model_fields:
        codes |= {"invalid_value", "unknown_field", "duplicate_field"}
    if route.body is not None:
        codes |= set(_BODY_CODES)
        if issubclass(route.body, Overrides):
            codes |= {*_VIDEO_CODES, *_NAMES_IN_BODIES}
    if route.path in {"/readyz", "/health"}:
        codes.add("not_ready")
    return codes
