"""Which rows a caller may see."""

from api.plumbing.runtime import farm
from shared.jobs import batches, queries
from shared.jobs.keys import Caller
from shared.jobs.ledger import Values
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.ids import is_id


def tenant_of(caller: Caller) -> str | None:
    """Whose videos a caller sees; None means all."""
    return None if caller.may("admin") else caller.tenant


def jobs_of(known: list[Values], caller: Caller) -> dict[str, Values]:
    """Read the jobs that groups run now, as far as this caller may see them."""
    ids = [one["video_id"] for one in known if one["video_id"]]
    rows = [row for one in ids if (row := queries.one(farm(), one, tenant_of(caller)))]
    return {row["id"]: row for row in rows}


def find_row(video_id: str, caller: Caller) -> Values:
    """Read a video with its attempts.

    Raises:
        WanfarmError: `video_not_found`; another tenant's video is as unknown as none.
    """
    row = queries.one(farm(), video_id, tenant_of(caller)) if is_id(video_id, "video") else None
    if row is None:
        raise WanfarmError(
            "video_not_found",
            f"There is no job '{video_id[:60]}'. It was deleted, or never existed. "
            "Look for it in the list of jobs.",
        )
    return row


def find_batch(batch_id: str, caller: Caller) -> Values:
    """Read a batch.

    Raises:
        WanfarmError: `batch_not_found`; another tenant's batch is as unknown as none.
    """
    known = is_id(batch_id, "batch")
    row = batches.one(farm(), batch_id, tenant_of(caller)) if known else None
    if row is None:
        raise WanfarmError(
            "batch_not_found",
            f"There is no batch '{batch_id[:60]}'. Its jobs were deleted, or it never existed. "
            "Look for them in the list of jobs.",
        )
    return row
