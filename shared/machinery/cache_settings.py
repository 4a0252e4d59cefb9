"""The block cache's part of the environment: our names, and those that SGLang gives them."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode

from shared.vocabulary.cache_levels import VARIABLE, CacheEnvironment
from shared.vocabulary.spec import (
    Accumulated,
    Bin,
    Bn,
    Limit,
    Positive,
    Rdt,
    ScmPolicy,
    ScmPreset,
    TaylorOrder,
    Warmup,
)

_ALIAS: Final = "SGLANG_CACHE_DIT_"
_WITHOUT_ALIAS: Final = frozenset(
    {"MAX_CACHED", "WARMUP_INTERVAL", "MAX_ACCUMULATED", "FORCE_LAST", "MIN_STEPS"}
)
_WORDS: Final = {"true": True, "1": True, "false": False, "0": False}


class CacheConfigurationError(ValueError):
    """Names of the two tools clash, or one is not known here; the text says which."""


def _word(value: object) -> object:
    """Read the words that SGLang takes for yes and no; it takes any other one for no."""
    known = _WORDS.get(str(value).lower())
    if known is None:
        raise ValueError("must be true, 1, false or 0")
    return known


def _meaning(text: str) -> object:
    return _WORDS.get(text.lower(), text.lower())


def split_list(value: object) -> object:
    """Read a comma-separated list."""
    if not isinstance(value, str):
        return value
    return [part for part in value.replace(" ", "").split(",") if part]


Word = Annotated[bool, BeforeValidator(_word)]
Bins = Annotated[
    tuple[Bin, ...], NoDecode, BeforeValidator(split_list), Field(min_length=1, max_length=100)
]


class CacheSettings(BaseSettings):
    """What a group does about `cache` where a request leaves it open; None: it has no say."""

    cache_enabled: Word | None = Field(
        default=None, description="Cache blocks for requests that leave it open."
    )
    cache_fn: Positive | None = Field(
        default=None, description="First blocks, always computed; 1 if unset."
    )
    cache_bn: Bn | None = Field(
        default=None, description="Last blocks, always computed; 0 if unset."
    )
    cache_warmup: Warmup | None = Field(
        default=None, description="First steps of each expert, always computed; 4 if unset."
    )
    cache_warmup_interval: Positive | None = Field(
        default=None, description="Compute every so many of the warm-up steps; 1 if unset."
    )
    cache_rdt: Rdt | None = Field(
        default=None, description="Residual difference below which a step is cached; 0.24 if unset."
    )
    cache_mc: Limit | None = Field(
        default=None, description="Most cached steps in a row, -1 for no limit; 3 if unset."
    )
    cache_max_cached: Limit | None = Field(
        default=None, description="Most cached steps of an expert; -1, no limit, if unset."
    )
    cache_max_accumulated: Accumulated | None = Field(
        default=None, description="Sum of differences after which a step is computed."
    )
    cache_taylorseer: Word | None = Field(
        default=None, description="Extrapolate the residual; plain reuse if unset."
    )
    cache_ts_order: TaylorOrder | None = Field(
        default=None, description="Order of that extrapolation; 1 if unset."
    )
    cache_scm_preset: ScmPreset | None = Field(
        default=None, description="Mask of steps to compute; `none` if unset."
    )
    cache_scm_compute_bins: Bins | None = Field(
        default=None, description="Lengths of its computed stretches; with the next, not alone."
    )
    cache_scm_cache_bins: Bins | None = Field(
        default=None, description="Lengths of its cached stretches; the two replace the preset."
    )
    cache_scm_policy: ScmPolicy | None = Field(
        default=None, description="Whether masked steps still look at the difference."
    )
    cache_force_last: Word | None = Field(
        default=None, description="Compute the last step of each expert."
    )
    cache_min_steps: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="An expert with fewer steps runs uncached; 8 if unset."
    )
    cache_secondary_fn: Positive | None = Field(
        default=None, description="`FN` of the low-noise expert."
    )
    cache_secondary_bn: Bn | None = Field(default=None, description="`BN` of the low-noise expert.")
    cache_secondary_warmup: Warmup | None = Field(
        default=None, description="`WARMUP` of the low-noise expert."
    )
    cache_secondary_rdt: Rdt | None = Field(
        default=None, description="`RDT` of the low-noise expert."
    )
    cache_secondary_mc: Limit | None = Field(
        default=None, description="`MC` of the low-noise expert."
    )
    cache_secondary_taylorseer: Word | None = Field(
        default=None, description="`TAYLORSEER` of the low-noise expert."
    )
    cache_secondary_ts_order: TaylorOrder | None = Field(
        default=None, description="`TS_ORDER` of the low-noise expert."
    )

    @property
    def cache(self) -> CacheEnvironment:
        """All of it as one value."""
        said: dict[str, object] = {}
        low: dict[str, object] = {}
        for field in CacheSettings.model_fields:
            knob = field.removeprefix("cache_")
            whose = low if knob.startswith("secondary_") else said
            whose[knob.removeprefix("secondary_")] = getattr(self, field)
        return CacheEnvironment.model_validate(said | {"secondary": low})


def alias_of(field: str) -> str | None:
    """Name SGLang's variable for a field of `CacheSettings`, if it has one."""
    stem = field.upper().removeprefix("CACHE_")
    return None if stem in _WITHOUT_ALIAS else _ALIAS + stem


def aliases_in(environment: Mapping[str, str]) -> dict[str, str]:
    """Find the fields that the environment sets by SGLang's name: field -> that name.

    Raises:
        CacheConfigurationError: naming the variable, when we do not have what it sets, or when
            our own name is set to something else.
    """
    names = {alias: field for field in CacheSettings.model_fields if (alias := alias_of(field))}
    found: dict[str, str] = {}
    for name, value in environment.items():
        if not name.startswith(_ALIAS) or not value:
            continue
        if name not in names:
            _check_unknown(name, value)
            continue
        own = "WANFARM_" + names[name].upper()
        ours = environment.get(own) or value
        if _meaning(ours) != _meaning(value) or environment.get(f"{own}_FILE"):
            raise CacheConfigurationError(
                f"{own} and {name} are both set, to different values. They mean the same. Keep one."
            )
        found[names[name]] = name
    return found


def _check_unknown(name: str, value: str) -> None:
    if "_DMD" in name:
        if value.lower() not in {"false", "0", "off"}:
            raise CacheConfigurationError(
                f"{name} is {value!r}. This calibrator is not supported. Unset it."
            )
        return
    ours = [VARIABLE + field.upper().removeprefix("CACHE_") for field in CacheSettings.model_fields]
    near = difflib.get_close_matches(name.replace(_ALIAS, VARIABLE), ours, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise CacheConfigurationError(f"{name} is not a setting of wanfarm.{hint}")
