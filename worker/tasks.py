"""The one Celery task: a ring says that there may be work, and is never believed."""

from celery import Celery

from shared.machinery.doorbell import RING
from worker.attempt import Runner


def register(app: Celery, runner: Runner) -> None:
    """Answer rings by looking at Postgres until nothing is due."""

    @app.task(name=RING, ignore_result=True)
    def ring() -> None:  # pyright: ignore[reportUnusedFunction]
        runner.run_until_empty()
