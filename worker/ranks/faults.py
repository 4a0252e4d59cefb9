"""How a job of the ranks ends other than well."""

from typing import Any

from shared.vocabulary.errors import JobFailure


class RankFault(Exception):
    """The ranks could not do what was asked; says why, and whether they must be started anew."""

    def __init__(self, failure: JobFailure, trace: str = "", rank: int | None = None) -> None:
        """Keep the failure, where in a rank it came from if nobody foresaw it, and in which."""
        super().__init__(failure.message)
        self.failure = failure
        self.trace = trace
        self.rank = rank

    def facts(self, prompt: str) -> dict[str, Any]:
        """What a log line says of it; a prompt that an exception has quoted is cut out."""
        trace = self.trace.replace(prompt, "[prompt]") if prompt else self.trace
        known = {"kind": self.failure.kind, "message": self.failure.message}
        where = {"rank": self.rank, "trace": trace or None}
        return known | {name: value for name, value in where.items() if value is not None}


class RankStopped(Exception):
    """The job was stopped as asked, after so many steps."""

    def __init__(self, step: int) -> None:
        """Keep the number of finished steps."""
        super().__init__(f"stopped after step {step}")
        self.step = step
