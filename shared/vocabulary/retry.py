"""Whether and when a failed attempt is followed by another: a pure decision."""

from typing import Final

from shared.vocabulary.spec import FailureKind

MAX_LOSSES: Final = 4  # the fourth lost attempt fails the job: it may be what kills its workers
_ONE_MORE: Final = frozenset({FailureKind.OUT_OF_MEMORY, FailureKind.INTERNAL})
_LONGEST_BACKOFF_S: Final = 60.0


def next_try(kind: FailureKind, *, attempts_left: int, same_before: int) -> float | None:
    """Tell how long to wait before the next attempt, or None when there is none.

    Args:
        kind: why this attempt ended.
        attempts_left: what the request's `max_attempts` still allows.
        same_before: earlier attempts of this job that ended with the same kind.

    Returns:
        Seconds of back-off before jitter (0.5 x 2^n, at most 60), or None to fail the job.
    """
    if not kind.retryable:
        return None
    if kind is FailureKind.LOST:
        return 0.0 if same_before + 1 < MAX_LOSSES else None
    if attempts_left <= 0 or (kind in _ONE_MORE and same_before):
        return None
    return min(0.5 * 2**same_before, _LONGEST_BACKOFF_S)
