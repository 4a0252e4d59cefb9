"""What tests of batches say often: a small batch, and its videos as they are."""

from typing import Any

from shared.jobs import batches
from shared.jobs.batches import BatchOrder, Member
from shared.machinery.farm import Farm
from tests.services.jobs import order


def asked(farm: Farm, count: int, key: str | None = None, **given: Any) -> BatchOrder:
    """So many small videos that differ in their seeds."""
    seeds = range(1, count + 1)
    members = [Member(order(farm, seed=seed, **given), {"seed": seed}) for seed in seeds]
    axes = {"seed": [*seeds]}
    return BatchOrder(members, axes, idempotency_key=key, fingerprint="f" if key else "")


def submit(farm: Farm, count: int, **given: Any) -> str:
    return batches.submit(farm, asked(farm, count, **given)).batch_id


def batch(farm: Farm, batch_id: str) -> dict[str, Any]:
    found = batches.one(farm, batch_id, None)
    assert found is not None
    return found


def ids(farm: Farm, batch_id: str) -> list[str]:
    """Its videos, in its own order."""
    return [item["video_id"] for item in batch(farm, batch_id)["items"]]
