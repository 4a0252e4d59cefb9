"""Bytes on the wire: compact JSON, the same for answers, errors and events."""

import json
from collections.abc import Mapping
from typing import Any, TypeGuard

from flask import Response
from pydantic import BaseModel


def to_json(value: object) -> str:
    """Write a value or a model as one line of JSON."""
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def json_response(
    value: object, status: int = 200, headers: Mapping[str, Any] | None = None
) -> Response:
    """Answer with JSON."""
    return Response(to_json(value), status, headers, mimetype="application/json")


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Tell whether a parsed value is a JSON object."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Tell whether a parsed value is a JSON array."""
    return isinstance(value, list)
