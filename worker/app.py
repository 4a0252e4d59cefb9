"""The parent of one GPU group: a Celery worker that owns the queue and never loads CUDA."""

import fcntl
import os
import signal
import socket
import sys
import threading
import uuid
import warnings
from pathlib import Path
from typing import Any, Final

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import worker_shutting_down
from celery.worker import state
from sqlalchemy.exc import SQLAlchemyError

from shared.jobs import groups, lifecycle
from shared.jobs.tick import Ticker
from shared.machinery.doorbell import celery_app, queue_of
from shared.machinery.farm import Farm, open_farm
from shared.machinery.logs import configure, logger
from shared.machinery.settings import ConfigurationError, Settings, load_settings
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.spec import SecondaryCache
from worker import tasks, telling
from worker.attempt import Runner
from worker.checkpoints import available
from worker.gpus import Gpus
from worker.keeper import Keeper, heartbeat_file
from worker.layout import group_of
from worker.scratch import scratch

_STOP_S: Final = 30.0  # what ranks may take to stop after the drain time


def main() -> None:
    """Run the parent until SIGTERM: the running job is finished within the drain time."""
    try:
        settings = load_settings()
        farm = open_farm(settings, "worker")
    except ConfigurationError as err:
        raise SystemExit(f"wanfarm worker: {err}") from err
    configure(settings.log_level, service="worker")
    # Celery's warning to root is about pickled messages; ours are JSON, and carry nothing.
    warnings.simplefilter("ignore", SecurityWarning)
    lock = _lock_group(settings)
    try:
        with scratch(settings):
            code = _serve(farm, lock)
    finally:
        farm.close()
    sys.exit(code)


def _serve(farm: Farm, lock: int) -> int:
    settings = farm.settings
    checkpoints, missing = available(settings)
    log = logger(group=settings.group)
    for model in missing:
        log.error("checkpoint.missing", model=model, models_dir=str(settings.models_dir))
    if not checkpoints:
        raise SystemExit(
            f"wanfarm worker: no checkpoint of {', '.join(missing)} is on this host. "
            "Put it into the models directory or the Hugging Face cache, and start again."
        )
    if settings.cache.secondary != SecondaryCache() and all(
        MODELS[name].experts == 1 for name in checkpoints
    ):
        log.warning("cache.secondary_unused", models=list(checkpoints))
    if settings.offload_image_encoder != "auto":
        log.info("offload.no_image_encoder", models=list(checkpoints))
    identity = groups.Identity(
        name=settings.group,
        incarnation=uuid.uuid4().hex,
        host=socket.gethostname(),
        ranks=settings.ranks,
        device=settings.device,
        models=tuple(checkpoints),
    )
    sign = heartbeat_file(settings.data_dir, settings.group).absolute()
    ranks = group_of(settings, lock, sign=sign)
    runner = Runner(farm, identity, ranks, checkpoints)
    gpus = Gpus()

    def reading() -> groups.Reading:
        return gpus.seen_in(runner.reading())

    keeper = Keeper(farm, identity, reading, runner.obey)
    runner.watched_by(keeper)
    farm.meters.begin("worker", checkpoints)
    telling.serve(farm, telling.gpus_of(settings.group, reading))
    groups.register(farm, identity)
    lifecycle.take_over(farm, settings.group)
    looker, ticker = Looker(farm, runner), Ticker(farm)
    for thread in (keeper, looker, ticker):
        thread.start()
    if settings.device == "cuda":
        gpus.start()
    try:
        return _consume(farm, runner, identity.models)
    finally:
        runner.leave()
        looker.stop()
        ticker.stop()
        gpus.stop()
        ranks.stop()
        keeper.stop()
        keeper.join(timeout=5)
        groups.leave(farm, identity)


def _consume(farm: Farm, runner: Runner, models: tuple[str, ...]) -> int:
    app: Celery = celery_app(farm.settings)
    tasks.register(app, runner)
    patience = threading.Timer(farm.settings.drain_s, runner.hand_back)
    patience.daemon = True

    # Celery keeps weak references to its receivers: this name keeps ours alive.
    def on_shutdown(**_: Any) -> None:  # noqa: ANN401 - as Celery calls it
        runner.leave()
        if not patience.is_alive():
            patience.start()

    worker_shutting_down.connect(on_shutdown)
    worker = app.Worker(
        pool="threads",
        concurrency=1,
        queues=[queue_of(model) for model in models],
        hostname=f"{farm.settings.group}@{socket.gethostname()}",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        loglevel="WARNING",
    )
    worker.start()
    if not _ends_at_once():
        runner.join(
            farm.settings.drain_s + _STOP_S
        )  # the looker's job is as good as one that was rung for
    patience.cancel()
    return int(worker.exitcode or 0)


def _ends_at_once() -> bool:
    """Tell whether a second SIGTERM asked to end at once."""
    return state.should_terminate is not None and state.should_terminate is not False


class Looker(threading.Thread):
    """Warms the group up, then looks for work unasked: rings may be lost, Redis may be away."""

    def __init__(self, farm: Farm, runner: Runner) -> None:
        """Prepare; `start()` begins."""
        super().__init__(name="looker", daemon=True)
        self._farm = farm
        self._runner = runner
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Look, whatever the database says."""
        log = logger(group=self._farm.settings.group)
        self._runner.warm_up()
        while not self._stop_asked.is_set():
            try:
                self._runner.run_until_empty()
            except SQLAlchemyError as err:
                log.warning("look.failed", error=type(err).__name__)
            self._stop_asked.wait(self._farm.settings.idle_look_s)

    def stop(self) -> None:
        """End the thread, soon."""
        self._stop_asked.set()


def _lock_group(settings: Settings) -> int:
    """Hold the group's file lock for as long as this process or one of its ranks lives."""
    path = Path(settings.data_dir).resolve() / "groups" / f"{settings.group}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        raise SystemExit(
            f"wanfarm worker: group {settings.group} is already running on this host. "
            "Stop that worker first, or set another WANFARM_GROUP."
        ) from err
    return descriptor


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    main()
