"""Writes the reference of the API from its OpenAPI document, which is in docs/reference as well."""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from cli.schema_words import kind_of, rule_of, without_null
from cli.tables import table

Json = dict[str, Any]

_FORM: Final = "multipart/form-data"
_FILE: Final = "file"
_STREAM: Final = "text/event-stream"
_DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "reference" / "openapi.json"
_PROBES: Final = "The process"
_FAMILIES: Final = MappingProxyType({"loras": "LoRA adapters", "keys": "API keys"})
_EXAMPLES: Final = MappingProxyType(  # of the fields that a command shows
    {
        "request": {"prompt": "a red ball"},
        "prompt": "a paper boat in the rain",
        "name": "laptop",
        "url": "https://hooks.example.com/farm",
        "reason": "no longer needed",
    }
)
_INTRODUCTION: Final = """\
What programs say to a farm. This page is made of [the OpenAPI document](openapi.json), which a \
running farm serves at `/openapi.json`; the code that checks requests makes both.

The commands below need two variables:

```console
$ FARM=http://127.0.0.1:8080
$ KEY=wf_...
```

A key has a scope: `read` looks, `submit` makes and cancels, `admin` does everything; each has \
those before it within. A body is JSON, or a form (`multipart/form-data` or \
`application/x-www-form-urlencoded`) with the same names. A field that the farm does not know is \
refused. Times are Unix seconds. An answer that is no success has an [error](#errorbody), and \
[Errors](errors.md) says of every code what to do. Every answer has an `X-Request-ID`, which leads \
to its line in the log.

Other servers' names for some fields are read too: see \
[Move over from SGLang](../how-to/move-from-sglang.md)."""


def api_page() -> str:
    """Write the page of all operations and objects."""
    document: Json = json.loads(_DOCUMENT.read_text())
    schemas: Json = document["components"]["schemas"]
    operations = [
        (method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    lines = ["# API", "", _INTRODUCTION]
    for family, members in groupby(operations, lambda one: _family(one[1])):
        lines += ["", f"## {family}"]
        for method, path, operation in members:
            lines += ["", *_operation(method.upper(), path, operation, schemas)]
    bodies = {_body_of(operation)[1] for *_, operation in operations}
    bodies -= {name for name in bodies if f'schemas/{name}"' in json.dumps(schemas)}
    lines += ["", "## Objects"]
    for name in sorted(schemas.keys() - bodies):
        lines += ["", *_object(name, schemas[name])]
    return "\n".join(lines)


def _family(path: str) -> str:
    parts = path.strip("/").split("/")
    if parts[0] != "v1":
        return _PROBES
    return _FAMILIES.get(parts[1], parts[1].capitalize())


def _operation(method: str, path: str, operation: Json, schemas: Json) -> Iterator[str]:
    yield f"### `{method} {path}`"
    yield ""
    yield " ".join([operation["summary"], _needs(operation)])
    parameters = [
        (f"`{one['name']}`", one["in"], *_facts(one["schema"]))
        for one in operation["parameters"]
        if one["in"] != "path"
    ]
    yield from table("parameter, in, type, rule, default, meaning", parameters)
    media, name = _body_of(operation)
    if name is not None:
        yield ""
        yield f"Body. {schemas[name]['description']}"
        yield from table("field, type, rule, default, meaning", _fields(schemas[name]))
    yield ""
    yield from _answers(operation)
    yield ""
    yield "```console"
    body = _form(schemas[name]) if name and media == _FORM else _json(schemas.get(name or ""))
    yield f"$ {_command(method, path, operation, body)}"
    yield "```"


def _needs(operation: Json) -> str:
    if "401" in operation["responses"]:
        return operation.get("description", "Needs the scope `read`, or a signed link.")
    return "Needs no key."


def _body_of(operation: Json) -> tuple[str, str | None]:
    """Give the first form that a body may have, and the name of its schema."""
    content: Json = operation.get("requestBody", {}).get("content", {})
    for media, told in content.items():
        return media, told["schema"]["$ref"].split("/")[-1]
    return "", None


def _answers(operation: Json) -> Iterator[str]:
    codes: list[str] = []
    for status, answer in operation["responses"].items():
        if int(status) < 400:
            what = " or ".join(_media(answer)) or answer["description"]
            yield f"* `{status}`: {what}"
        else:
            names = (name.strip("`") for name in answer["description"].split(", "))
            links = ", ".join(f"[`{name}`](errors.md#{name})" for name in names)
            codes.append(f"`{status}` {links}")
    yield f"* Errors: {'; '.join(codes)}"


def _media(answer: Json) -> Iterator[str]:
    for media, content in answer.get("content", {}).items():
        schema: Json = content.get("schema", {})
        yield kind_of(schema, _link) if schema else f"`{media}`"


def _command(method: str, path: str, operation: Json, body: list[str]) -> str:
    """Phrase an operation for a shell; what is in braces becomes a variable."""
    for part in path.split("/"):
        if part.startswith("{"):
            path = path.replace(part, f"${part.strip('{}').upper()}")
    usual = "POST" if body else "GET"
    verb = "" if method == usual else f"-X {method} "
    key = ' -H "Authorization: Bearer $KEY"' if "401" in operation["responses"] else ""
    lines = [f'curl -s {verb}"$FARM{path}"{key}']
    if [*operation["responses"]["200"].get("content", {})] == [_STREAM]:
        lines.append(f"-N -H 'Accept: {_STREAM}'")
    if "302" in operation["responses"]:
        lines.append("-L -o video.mp4")
    return " \\\n    ".join([*lines, *body])


def _json(body: Json | None) -> list[str]:
    if body is None:
        return []
    return ["-H 'Content-Type: application/json'", f"-d '{json.dumps(_example(body))}'"]


def _form(body: Json) -> list[str]:
    """Fill a form: what it needs, and its file."""
    names: list[str] = body.get("required", [])
    others = [f"-F {name}=film-grain" for name in names if name != _FILE]
    return [*others, f"-F {_FILE}=@{_FILE}"]


def _example(body: Json) -> Json:
    """Fill a body: what it needs, or the first field that there is an example of."""
    names: list[str] = body.get("required", [])
    known = [name for name in body["properties"] if name in _EXAMPLES]
    return {name: _EXAMPLES[name] for name in names or known[:1]}


def _object(name: str, schema: Json) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    yield schema.get("description", "")
    yield from table("field, type, rule, default, meaning", _fields(schema))


def _fields(schema: Json) -> list[tuple[str, ...]]:
    required: list[str] = schema.get("required", [])
    properties: dict[str, Json] = schema["properties"]
    lines: list[tuple[str, ...]] = []
    for name, field in properties.items():
        kind, rule, default, meaning = _facts(field)
        needed = name in required and schema["title"].endswith(("Request", "Ref"))
        lines.append((f"`{name}`", kind, rule, "required" if needed else default, meaning))
    return lines


def _facts(schema: Json) -> tuple[str, str, str, str]:
    """Give type, rule, default and meaning."""
    default: object = schema.get("default")
    shown = "" if default is None or "const" in schema else f"`{json.dumps(default)}`"
    plain = without_null(schema)
    return kind_of(plain, _link), rule_of(plain), shown, schema.get("description", "")


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"
