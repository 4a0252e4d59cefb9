"""The supervisor: output by line, restarts with a growing pause, an orderly and a hard stop."""

import signal
import sys
import time
from pathlib import Path

import pytest

from cli.supervisor import Program, StartFailed, StopAsked, Supervisor
from shared.machinery.settings import child_environment


@pytest.fixture
def lines():
    return []


@pytest.fixture
def supervisor(lines):
    boss = Supervisor(lambda name, line: lines.append((name, line)))
    yield boss
    boss.stops = 2
    boss.stop(())
    boss.close()


def program(name, code, **how):
    argv = (sys.executable, "-u", "-c", code)
    return Program(name=name, argv=argv, environment=child_environment(), **how)


def test_each_line_comes_with_the_name_of_its_program(supervisor, lines):
    supervisor.run_to_end(program("a", "print('one'); print('two', end='')"), within=10)

    assert lines == [("a", "one"), ("a", "two")]


def test_a_program_that_fails_is_quoted(supervisor):
    with pytest.raises(StartFailed, match=r"schema failed.*\n  no such table"):
        supervisor.run_to_end(program("schema", "exit('no such table')"), within=10)


def test_a_program_that_ends_is_started_again_after_a_growing_pause(supervisor, lines):
    child = supervisor.start(program("api", "exit(3)"))

    supervisor.wait_until(lambda: child.restarted == 2, within=20)

    assert [line for _, line in lines][:2] == [
        "ended with code 3; starts again in 1 s",
        "ended with code 3; starts again in 2 s",
    ]


def test_waiting_for_a_program_that_ends_again_and_again_gives_up(supervisor):
    child = supervisor.start(program("api", "exit('port taken')"))

    with pytest.raises(StartFailed, match=r"api ends again and again.*\n  port taken"):
        supervisor.wait_ready(child, lambda: False, within=30)


def test_children_stop_in_the_order_that_is_asked(supervisor, lines):
    code = "import signal; print('up'); signal.sigwait([signal.SIGTERM]); print('bye')"
    prepared = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]);"
    for name in ("postgres", "api", "worker"):
        supervisor.start(program(name, prepared + code))
    supervisor.wait_until(lambda: len(lines) == 3, within=20)

    supervisor.stop(("worker", "api", "postgres"))

    assert lines[3:] == [("worker", "bye"), ("api", "bye"), ("postgres", "bye")]


def test_a_second_request_to_stop_does_not_wait(supervisor, lines):
    code = "import signal; signal.signal(15, signal.SIG_IGN); print('up'); signal.pause()"
    child = supervisor.start(program("worker", code, stop_within_s=60))
    supervisor.wait_until(lambda: bool(lines), within=20)
    supervisor.stops = 2
    began = time.monotonic()

    supervisor.stop(("worker",))

    assert child.process is None
    assert time.monotonic() - began < 20


def test_a_grandchild_does_not_outlive_its_program(supervisor, lines, eventually):
    code = (
        "import subprocess, sys;"
        "p = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']);"
        "print(p.pid)"
    )
    supervisor.run_to_end(program("worker", code), within=10)

    eventually(lambda: not Path(f"/proc/{lines[0][1]}/exe").exists())


def test_a_signal_ends_the_start(supervisor):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    supervisor.listen_for_stop()
    try:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopAsked):
            supervisor.wait_until(lambda: False, within=10)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
