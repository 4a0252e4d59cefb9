"""How a job of the ranks ends other than well."""

from shared.vocabulary.errors import JobFailure


class RankFault(Exception):
    """The ranks could not do what was asked; says why, and whether they must be started anew."""

    def __init__(self, failure: JobFailure, trace: str = "") -> None:
        """Keep the failure, and where in a rank it came from if nobody foresaw it."""
        super().__init__(failure.message)
        self.failure = failure
        self.trace = trace


class RankStopped(Exception):
    """The job was stopped as asked, after so many steps."""

    def __init__(self, step: int) -> None:
        """Keep the number of finished steps."""
        super().__init__(f"stopped after step {step}")
        self.step = step
