"""The state directory of a farm on this machine: who runs it, where it listens, its secrets."""

import contextlib
import fcntl
import json
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cli.embedded import write_private

_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Local:
    """Paths below one state directory, and what its supervisor publishes there."""

    root: Path

    @property
    def admin_key(self) -> Path:
        """File of the first admin key, readable by its owner only."""
        return self.root / "admin-key"

    @property
    def log(self) -> Path:
        """Output of a supervisor that runs in the background."""
        return self.root / "logs" / "farm.log"

    @property
    def models(self) -> Path:
        """Checkpoints, unless WANFARM_MODELS_DIR says otherwise."""
        return self.root / "models"

    @property
    def loras(self) -> Path:
        """Adapters, unless WANFARM_LORA_DIR says otherwise."""
        return self.root / "loras"

    def secret(self, name: str, value: str | None = None) -> Path:
        """Keep a secret in a private file; without a value, one is drawn the first time."""
        path = self.root / name
        if value is not None or not path.exists():
            write_private(path, value or secrets.token_urlsafe(48))
        return path

    def service_urls(self) -> dict[str, str]:
        """Read the URLs of embedded services, by the name of their variables."""
        names = ("DATABASE_URL", "REDIS_URL")
        return {n: (self.root / n).read_text() for n in names if (self.root / n).exists()}

    def forget_services(self) -> None:
        """Drop the URLs of an earlier run, which may have used embedded services."""
        for name in self.service_urls():
            (self.root / name).unlink()

    @contextlib.contextmanager
    def lock(self, patience_s: float = 0.0) -> Generator[bool]:
        """Hold the directory; yields False when another supervisor holds it all that time."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + patience_s
        try:
            while not (held := _try_lock(handle)) and time.monotonic() < deadline:
                pause(_POLL_S)
            yield held
        finally:
            os.close(handle)

    def is_running(self) -> bool:
        """Tell whether a supervisor holds this directory."""
        if not (self.root / "lock").exists():
            return False
        with self.lock() as free:
            return not free

    def publish(self, facts: dict[str, Any]) -> None:
        """Let other commands know about the running farm."""
        write_private(self.root / "farm.json", json.dumps(facts, indent=1))

    def facts(self) -> dict[str, Any] | None:
        """Read what the supervisor published; None when there is none."""
        try:
            return json.loads((self.root / "farm.json").read_text())
        except (OSError, ValueError):
            return None

    def forget(self) -> None:
        """Remove what was published."""
        (self.root / "farm.json").unlink(missing_ok=True)

    def await_stage(self, stages: tuple[str, ...], within: float) -> dict[str, Any] | None:
        """Wait for a farm that is starting; None when it ends or the time is up.

        Args:
            stages: any of `services`, `farm`, `ready`.
            within: seconds to wait.
        """
        deadline = time.monotonic() + within
        while time.monotonic() < deadline and self.is_running():
            facts = self.facts()
            if facts and facts["stage"] in stages:
                return facts
            pause(_POLL_S)
        return None

    def await_start(self, process: subprocess.Popen[bytes], within: float) -> bool:
        """Wait until a supervisor holds the directory; False when the process ends first."""
        deadline = time.monotonic() + within
        while not self.is_running():
            if process.poll() is not None or time.monotonic() > deadline:
                return False
            pause(_POLL_S)
        return True

    def await_end(self, within: float) -> bool:
        """Wait until no supervisor holds the directory."""
        deadline = time.monotonic() + within
        while self.is_running():
            if time.monotonic() > deadline:
                return False
            pause(_POLL_S)
        return True


def pause(seconds: float) -> None:
    """Let some time pass between two looks."""
    threading.Event().wait(seconds)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
