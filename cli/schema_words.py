"""JSON schemas in words, for the cells of reference tables."""

from collections.abc import Callable
from typing import Any, Final

Json = dict[str, Any]

_SPANS: Final = (  # least, most, their unit
    ("minimum", "maximum", ""),
    ("exclusiveMinimum", "exclusiveMaximum", ""),
    ("minItems", "maxItems", " of them"),
    ("minProperties", "maxProperties", " of them"),
)
_LENGTHS: Final = ("minLength", "maxLength", " characters")


def rule_of(schema: Json) -> str:
    """Say which values fit; empty where all of the type do."""
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if branches := _branches(schema):
        return ", or ".join(rule for one in branches if (rule := rule_of(one)))
    spans = (*_SPANS, _LENGTHS) if schema.get("type") == "string" else _SPANS
    rules = [rule for span in spans if (rule := _span(schema, *span))]
    if "pattern" in schema:
        rules.append(f"matches `{schema['pattern']}`")
    if "items" in schema and (inner := rule_of(schema["items"])):
        rules.append(f"each {inner}")
    return ", ".join(rules)


def _span(schema: Json, least: str, most: str, unit: str) -> str:
    low, high = (schema.get(name) for name in (least, most))
    open_ended = least.startswith("exclusive")
    if low is not None and high is not None and not open_ended:
        return f"{low} to {high}{unit}"
    lower, upper = ("above", "below") if open_ended else ("at least", "at most")
    bounds = [(lower, low), (upper, high)]
    return ", ".join(f"{word} {bound}{unit}" for word, bound in bounds if bound is not None)


def kind_of(schema: Json, link: Callable[[str], str]) -> str:
    """Name a type.

    Args:
        schema: of the value.
        link: phrases the name of another schema.
    """
    if "$ref" in schema:
        return link(schema["$ref"].rpartition("/")[2])
    if branches := _branches(schema):
        kinds = [kind_of(one, link) for one in branches]
        return " or ".join(dict.fromkeys(kinds))
    if schema.get("type") == "array":
        return f"array of {kind_of(schema['items'], link)}"
    return schema.get("type", "any")


def without_null(schema: Json) -> Json:
    """Take the null away that only means "left out"."""
    left = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if schema.get("default", ...) is not None or not left:
        return schema
    return {**schema, "anyOf": left}


def _branches(schema: Json) -> list[Json]:
    return schema.get("anyOf") or schema.get("oneOf") or []
