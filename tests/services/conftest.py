"""What tests of a parent with real ranks and fake engines stand on."""

import threading
from pathlib import Path

import pytest

from shared.jobs import groups
from tests.services.jobs import MODEL
from worker.attempt import Runner
from worker.keeper import Keeper
from worker.ranks.group import Layout, RankGroup

ME = groups.Identity("g0", "life-1", "host", 1, "cpu", (MODEL,))


class Parent:
    """A parent without Celery: its runner, and its keeper once it is started."""

    def __init__(self, farm, checkpoint, engine: str = "tests.engine.filming:Filmmaker") -> None:
        layout = Layout(1, "cpu", engine, 30, 30, hang_s=3)
        self.ranks = RankGroup(layout)
        self.runner = Runner(farm, ME, self.ranks, {MODEL: checkpoint})
        self.keeper = Keeper(farm, ME, self.runner.reading, self.runner.obey)
        self.runner.watched_by(self.keeper)
        self.thread = threading.Thread(target=self.work)
        groups.register(farm, ME)

    def work(self) -> None:
        """Take what is due and see it through."""
        self.runner.run_until_empty()
        self.runner.join(30)

    def end(self) -> None:
        self.runner.leave()
        self.runner.hand_back()
        self.thread.join(30) if self.thread.ident else None
        self.keeper.stop()
        self.keeper.join(10) if self.keeper.ident else None
        self.ranks.kill()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A directory that fake engines take for weights, and that lets them load."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "go").touch()
    return folder


@pytest.fixture
def parent(farm, checkpoint):
    made = Parent(farm, checkpoint)
    yield made
    made.end()


@pytest.fixture
def start(farm, checkpoint):
    """Start a parent with some engine."""
    made = []

    def make(engine: str, farm=farm) -> Parent:
        made.append(Parent(farm, checkpoint, f"tests.engine.filming:{engine}"))
        return made[-1]

    yield make
    for parent in made:
        parent.end()
