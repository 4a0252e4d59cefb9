"""Real rank processes, spoken to as their parent would."""

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

from shared.vocabulary.plan import ParallelPlan
from worker.ranks.messages import FROM_RANK, Beat, Generate, Load

ROOT = Path(__file__).parents[2]


class Rank:
    """One started child and this end of its socket."""

    def __init__(self, rank: int, ranks: int, scratch: Path, *, fake: bool = False) -> None:
        self.wire, theirs = multiprocessing.Pipe()
        argv = [sys.executable, "-m", "worker.ranks.child", "--fd", str(theirs.fileno())]
        argv += ["--rank", str(rank), "--ranks", str(ranks), "--threads", "1"]
        argv += ["--rendezvous", str(scratch / "rendezvous")]
        argv += ["--engine", "tests.engine.fake:Engine"] if fake else []
        self.process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], cwd=ROOT)
        theirs.close()
        self.beats = 0

    def say(self, message) -> None:
        self.wire.send_bytes(message.model_dump_json().encode())

    def hear(self, *kinds, within: float = 60):
        """The next message, or the next of some kinds; beats are only counted."""
        deadline = time.monotonic() + within
        while self.wire.poll(deadline - time.monotonic()):
            message = FROM_RANK.validate_json(self.wire.recv_bytes())
            if isinstance(message, Beat):
                self.beats += 1
            elif not kinds or isinstance(message, kinds):
                return message
        raise TimeoutError(f"no {kinds} within {within} s")

    def end(self) -> None:
        self.wire.close()
        self.process.kill()
        self.process.wait(10)


def job(spec, plan: ParallelPlan, out: Path, attempt: int = 1) -> Generate:
    return Generate(video_id="video_1", attempt=attempt, spec=spec, plan=plan, out=str(out))


def load(model: str, directory: Path, ranks: int = 1) -> Load:
    return Load(model=model, directory=str(directory), plan=ParallelPlan(ranks=ranks))
