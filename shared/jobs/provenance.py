"""How a finished video was made: its recipe beyond the request, as its attempt recorded it."""

from typing import Any

from shared.jobs.ledger import Values
from shared.vocabulary.cache import CachePolicies
from shared.vocabulary.cache_levels import as_request
from shared.vocabulary.catalog import MODELS, Model

_MANIFEST = 1  # version of this shape
_PARALLEL = ("cfg", "ulysses", "ring", "residency")
_CLASS = ("precision", "attention")
_LANES = ("pattern", "reasons", "diffs")
_GAIN_BASIS = "computed-step time of this run"


def provenance(row: Values) -> Values | None:
    """Tell what made a completed video; `row` has its attempts. None where nothing was recorded."""
    attempt = finished_attempt(row)
    if attempt is None:
        return None
    report: Values = attempt["report"]
    plan: Values = attempt["plan"] or {}
    hashes: Values = report.get("loras") or {}
    build: Values = report.get("build") or {}
    return {
        "manifest": _MANIFEST,
        "loras": [one | {"sha256": hashes.get(one["name"])} for one in row["spec"]["loras"]],
        "software": report.get("software"),
        "gpu": report.get("gpu"),
        "weights_sha256": build.get("weights"),
        "parallel": {n: plan[n] for n in _PARALLEL if n in plan}
        | {n: build[n] for n in _CLASS if n in build},
        "resumed_at_step": report.get("resumed_at"),
        "latents_sha256": report.get("latents_sha256"),
        "cache": _cache(report, MODELS[row["model"]]),
    }


def finished_attempt(row: Values) -> Values | None:
    """Find the attempt that completed a video."""
    tries: list[Values] = row.get("attempts") or []
    return next((one for one in reversed(tries) if one["report"]), None)


def cache_used(row: Values) -> Values | str | None:
    """Write the policy that made a video as a request's `cache`; None when nothing tells."""
    attempt = finished_attempt(row)
    if attempt is None or attempt["cache"] is None:
        return None
    return as_request(_policies(attempt["cache"]))


def _policies(recorded: Values) -> CachePolicies | None:
    policies = {name: value for name, value in recorded.items() if name != "sources"}
    return CachePolicies.model_validate(policies) if policies["high"] else None


def _cache(report: Values, model: Model) -> Values | None:
    if report.get("cache") is None:
        return None
    policies = CachePolicies.model_validate(report["cache"])
    cached: Values = report.get("cached") or {}
    return (
        {"policy": as_request(policies), "switch_step": report["switch_step"]}
        | {name: report.get(name) for name in _LANES}
        | {"blocks_skipped": _blocks_skipped(report["pattern"], policies, model.blocks)}
        | cached
        | {"gain_basis": _GAIN_BASIS}
    )


def _blocks_skipped(pattern: dict[str, Any], policies: CachePolicies, blocks: int) -> float:
    """The ratio of blocks that were not computed, of those that an uncached run computes."""
    calls = skipped = 0
    for expert, lanes in pattern.items():
        policy = policies.low if expert == "low" and policies.low else policies.high
        letters = "".join(lanes.values())
        calls += len(letters)
        skipped += letters.count("c") * (blocks - policy.fn - policy.bn)
    return round(skipped / max(1, blocks * calls), 4)
