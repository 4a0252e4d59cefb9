"""README and tutorials do what they say: each of their commands is run, in order, by a shell."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.machinery.settings import child_environment
from tests.farm.conftest import ROOT, free_port
from tests.farm.test_openai import INSTALLED

PAGES = ("README.md", "docs/tutorial/first-video.md", "docs/tutorial/from-draft-to-final.md")
ELSEWHERE = "<!-- needs a GPU server -->"
CLIENT = "openai-3"
BLOCK = re.compile(
    rf"(?:^({ELSEWHERE})\n)?^```(console|python)\n(.*?)^```", re.MULTILINE | re.DOTALL
)
INTERRUPTED = 130
DEMO = "$ make demo\n"
DONE = "the command has ended with"


@dataclass
class Shell:
    """A person's terminal: variables stay from one command to the next."""

    process: subprocess.Popen[str]
    text: str = ""

    def run(self, command: str) -> None:
        """Run one command; what it printed is in the failure."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{command}\necho; echo '{DONE}' $?\n")
        self.process.stdin.flush()
        said: list[str] = []
        for line in iter(self.process.stdout.readline, ""):
            if line.startswith(DONE):
                assert line == f"{DONE} 0\n", f"{command}\n{''.join(said)}"
                break
            said.append(line)
        else:
            pytest.fail(f"the shell ended at {command}\n{''.join(said)}")
        self.text = "".join(said)


@dataclass
class Farm:
    """The farm of `make demo`, and where it keeps what the pages name."""

    url: str
    folder: Path

    @property
    def key(self) -> str:
        return (self.folder / ".wanfarm" / "admin-key").read_text().strip()

    def environment(self) -> dict[str, str]:
        data = self.folder / ".wanfarm"
        return child_environment(
            WANFARM_DATA_DIR=str(data),
            WANFARM_MODELS_DIR=str(data / "models"),
            WANFARM_LORA_DIR=str(data / "loras"),
        )


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """`make demo` in a terminal of its own: it renders, invites, and stays until Ctrl-C."""
    folder = tmp_path_factory.mktemp("laptop")
    port = free_port()
    made = Farm(f"http://127.0.0.1:{port}", folder)
    (folder / ".venv").symlink_to(sys.prefix)
    process = subprocess.Popen(
        ["script", "--quiet", "--return", "--command", f"make -C {ROOT} demo", "/dev/null"],
        env=made.environment() | {"WANFARM_PORT": str(port)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        assert process.stdin
        assert process.stdout
        try:
            said = until(process, b"Farm is running. Ctrl-C stops it.")
            assert "[4/4] render" in said
            yield made
            process.stdin.write(b"\x03")
            process.stdin.flush()
            assert "stopping ..." in until(process, None)
            assert process.wait(100) == INTERRUPTED
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)


def until(process: subprocess.Popen[bytes], beginning: bytes | None) -> str:
    """Read lines until one begins so; without it, until there are no more."""
    assert process.stdout
    said = b""
    for line in iter(process.stdout.readline, b""):
        said += line
        if beginning and line.startswith(beginning):
            break
    else:
        assert beginning is None, said.decode()
    return said.decode()


@pytest.fixture
def shell(farm: Farm) -> Iterator[Shell]:
    process = subprocess.Popen(
        ["bash", "--norc"],
        env=farm.environment(),
        cwd=farm.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        yield Shell(process)
        process.kill()


def blocks(page: str) -> list[tuple[str, str]]:
    """The console and Python blocks of a page that a laptop can run, in order."""
    found = BLOCK.findall((ROOT / page).read_text())
    return [(language, text) for elsewhere, language, text in found if not elsewhere]


def commands(block: str) -> list[str]:
    joined = block.replace("\\\n", " ").splitlines()
    assert all(line.startswith("$ ") for line in joined), block
    return [line.removeprefix("$ ") for line in joined]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES)
def test_each_command_of_a_page_does_what_it_is_shown_for(page, farm, shell):
    if not (INSTALLED / CLIENT).is_dir():
        pytest.skip(f"{CLIENT} is not installed: `make test` puts it beside the environment")
    shell.run(f"URL={farm.url} KEY={farm.key}")

    for language, text in blocks(page):
        if language == "python":
            run_python(text, farm)
        elif text != DEMO:  # the farm of the fixture
            for command in commands(text):
                shell.run(command.replace("127.0.0.1:8080", farm.url.removeprefix("http://")))
                if found := re.search(r'"id": *"(video_\w+)"', shell.text):
                    shell.run(f"ID={found[1]}")


def run_python(text: str, farm: Farm) -> None:
    said = subprocess.run(
        [sys.executable, "-c", f"URL, KEY = {farm.url!r}, {farm.key!r}\n{text}"],
        env=child_environment(PYTHONPATH=str(INSTALLED / CLIENT)),
        cwd=farm.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr


def test_the_pages_begin_where_the_fixture_does():
    assert [blocks(page)[0] == ("console", DEMO) for page in PAGES] == [True, True, False]


def test_only_the_gpu_server_is_left_out():
    left = [page for page in PAGES if ELSEWHERE in (ROOT / page).read_text()]

    assert left == ["README.md"]
