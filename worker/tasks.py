"""The one Celery task: a ring says that there may be work, and is never believed."""

from typing import Any, Final

from celery import Celery
from celery.bootsteps import StartStopStep

from shared.machinery.doorbell import RING
from worker.attempt import Runner

_GLANCE_S: Final = 0.02


class Glance(StartStopStep):
    """Turns Celery's event loop over all the time.

    With its prefetch off, Celery takes no ring while a task runs, and the end of the task does not
    wake it: the next ring waited up to a second (Celery 5.7, kombu 5.7).
    """

    requires = ("celery.worker.components:Timer",)

    def start(self, parent: Any) -> None:  # noqa: ANN401 - the worker, as Celery gives it
        """Begin, with the worker."""
        parent.timer.call_repeatedly(_GLANCE_S, lambda: None)


def register(app: Celery, runner: Runner) -> None:
    """Answer rings by looking at Postgres until nothing is due."""
    app.steps["worker"].add(Glance)

    @app.task(name=RING, ignore_result=True)
    def ring() -> None:  # pyright: ignore[reportUnusedFunction]
        runner.run_until_empty()
