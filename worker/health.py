"""Whether a group should take jobs: its failures in a row, and when it is tested again."""

import time
from collections.abc import Callable
from typing import Final

from shared.vocabulary.errors import JobFailure
from shared.vocabulary.spec import FailureKind
from worker.ranks.faults import RankFault

_MOST: Final = 2  # failures in a row that are probably the group's own
_SUSPECT: Final = frozenset(
    {
        FailureKind.COLLECTIVE,
        FailureKind.CUDA_ERROR,
        FailureKind.HANG,
        FailureKind.NON_FINITE,
        FailureKind.RANK_DIED,
    }
)
_FIRST_PAUSE_S: Final = 15.0
_LONGEST_PAUSE_S: Final = 600.0


class Health:
    """A group's streak of failures that may be its own; two take it out of service.

    It comes back by a self-test, the first one at once, others after 15 s and more.
    """

    def __init__(self) -> None:
        """Begin in health."""
        self._streak = 0
        self._tests = 0
        self._test_at = 0.0
        self._last = ""

    def is_good(self, test: Callable[[], None]) -> bool:
        """Tell whether the group may take jobs; tests it first where it is sick and it is time.

        Args:
            test: raises `RankFault` when it is not passed.
        """
        if self._streak < _MOST:
            return True
        if time.monotonic() < self._test_at:
            return False
        pause = min(_FIRST_PAUSE_S * 2**self._tests, _LONGEST_PAUSE_S)
        self._tests += 1
        try:
            test()
        except RankFault as err:
            self._last = err.failure.message
            self._test_at = time.monotonic() + pause
            return False
        self.well()
        return True

    @property
    def streak(self) -> int:
        """Failures in a row that may be the group's own."""
        return self._streak

    @property
    def told(self) -> str:
        """Why it is out of service, for people."""
        wait = max(0.0, self._test_at - time.monotonic())
        return (
            f"Out of service after {self._streak} failures in a row. The last: {self._last} "
            f"It tests itself again in {wait:.0f} s."
        )

    def failed(self, failure: JobFailure) -> None:
        """Count a failure, if it may be the group's own."""
        if failure.kind in _SUSPECT:
            self._streak += 1
            self._last = failure.message

    def well(self) -> None:
        """Forget all failures: a video was rendered, or a test passed."""
        self._streak = self._tests = 0
        self._test_at = 0.0
