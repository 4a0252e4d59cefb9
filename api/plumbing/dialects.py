"""Other servers' field names become ours; what we do not know or have is refused by name."""

from typing import Any, Final

from api.plumbing.form import load_json
from api.plumbing.wire import is_list, is_object
from shared.vocabulary.errors import Fault, WanfarmError
from shared.vocabulary.request import (
    ALIASES,
    CACHE_DIT_NAMES,
    COMPOSED,
    CONTAINERS,
    OFF_VALUES,
    REFUSED,
    Overrides,
)
from shared.vocabulary.validation import unknown_field

_OURS: Final = frozenset(Overrides.model_fields)
_KNOWN: Final = sorted({*_OURS, *ALIASES, *OFF_VALUES, *COMPOSED, *CONTAINERS})
_COUNTS: Final = frozenset({"n", "num_outputs_per_prompt"})
_FALSE: Final = frozenset({"false", "0"})


def translate(sent: dict[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """Rename and rebuild fields; returns them with a fault for each that cannot be taken.

    Raises:
        WanfarmError: `conflicting_fields` when one thing is said under two names.
    """
    fields = _unpack(sent)
    faults = _refusals(fields)
    for alias, name in ALIASES.items():
        if alias in fields:
            _put(fields, name, fields.pop(alias), alias)
    _join_size(fields, faults)
    _join_loras(fields)
    _join_cache(fields)
    _take_one_seed(fields, faults)
    for name in [*fields]:
        if name not in _OURS:
            fields.pop(name)
            faults.append(unknown_field(name, _KNOWN))
    return fields, faults


def _unpack(sent: dict[str, Any]) -> dict[str, Any]:
    """Lift the members of `extra_body` and its sisters to the top."""
    fields = {name: value for name, value in sent.items() if name not in CONTAINERS}
    for container in CONTAINERS:
        inner = sent.get(container)
        if isinstance(inner, str):
            inner = load_json(inner, param=container)
        if inner is None:
            continue
        if not is_object(inner):
            raise WanfarmError(
                "invalid_value",
                f"{container} is no object. Its members count as fields. Send an object.",
                param=container,
            )
        for name, value in inner.items():
            _put(fields, name, value, container)
    return fields


def _put(fields: dict[str, Any], name: str, value: object, source: str) -> None:
    if name in fields:
        raise WanfarmError(
            "conflicting_fields",
            f"'{name[:80]}' was sent twice, once through '{source}'. Only one can count. "
            "Send one of them.",
            param=name[:80],
        )
    fields[name] = value


def _refusals(fields: dict[str, Any]) -> list[Fault]:
    """Take dialect fields out: quietly when they are off, with a fault when they are not."""
    faults: list[Fault] = []
    for name in [*fields]:
        if name in OFF_VALUES:
            if not _is_off(fields.pop(name), OFF_VALUES[name]):
                faults.append(_many(name) if name in _COUNTS else _unsupported(name))
        elif name in REFUSED or name.endswith("_model_path"):
            fields.pop(name)
            faults.append(_unsupported(name))
    return faults


def _is_off(value: object, off: object) -> bool:
    if isinstance(value, str):
        text = value.strip().lower()
        return text == "1" if off == 1 else text in _FALSE
    return value is None or (type(value) is type(off) and value == off)


def _many(name: str) -> Fault:
    return Fault(
        name,
        "use_batches",
        f"{name} is not 1. One request makes one video. Send it to /v1/batches, with variations.",
    )


def _unsupported(name: str) -> Fault:
    return Fault(
        name,
        "unsupported_feature",
        f"{name} names something that this farm does not do. The request was refused so that "
        "nothing is dropped silently. Leave it out.",
    )


def _join_size(fields: dict[str, Any], faults: list[Fault]) -> None:
    sides = {name: fields.pop(name) for name in ("width", "height") if name in fields}
    if not any(value is not None for value in sides.values()):
        return
    width, height = (str(sides.get(name)) for name in ("width", "height"))
    if not (width.isdecimal() and height.isdecimal()):
        wrong = "height" if width.isdecimal() else "width"
        faults.append(
            Fault(
                wrong,
                "invalid_value",
                f"width is {width[:20]} and height is {height[:20]}. Both are whole pixels. "
                "Send both, or size.",
            )
        )
        return
    _put(fields, "size", f"{width[:6]}x{height[:6]}", "width")


def _join_loras(fields: dict[str, Any]) -> None:
    """Take one `lora` for a list of one, and `scale` for `strength`."""
    one = fields.pop("lora", None)
    if one is not None:
        _put(fields, "loras", [one], "lora")
    entries = fields.get("loras")
    if is_list(entries):
        fields["loras"] = [
            {"strength" if name == "scale" else name: value for name, value in entry.items()}
            if is_object(entry) and "strength" not in entry
            else entry
            for entry in entries
        ]


def _join_cache(fields: dict[str, Any]) -> None:
    """Read the switches of cache-dit's dialect as our `cache`."""
    enabled, params = fields.pop("enable_cache_dit", None), fields.pop("cache_dit_params", None)
    if enabled is None and params is None:
        return
    if _is_off(enabled, off=False) and enabled is not None:
        _put(fields, "cache", "off", "enable_cache_dit")
        return
    wish: Any = params
    if is_object(params):
        wish = {"enabled": True} | _rename_knobs(params)
    _put(fields, "cache", {"enabled": True} if wish is None else wish, "cache_dit_params")


def _rename_knobs(params: dict[str, Any]) -> dict[str, Any]:
    renamed = {CACHE_DIT_NAMES.get(name, name): value for name, value in params.items()}
    secondary = renamed.get("secondary")
    if is_object(secondary):
        renamed["secondary"] = _rename_knobs(secondary)
    return renamed


def _take_one_seed(fields: dict[str, Any], faults: list[Fault]) -> None:
    seeds = fields.get("seed")
    if not is_list(seeds):
        return
    if len(seeds) == 1:
        fields["seed"] = seeds[0]
        return
    fields.pop("seed")
    faults.append(
        Fault(
            "seed",
            "use_batches",
            "seed is a list. One request makes one video. Send it to /v1/batches, with seeds.",
        )
    )
