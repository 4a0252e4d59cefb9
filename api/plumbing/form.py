"""A request's body, however it was written, as one plain dict."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from flask import Request

from api.plumbing.wire import is_list, is_object
from shared.vocabulary.errors import WanfarmError

MAX_DEPTH: Final = 16
_KEY: Final = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_CSRF_FIELD: Final = "csrf_token"  # of dashboard forms; read by auth
# Fields that may arrive as JSON text in a form.
_STRUCTURED: Final = frozenset(
    {"cache", "loras", "sigmas", "metadata", "seed", "cache_dit_params", "lora"}
    | {"request", "seeds", "grid"}  # of a batch
    | {"input_reference", "image_reference", "reference_url", "diffusers_kwargs"}
)
_TEXTS: Final = frozenset({"prompt", "negative_prompt", "user"})


@dataclass(frozen=True, slots=True)
class Body:
    """What was sent: the fields by name, the files by name, and how strictly to read types."""

    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    is_form: bool = False


def read_body(request: Request) -> Body:
    """Read a body of any of the three forms; an empty one needs no type.

    Raises:
        WanfarmError: `invalid_json`, `invalid_form`, `ambiguous_form`, `duplicate_field`,
            `conflicting_fields`, `invalid_value` or `unsupported_media_type`.
    """
    if request.mimetype in {"multipart/form-data", "application/x-www-form-urlencoded"}:
        return _read_form(request)
    raw = request.get_data(cache=False)
    if not raw:
        return Body()
    if request.mimetype != "application/json" and not request.mimetype.endswith("+json"):
        raise WanfarmError(
            "unsupported_media_type",
            f"Content-Type is '{request.mimetype[:60]}'. It is not read here. "
            "Send application/json, multipart/form-data or a urlencoded form.",
        )
    value = load_json(raw)
    if not is_object(value):
        raise WanfarmError(
            "invalid_json", "The body is not a JSON object. Fields have names. Send an object."
        )
    return Body(value)


def load_json(raw: bytes | str, *, param: str | None = None) -> Any:  # noqa: ANN401 - any JSON
    """Parse JSON as strictly as the standard says, to a bounded depth.

    Raises:
        WanfarmError: `invalid_json`, `duplicate_field`, or `invalid_value` for text that cannot
            be stored.
    """
    try:
        value = json.loads(
            raw,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_unique,
        )
    except (ValueError, RecursionError) as err:
        where = param or "The body"
        raise WanfarmError(
            "invalid_json",
            f"{where} is not valid JSON ({_why(err)}). Send UTF-8 JSON without NaN or Infinity, "
            f"at most {MAX_DEPTH} levels deep.",
            param=param,
        ) from err
    check_tree(value)
    return value


def check_tree(value: object, path: str = "", depth: int = 1) -> None:
    """Refuse what is nested too deep or cannot be stored as text.

    Raises:
        WanfarmError: `invalid_json` or `invalid_value`.
    """
    if depth > MAX_DEPTH:
        raise WanfarmError(
            "invalid_json",
            f"The body is nested more than {MAX_DEPTH} levels deep. No field needs that. "
            "Flatten it.",
        )
    if is_object(value):
        for key, inner in value.items():
            _check_name(key)
            check_tree(inner, path or key, depth + 1)
    elif is_list(value):
        for inner in value:
            check_tree(inner, path, depth + 1)
    elif isinstance(value, str) and _UNSTORABLE.search(value):
        raise WanfarmError(
            "invalid_value",
            f"{path or 'A value'} holds a character that is no text (NUL or half a surrogate "
            "pair). It cannot be stored. Remove it.",
            param=path or None,
        )


def _check_name(name: str) -> None:
    if _UNSTORABLE.search(name):
        shown = name[:80].encode("unicode_escape").decode()
        raise WanfarmError(
            "invalid_value",
            f"The name '{shown}' holds a character that is no text (NUL or half a surrogate "
            "pair). No field is called so. Correct it.",
            param=shown,
        )


def _why(err: Exception) -> str:
    if isinstance(err, json.JSONDecodeError):
        return f"{err.msg.lower()} at character {err.pos}"
    return "too deep" if isinstance(err, RecursionError) else str(err)[:80]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        refuse_twice(next(name for name in names if names.count(name) > 1))
    return fields


def refuse_twice(name: str) -> NoReturn:
    """Refuse a name that came with two values."""
    raise WanfarmError(
        "duplicate_field",
        f"'{name[:80]}' was sent twice. Only one value can count. Send it once.",
        param=name[:80],
    )


def refuse_nameless(parts: Iterable[tuple[str | None, object]]) -> None:
    """Raise for a part of a form without a name, as it would be dropped silently.

    Raises:
        WanfarmError: `invalid_form`.
    """
    if any(name is None for name, _ in parts):
        raise WanfarmError(
            "invalid_form",
            "A part of the form has no name. It would be dropped silently. Name it, or leave it "
            "out.",
        )


def _read_form(request: Request) -> Body:
    pairs = [(k, v) for k, v in request.form.items(multi=True) if k != _CSRF_FIELD]
    files = [(name, part.read()) for name, part in request.files.items(multi=True)]
    if not pairs and not files and request.content_length and not request.form:
        raise WanfarmError(
            "invalid_form",
            "The form holds no field that can be read. Its boundary may be missing or wrong. "
            "Let your client write the Content-Type.",
        )
    refuse_nameless([*pairs, *files])
    tree: dict[str, Any] = {}
    for key, value in pairs:
        _plant(tree, key, value)
    fields = {name: _shape(name, node, name) for name, node in tree.items()}
    read = {n: _from_text(n, v) for n, v in fields.items() if v != "" or n in _TEXTS}
    check_tree(read)
    return Body(read, _files(files, read), is_form=True)


def _files(files: list[tuple[str, bytes]], fields: dict[str, Any]) -> dict[str, bytes]:
    named: dict[str, bytes] = {}
    for name, content in files:
        if name in named or name in fields:
            refuse_twice(name)
        if content:
            named[name] = content
    return named


def _from_text(name: str, value: object) -> object:
    """Read JSON text in the plain key of a structured field."""
    if name in _STRUCTURED and isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        return load_json(value, param=name)
    return value


def _plant(tree: dict[str, Any], key: str, value: str) -> None:
    """Put `a[b][c]` = value into a tree of dicts whose leaves are lists of values."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise WanfarmError(
            "invalid_form",
            f"The field name '{key[:80]}' cannot be read. Nested names look like cache[fn]. "
            "Correct it.",
            param=key[:80],
        )
    path = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
    if len(path) > MAX_DEPTH:
        _refuse_conflict(path[0])
    node = tree
    for part in path[:-1]:
        inner: object = node.setdefault(part, {})
        if not is_object(inner):
            _refuse_conflict(path[0])
        node = inner
    leaf: object = node.setdefault(path[-1], [])
    if not is_list(leaf):
        _refuse_conflict(path[0])
    leaf.append(value)


def _refuse_conflict(name: str) -> NoReturn:
    raise WanfarmError(
        "conflicting_fields",
        f"'{name[:80]}' was sent both whole and in parts. Only one can count. Send one of them.",
        param=name[:80],
    )


def _shape(name: str, node: Any, top: str) -> Any:  # noqa: ANN401 - a tree of dicts and lists
    """Turn a planted tree into values: scalars, lists and objects."""
    if is_list(node):
        if len(node) > 1:
            refuse_twice(name)
        return node[0]
    keys: set[str] = set(node)
    if keys == {""}:
        return _rows(name, node[""])
    if "" in keys:
        raise _ambiguous(name)
    if top != "metadata" and all(key.isdecimal() for key in keys):
        return [_shape(f"{name}[{key}]", node[key], top) for key in sorted(keys, key=int)]
    return {key: _shape(f"{name}[{key}]", value, top) for key, value in node.items()}


def _rows(name: str, inner: Any) -> list[Any]:  # noqa: ANN401 - a list, or columns by name
    """Rebuild `a[]` as a list, and `a[][x]`, `a[][y]` as rows by position."""
    if is_list(inner):
        return inner
    columns: dict[str, Any] = inner
    lengths = {len(v) if is_list(v) else 0 for v in columns.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise _ambiguous(name)
    return [{key: column[i] for key, column in columns.items()} for i in range(lengths.pop())]


def _ambiguous(name: str) -> WanfarmError:
    return WanfarmError(
        "ambiguous_form",
        f"The rows of '{name[:80]}' cannot be told apart. Its columns have different lengths. "
        f"Send `{name[:80]}` as a JSON string.",
        param=name[:80],
    )
