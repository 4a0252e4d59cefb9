"""The block cache's policy: complete knobs per expert, as the engine obeys and a report keeps."""

from typing import Annotated

from pydantic import Field

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
    Value,
    Warmup,
)


class CachePolicy(Value):
    """All knobs for one expert. Names and meaning are cache-dit's DBCache, TaylorSeer and SCM."""

    fn: Positive = 1  # first blocks, always computed: they tell how much has changed
    bn: Bn = 0  # last blocks, always computed
    warmup: Warmup = 4  # first steps of the expert, computed
    warmup_interval: Positive = 1
    rdt: Rdt = 0.24  # residual difference
    mc: Limit = 3  # most cached steps in a row; -1 no limit
    max_cached: Limit = -1  # most cached steps in all; -1 no limit
    max_accumulated: Accumulated | None = None
    taylorseer: bool = False
    ts_order: TaylorOrder = 1
    scm_preset: ScmPreset = "none"
    scm_compute_bins: tuple[Bin, ...] | None = None  # override the preset
    scm_cache_bins: tuple[Bin, ...] | None = None
    scm_policy: ScmPolicy = "dynamic"
    force_last: bool = False  # compute the expert's last step
    min_steps: Annotated[int, Field(ge=0)] = 8  # an expert with fewer steps runs uncached


class CachePolicies(Value):
    """The policies of one attempt, one per expert; a one-expert model has no `low`."""

    high: CachePolicy
    low: CachePolicy | None = None
