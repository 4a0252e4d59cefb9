"""Pydantic's findings in the words of a request."""

import difflib
import json
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from shared.vocabulary.errors import Fault, RequestRejected

M = TypeVar("M", bound=BaseModel)

_TYPES: Final = {
    "string_type": "It must be text.",
    "int_type": "It must be a whole number.",
    "int_parsing": "It must be a whole number.",
    "int_parsing_size": "It must be a smaller whole number.",
    "int_from_float": "It must be a whole number.",
    "float_type": "It must be a number.",
    "float_parsing": "It must be a number.",
    "finite_number": "It must be a finite number.",
    "bool_type": "It must be true or false.",
    "bool_parsing": "It must be true or false.",
    "dict_type": "It must be an object.",
    "model_type": "It must be an object.",
    "model_attributes_type": "It must be an object.",
    "list_type": "It must be a list.",
    "is_instance_of": "It must be a file part.",
}
_BOUNDS: Final = {
    "greater_than_equal": "It must be at least {ge:g}.",
    "greater_than": "It must be above {gt:g}.",
    "less_than_equal": "It must be at most {le:g}.",
    "less_than": "It must be below {lt:g}.",
    "string_too_short": "It needs at least {min_length} characters.",
    "string_too_long": "It takes at most {max_length} characters.",
    "too_short": "It needs at least {min_length} entries.",
    "too_long": "It takes at most {max_length} entries.",
    "literal_error": "It must be one of {expected}.",
    "string_pattern_mismatch": "It must match {pattern}.",
}


def validate(
    model: type[M], fields: dict[str, Any], *, lax: bool, before: list[Fault] | None = None
) -> M:
    """Build a model from fields, or tell everything that is wrong with them.

    Args:
        model: what the fields should be.
        fields: as they were sent, renamed to ours.
        lax: read text as numbers, as forms and queries must.
        before: faults found on the way here; they are told first.

    Raises:
        RequestRejected: when there is any fault.
    """
    faults = list(before or ())
    try:
        valid = model.model_validate(fields, strict=not lax)
    except ValidationError as err:
        faults += _faults(err, model)
        raise RequestRejected(faults) from err
    if faults:
        raise RequestRejected(faults)
    return valid


def unknown_field(name: str, known: list[str]) -> Fault:
    """Refuse a name, and tell the nearest one that exists."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    hint = f"Did you mean '{near[0]}'?" if near else "See /openapi.json for the fields there are."
    return Fault(
        name[:80],
        "unknown_field",
        f"Unknown field '{name[:80]}'. The request was refused so that nothing is dropped "
        f"silently. {hint}",
    )


def _faults(err: ValidationError, model: type[BaseModel]) -> list[Fault]:
    by_path: dict[str, Fault] = {}
    for one in err.errors(include_url=False):
        path = _path(one["loc"])
        by_path.setdefault(path, _fault(path, one, sorted(model.model_fields)))
    return list(by_path.values())


def _path(loc: tuple[int | str, ...]) -> str:
    """Name the field, without pydantic's marks for the branch of a union."""
    parts = [str(part) for part in loc if part != "[key]"]
    if parts[0] == "cache":
        del parts[1:2]
        if "rdt" in parts:
            del parts[parts.index("rdt") + 1 :]
    if parts[0] == "input_reference":
        parts = [part for part in parts if part not in {"InputReference", "str"}]
    return ".".join(parts)[:120]


def _fault(path: str, one: Any, known: list[str]) -> Fault:  # noqa: ANN401 - pydantic's ErrorDetails
    kind = one["type"]
    in_cache = path.startswith("cache")
    if kind == "missing":
        return Fault(
            path, "missing_field", f"{path} is missing. The request needs it. Send {path}."
        )
    if kind == "extra_forbidden" and not in_cache:
        return unknown_field(path, known)
    code = "invalid_cache_policy" if in_cache else "invalid_value"
    rule = _rule(kind, one)
    return Fault(path, code, f"{path} is {_quoted(one['input'])}. {rule} Send another value."[:300])


def _rule(kind: str, one: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    if kind in _TYPES:
        return _TYPES[kind]
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**one["ctx"])
    if kind == "extra_forbidden":
        return "There is no such knob."
    return f"{one['msg'].removeprefix('Value error, ').rstrip('.')}."


def _quoted(value: object) -> str:
    if isinstance(value, str):
        return f"'{value[:60]}'"
    if isinstance(value, dict):
        return "an object"
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:60]}..."
