"""The rows of the form that name LoRA adapters: flat fields, as browsers send them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from api.dashboard.words import number
from api.plumbing.wire import is_list, is_object
from shared.jobs.ledger import Values
from shared.vocabulary.adapters import Adapter
from shared.vocabulary.catalog import Model

_MOST: Final = 8  # adapters that a request may name
_AT_LEAST: Final = 2  # rows that are shown


@dataclass(frozen=True, slots=True)
class LoraRow:
    """One adapter as it was chosen; without a name the row is free."""

    place: int
    name: str
    strength: str
    target: str

    def field(self, name: str) -> str:
        """What a field of the row is called."""
        return _field(self.place, name)


def _field(place: int, name: str) -> str:
    return f"loras[{place}][{name}]"


def rows(typed: Mapping[str, str]) -> list[LoraRow]:
    """Read the rows back from what was typed, and leave one free."""
    found = [
        LoraRow(at, *(typed.get(_field(at, name), "") for name in ("name", "strength", "target")))
        for at in range(_MOST)
    ]
    used = max((row.place + 1 for row in found if row.name or row.strength), default=0)
    return found[: max(_AT_LEAST, used + 1)]


def typed_of(loras: list[Values]) -> dict[str, str]:
    """Fill the rows with what a job wore."""
    typed: dict[str, str] = {}
    for at, one in enumerate(loras):
        typed[_field(at, "name")] = one["name"]
        typed[_field(at, "strength")] = number(one["strength"])
        typed[_field(at, "target")] = one["target"]
    return typed


def names(adapters: Mapping[str, Adapter], model: Model, chosen: list[LoraRow]) -> list[str]:
    """List the adapters that may fit a model, and those that are chosen already."""
    fitting = {one.name for one in adapters.values() if one.family in {None, model.family}}
    return sorted(fitting | {row.name for row in chosen if row.name})


def without_free_rows(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out the rows that nobody filled in; a strength without a name is a fault."""
    sent = fields.get("loras")
    if not is_list(sent):
        return fields
    worn = [one for one in sent if not is_object(one) or one.get("name") or one.get("strength")]
    rest = {name: value for name, value in fields.items() if name != "loras"}
    return rest | {"loras": worn} if worn else rest
