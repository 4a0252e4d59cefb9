"""Runs programs as foreground children: prefixes their lines, restarts them, stops them in order.

One thread does everything: the signal that a child gets when its parent dies is tied to the
thread that started it, and a child may only be prepared between fork and exec while no other
thread can hold a lock.
"""

import ctypes
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import IO, Final

_PR_SET_PDEATHSIG: Final = 1
_LONGEST_PAUSE_S: Final = 30.0
_PROVEN_AFTER_S: Final = 60.0  # a child that lived this long starts again at a pause of 1 s
_TRIES: Final = 3  # starts of a child that others wait for
_LINE_LIMIT: Final = 64 * 1024

Write = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged user that a program runs as when we are root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run, as whom, and how it likes to be stopped."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within_s: float = 15.0
    orphan_signal: signal.Signals = signal.SIGKILL  # what it gets when we are killed
    hard_signal: signal.Signals = signal.SIGKILL


class StopAsked(Exception):
    """SIGINT or SIGTERM arrived while something was still being started."""


class StartFailed(Exception):
    """A program did not come up; the text names it and ends with its last lines."""


def spawn(program: Program, stdout: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a program in its own process group, so that the terminal's Ctrl-C reaches only us."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(program.orphan_signal))
        if os.getppid() != parent:  # the parent died before the line above
            os.kill(os.getpid(), program.orphan_signal)

    account = program.account
    return subprocess.Popen(
        program.argv,
        env=program.environment,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        process_group=0,
        preexec_fn=prepare,  # safe: this process has one thread
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


@dataclass(slots=True)
class Child:
    """One program and the process that runs it now, if any."""

    program: Program
    process: subprocess.Popen[bytes] | None = None
    restarts: bool = True
    started_at: float = 0.0
    failures: int = 0  # in a row; sets the next pause
    restarted: int = 0
    restart_at: float | None = None  # set while it waits for its next start
    tail: deque[str] = field(default_factory=lambda: deque[str](maxlen=12))
    partial: bytes = b""

    @property
    def pid(self) -> int | None:
        """The running process, None while it is down."""
        return self.process.pid if self.process else None


class Supervisor:
    """Holds the children. Every method that waits also reads output and restarts what fell."""

    def __init__(self, write: Write) -> None:
        """Take the sink of all lines: `write(program's name, line)`."""
        self.children: dict[str, Child] = {}
        self.stops = 0
        self.changed = True  # a pid is new; whoever publishes pids clears it
        self._write = write
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.settimeout(0)
        self._selector.register(self._woken, selectors.EVENT_READ, None)

    def listen_for_stop(self) -> None:
        """Count SIGINT and SIGTERM from now on; the first stops politely, the second hard."""
        # the wake-up socket ends a wait in select at once
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._count_stop)

    def start(self, program: Program, *, restarts: bool = True) -> Child:
        """Start a program and keep it running."""
        child = Child(program, restarts=restarts)
        self.children[program.name] = child
        self._launch(child)
        return child

    def run_to_end(self, program: Program, within: float) -> None:
        """Run a program once, beside the others.

        Raises:
            StartFailed: when it fails or takes too long.
            StopAsked: when the user asks to stop meanwhile.
        """
        child = self.start(program, restarts=False)
        try:
            done = self.wait_until(lambda: child.process is None, within)
        finally:
            self._halt([child])
            del self.children[program.name]
        if not done or child.failures:
            raise StartFailed(_last_words(child, "failed" if done else f"took over {within:.0f} s"))

    def wait_ready(self, child: Child, ready: Callable[[], bool], within: float) -> None:
        """Wait until a started child is of use.

        Raises:
            StartFailed: when the time is up.
            StopAsked: when the user asks to stop meanwhile.
        """
        done = self.wait_until(lambda: ready() or child.failures >= _TRIES, within)
        if not done or child.failures >= _TRIES:
            what = "ends again and again" if done else f"was not ready within {within:.0f} s"
            raise StartFailed(_last_words(child, what))

    def wait_until(self, condition: Callable[[], bool], within: float) -> bool:
        """Serve the children until the condition holds; False when the time is up."""
        deadline = time.monotonic() + within
        while not condition():
            if self.stops:
                raise StopAsked
            if time.monotonic() > deadline:
                return False
            self.pump(0.02)
        return True

    def pump(self, timeout: float) -> None:
        """Read what is there, notice who ended, start again who is due."""
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, Child):
                self._read(key.data)
            else:
                self._drain_wakeups()
        for child in self.children.values():
            self._look_after(child)

    def stop(self, order: tuple[str, ...]) -> None:
        """Stop the named children one after the other, then the rest; hard once asked twice."""
        self.stops = max(self.stops, 1)
        for child in self.children.values():
            child.restarts, child.restart_at = False, None
        for name in order:
            if name in self.children:
                self._halt([self.children[name]])
        self._halt(list(self.children.values()))

    def close(self) -> None:
        """Give back what waiting needs; nothing runs any more."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _halt(self, children: list[Child]) -> None:
        running = [child for child in children if child.process]
        for child in running:
            _send(child, child.program.stop_signal)
        self._await_end(running, max((c.program.stop_within_s for c in running), default=0.0))
        for child in running:
            _send(child, child.program.hard_signal)
        self._await_end(running, 5.0, patient=True)
        for child in running:
            _send(child, signal.SIGKILL)
        self._await_end(running, 5.0, patient=True)

    def _await_end(self, children: list[Child], within: float, *, patient: bool = False) -> None:
        deadline = time.monotonic() + within
        while any(child.process for child in children) and time.monotonic() < deadline:
            if self.stops > 1 and not patient:
                return
            self.pump(0.02)

    def _launch(self, child: Child) -> None:
        child.started_at, child.restart_at, child.partial = time.monotonic(), None, b""
        child.process = process = spawn(child.program, subprocess.PIPE)
        assert process.stdout
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, child)
        self.changed = True

    def _read(self, child: Child) -> None:
        process = child.process
        if process is None or process.stdout is None or process.stdout.closed:
            return
        data = os.read(process.stdout.fileno(), _LINE_LIMIT)
        if not data:
            self._selector.unregister(process.stdout)
            process.stdout.close()
            return
        *lines, child.partial = (child.partial + data).split(b"\n")
        if len(child.partial) > _LINE_LIMIT:
            lines, child.partial = [*lines, child.partial], b""
        for line in lines:
            self._say(child, line)

    def _say(self, child: Child, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            child.tail.append(text)
            self._write(child.program.name, text)

    def _look_after(self, child: Child) -> None:
        if child.restart_at is not None and time.monotonic() >= child.restart_at:
            child.restarted += 1
            self._launch(child)
        if child.process and (code := child.process.poll()) is not None:
            self._bury(child, code)

    def _bury(self, child: Child, code: int) -> None:
        process, lived = child.process, time.monotonic() - child.started_at
        assert process
        while process.stdout and not process.stdout.closed and _has_data(process.stdout):
            self._read(child)
        if process.stdout and not process.stdout.closed:  # a grandchild still holds the pipe
            self._selector.unregister(process.stdout)
            process.stdout.close()
        self._say(child, child.partial)
        child.process, self.changed = None, True
        _send_group(process.pid, signal.SIGKILL)  # whatever it left behind
        if not child.restarts:
            child.failures = int(code != 0)
            return
        child.failures = 1 if lived > _PROVEN_AFTER_S else child.failures + 1
        pause = min(2.0 ** (child.failures - 1), _LONGEST_PAUSE_S)
        child.restart_at = time.monotonic() + pause
        self._write(child.program.name, f"{_end_of(code)}; starts again in {pause:.0f} s")

    def _drain_wakeups(self) -> None:
        try:
            self._woken.recv(1024)
        except BlockingIOError:
            return

    def _count_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stops += 1


def terminal(name: str, line: str) -> None:
    """Write one line of a program to our own output."""
    sys.stdout.write(f"{name:<8} | {line}\n")
    sys.stdout.flush()


def _has_data(pipe: IO[bytes]) -> bool:
    with selectors.DefaultSelector() as once:
        once.register(pipe, selectors.EVENT_READ)
        return bool(once.select(0))


def _send(child: Child, number: signal.Signals) -> None:
    if child.process is None:
        return
    if number is signal.SIGKILL:
        _send_group(child.process.pid, number)
    else:  # the program tells its own children
        child.process.send_signal(number)


def _send_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _end_of(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _last_words(child: Child, what: str) -> str:
    said = "\n".join(f"  {line}" for line in child.tail) or "  (it wrote nothing)"
    return f"{child.program.name} {what}. Its last lines:\n{said}"
