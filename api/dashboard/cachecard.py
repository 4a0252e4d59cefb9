"""What the block cache was told and what it did, for the page of one video."""

from dataclasses import dataclass
from typing import Any, Final

from shared.jobs.ledger import Values
from shared.vocabulary.cache import CachePolicy

_ALWAYS: Final = ("fn", "bn", "warmup", "rdt", "mc")  # shown whoever chose them


@dataclass(frozen=True, slots=True)
class Knob:
    """One knob: its value per expert, and who chose it."""

    name: str
    values: list[str]
    source: str


@dataclass(frozen=True, slots=True)
class CacheCard:
    """The policy of an attempt, with what came of it once that is known."""

    summary: list[str]
    experts: list[str]
    knobs: list[Knob]


def cache_card(told: Values, report: Values | None) -> CacheCard | None:
    """Describe the cache of an attempt; None when it computed every step.

    Args:
        told: what the attempt told the cache: a policy per expert, and the sources of its knobs.
        report: of the attempt that completed, if one has.
    """
    experts = [expert for expert in ("high", "low") if told.get(expert)]
    if not experts:
        return None
    sources: dict[str, dict[str, str]] = told["sources"]
    chosen = {knob for expert in experts for knob in sources[expert]}
    knobs = [
        Knob(
            name,
            [_value(told[expert][name]) for expert in experts],
            ", ".join(dict.fromkeys(_whose(sources[expert].get(name)) for expert in experts)),
        )
        for name in CachePolicy.model_fields
        if name in chosen or name in _ALWAYS
    ]
    heads = experts if len(experts) > 1 else ["value"]
    return CacheCard(_summary((report or {}).get("cached")), heads, knobs)


def _summary(cached: Values | None) -> list[str]:
    """Say what was cached, what it gained, and what a step took."""
    if not cached:
        return []
    share = f"{cached['cached_ratio']:.0%} of all calls cached"
    gain = f", {cached['gain']:.2f} times as fast as without" if cached["gain"] else ""
    lines = [f"{share}{gain}."]
    for expert, took in cached["step_s"].items():
        parts = [f"{took[kind]:.2f} s {kind}" for kind in ("computed", "cached") if took[kind]]
        whose = "" if expert == "single" else f"{expert}: "
        lines.append(f"{whose}{', '.join(parts)} (median step)")
    return lines


def _value(value: Any) -> str:  # noqa: ANN401 - a knob's, as JSON has it
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ",".join(map(str, value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return str(value)


def _whose(source: str | None) -> str:
    if source is None:
        return "default"
    if source.startswith("cache."):
        return "asked"
    return "environment" if source.isupper() else source
