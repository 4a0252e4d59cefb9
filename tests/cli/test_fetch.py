"""`wanfarm models fetch` against a server that speaks as Hugging Face's does."""

import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cli.client import FarmError
from cli.fetching import Amount, Order, refuse_without_room
from shared.machinery.settings import child_environment
from shared.vocabulary.catalog import MODELS
from tests.cli.conftest import ROOT

MODEL = MODELS["wan2.2-t2v-a14b"]
TRAINED = ROOT / "mini" / "trained" / "wan-mini-t2v"  # its layout is that of the published one
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """What the client asks for: a repository's files, and each of them."""

    files: dict[str, bytes]
    asked: list[str]

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        type(self).asked.append(f"{self.command} {path}")
        file = re.fullmatch(rf"/{MODEL.repo}/resolve/\w+/(.+)", path)
        if file and file[1] in self.files:
            self._send(self.files[file[1]], ETag=f'"{digest(self.files[file[1]])}"')
        elif f"/api/models/{MODEL.repo}/tree/" in path:
            self._send(json.dumps(self._tree()).encode())
        elif path.startswith(f"/api/models/{MODEL.repo}"):
            siblings = [{"rfilename": name} for name in self.files]
            about = {"id": MODEL.repo, "sha": COMMIT, "siblings": siblings}
            self._send(json.dumps(about).encode())
        else:
            self._send(b"{}", status=404)

    def _tree(self) -> list[dict]:
        return [
            {"type": "file", "path": name, "size": len(content), "oid": digest(content)[:40]}
            for name, content in self.files.items()
        ]

    def _send(self, content: bytes, status: int = 200, **headers: str) -> None:
        start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        self.send_response(206 if start else status)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("X-Repo-Commit", COMMIT)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[start:])

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[type[Hub], str]]:
    files = {
        path.relative_to(TRAINED).as_posix(): path.read_bytes()
        for path in TRAINED.rglob("*")
        if path.is_file()
    }
    served = type("Served", (Hub,), {"files": files | {"README.md": b"# hello"}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), served)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield served, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


def fetch(
    url: str, folder: Path, *words: str, model: str = MODEL.id
) -> subprocess.CompletedProcess[str]:
    argv = ["-m", "cli.main", "models", "fetch", model, "--to", str(folder), *words]
    return subprocess.run(
        [sys.executable, *argv],
        env=child_environment(
            HF_ENDPOINT=url, HF_HUB_DISABLE_XET="1", HF_HOME=str(folder / "home")
        ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_checkpoint_is_fetched_checked_and_not_fetched_again(hub, tmp_path):
    served, url = hub

    said = fetch(url, tmp_path, "--json")

    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    assert (told["state"], told["hashed"]) == ("whole", told["files"])
    folder = tmp_path / MODEL.directory
    for name, content in served.files.items():
        if name != "README.md":
            assert (folder / name).read_bytes() == content
    assert not (folder / "README.md").exists()

    served.asked.clear()
    assert fetch(url, tmp_path, "-q").returncode == 0
    assert [line for line in served.asked if line.startswith("GET") and "/resolve/" in line] == []


def test_a_dry_run_tells_the_size_and_fetches_nothing(hub, tmp_path):
    served, url = hub

    said = fetch(url, tmp_path, "--dry-run", "--json")

    told = json.loads(said.stdout)
    assert told["revision"] == COMMIT
    assert told["missing"] == told["files"] == len(served.files) - 1
    assert told["bytes"] == sum(map(len, served.files.values())) - len(b"# hello")
    assert f"{MODEL.repo} at 0123456789ab" in said.stderr
    assert not (tmp_path / MODEL.directory / "model_index.json").exists()


def test_a_file_that_is_missing_there_is_told_by_name(hub, tmp_path):
    served, url = hub
    del served.files["vae/config.json"]

    said = fetch(url, tmp_path)

    assert said.returncode == 1
    assert "vae/config.json" in said.stdout


def test_a_hub_that_does_not_answer_is_one_line(tmp_path):
    said = fetch("http://127.0.0.1:9", tmp_path)

    assert said.returncode == 1
    assert f"{MODEL.repo} cannot be fetched" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_disk_without_room_is_told_before_anything_is_fetched(tmp_path):
    with pytest.raises(FarmError, match=r"takes 1000000\.0 GB more, and .* GB free"):
        refuse_without_room(Order(MODEL, tmp_path / "a" / "b", None), Amount("", 1, 1, 10**15))


def test_what_comes_with_wanfarm_is_not_fetched(tmp_path):
    said = fetch("http://127.0.0.1:9", tmp_path, model="wan-mini-t2v")

    assert said.returncode == 2
    assert "It comes with wanfarm" in said.stderr
