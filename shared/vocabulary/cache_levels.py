"""Whose word counts for the block cache: the request, the group's environment, the default."""

from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field

from shared.vocabulary.cache import CachePolicies, CachePolicy
from shared.vocabulary.catalog import Model
from shared.vocabulary.errors import Fault
from shared.vocabulary.spec import CachePolicyName, CacheWish, SecondaryCache

VARIABLE: Final = "WANFARM_CACHE_"
_ASKED: Final = "cache."
_SECONDARY: Final = frozenset(SecondaryCache.model_fields)
_BINS: Final = ("scm_compute_bins", "scm_cache_bins")


class CacheEnvironment(CacheWish):
    """What a group's `WANFARM_CACHE_*` variables say; None is a variable that is not set."""

    min_steps: Annotated[int, Field(ge=0)] | None = None


FAST: Final = CacheWish(
    enabled=True,
    fn=1,
    bn=0,
    warmup=2,
    rdt=0.24,
    mc=3,
    taylorseer=True,
    ts_order=1,
    scm_preset="fast",
    scm_policy="dynamic",
)


@dataclass(frozen=True, slots=True)
class Settled:
    """The policies of an attempt, and who chose each knob.

    `sources` names per expert and knob the field (`cache.secondary.bn`), the variable
    (`WANFARM_CACHE_BN`) or the named policy (`fast`) that decided; other knobs have their default.
    """

    policies: CachePolicies
    sources: dict[str, dict[str, str]]

    def faults(self, model: Model) -> list[Fault]:
        """Tell what a model cannot do, by the field or variable that asks for it."""
        found: dict[str, Fault] = {}
        for expert, sources in self.sources.items():
            policy: CachePolicy = getattr(self.policies, expert)
            if policy.fn + policy.bn > model.blocks:
                names = [sources.get(knob, f"{knob} (default)") for knob in ("fn", "bn")]
                param = sources.get("bn") or sources["fn"]
                found[param] = Fault(
                    param,
                    "invalid_cache_policy",
                    f"{names[0]} {policy.fn} and {names[1]} {policy.bn} are "
                    f"{policy.fn + policy.bn} blocks. {model.id} has {model.blocks} blocks per "
                    "expert. Use fewer.",
                )
        return list(found.values())

    def record(self) -> dict[str, Any]:
        """Write down what an attempt used."""
        return self.policies.model_dump(mode="json") | {"sources": self.sources}


def settle(
    wish: CachePolicyName | CacheWish, environment: CacheEnvironment, model: Model
) -> Settled | None:
    """Settle every knob: request-low > request > environment-low > environment > default.

    `off` is off, `default` does what the environment says and is off if that says nothing, `fast`
    is a complete policy that the environment does not bend. A request that sets knobs without
    `enabled` means them: caching is on. Its `scm_preset` also sets the environment's bins aside.

    Args:
        wish: what the request says.
        environment: what the group that renders it says.
        model: decides whether there is a low-noise expert.

    Returns:
        The policies, or None when every step is to be computed.
    """
    if not _is_on(wish, environment):
        return None
    if isinstance(wish, CacheWish):
        levels: dict[str, CacheWish] = {_ASKED: wish, VARIABLE: _beside(wish, environment)}
    elif wish == "fast":
        guard = CacheEnvironment(min_steps=environment.min_steps)
        levels = {"fast": FAST, VARIABLE: guard}
    else:
        levels = {VARIABLE: environment}
    high, high_sources = _policy(dict(levels))
    if model.experts == 1:
        return Settled(CachePolicies(high=high), {"high": high_sources})
    both: dict[str, SecondaryCache] = {}
    for name, level in levels.items():
        if level.secondary is not None:
            both[_below(name)] = level.secondary
        both[name] = level
    low, low_sources = _policy(both)
    policies = CachePolicies(high=high, low=low)
    return Settled(policies, {"high": high_sources, "low": low_sources})


def as_request(policies: CachePolicies | None) -> dict[str, Any] | str:
    """Write policies as the `cache` of a request that gets the same ones on any group."""
    if policies is None:
        return "off"
    said = policies.high.model_dump(mode="json", exclude={"min_steps"}, exclude_none=True)
    if policies.low is not None:
        said["secondary"] = policies.low.model_dump(mode="json", include=set(_SECONDARY))
    return {"enabled": True} | said


def _is_on(wish: CachePolicyName | CacheWish, environment: CacheEnvironment) -> bool:
    if wish == "default":
        return bool(environment.enabled)
    if not isinstance(wish, CacheWish):
        return wish == "fast"
    if wish.enabled is not None:
        return wish.enabled
    return says_anything(wish) or bool(environment.enabled)


def says_anything(wish: CacheWish) -> bool:
    """Tell whether a wish sets a knob at all."""
    said = wish.model_dump()
    return bool(said.pop("secondary", None) or said)


def _beside(wish: CacheWish, environment: CacheEnvironment) -> CacheEnvironment:
    """Take the environment's bins away when the request names a preset: bins would win over it."""
    if wish.scm_preset is None:
        return environment
    return environment.model_copy(update=dict.fromkeys(_BINS))


def _below(level: str) -> str:
    """Name the low-noise expert's half of a level."""
    return f"{level}SECONDARY_" if level == VARIABLE else f"{level}secondary."


def _policy(levels: dict[str, SecondaryCache]) -> tuple[CachePolicy, dict[str, str]]:
    """Take each knob from the first level that says it; also tell which one that was."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for knob in CachePolicy.model_fields:
        for name, level in levels.items():
            value: object = getattr(level, knob, None)
            if value is not None:
                values[knob] = value
                sources[knob] = _source(name, knob)
                break
    return CachePolicy.model_validate(values), sources


def _source(level: str, knob: str) -> str:
    if level.startswith(VARIABLE):
        return level + knob.upper()
    return level if level == "fast" else level + knob
