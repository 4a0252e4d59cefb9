"""LoRA uploads to a real server: large ones, ones that break off, and ones that die with it."""

import json
import os
import re
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from shared.jobs import keys, removal
from tests.farm.conftest import House
from tests.loras import WIDTH, adapter

MIB = 1 << 20


@pytest.fixture
def settings(settings, tmp_path):
    return settings.model_copy(update={"lora_dir": tmp_path / "loras"})


@pytest.fixture
def folder(settings) -> Path:
    return settings.lora_dir


@pytest.fixture
def house(farm, tmp_path) -> Iterator[House]:
    """A farm that serves and renders nothing."""
    built = House(farm, "", tmp_path)
    yield built
    built.end()


@pytest.fixture
def url(house, eventually) -> str:
    return served(house, eventually)


def served(house: House, eventually: Callable[..., object]) -> str:
    url = house.serve()
    address = urlsplit(url)
    eventually(lambda: connects(address.hostname, address.port), within=30)
    return url


def connects(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


@pytest.fixture
def headers(farm) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys.create(farm, 'test', 'admin')[1]}"}


def large(path: Path, rank: int) -> Path:
    """An adapter of zeros, of which the disk holds only the header."""
    shapes = {"lora_A": (rank, WIDTH), "lora_B": (WIDTH, rank)}
    size = 4 * WIDTH * rank
    header = {
        f"blocks.0.attn1.to_q.{name}.weight": {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": (number * size, (number + 1) * size),
        }
        for number, (name, shape) in enumerate(shapes.items())
    }
    text = json.dumps(header).encode()
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.truncate(8 + len(text) + 2 * size)
    return path


def peak_bytes(pids: list[int]) -> int:
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return max(int(re.search(r"VmHWM:\s+(\d+)", text)[1]) << 10 for text in texts)


def test_a_large_adapter_is_written_as_it_comes(house, url, headers, tmp_path):
    path = large(tmp_path / "a.safetensors", 500_000)
    httpx.get(f"{url}/v1/loras", headers=headers, timeout=60).raise_for_status()
    before = peak_bytes(house.workers[0].ranks())

    with path.open("rb") as file:
        form = {"data": {"name": "style"}, "files": {"file": file}}
        made = httpx.post(f"{url}/v1/loras", headers=headers, timeout=60, **form)

    assert made.json()["bytes"] == path.stat().st_size > 180 * MIB
    assert peak_bytes(house.workers[0].ranks()) - before < 40 * MIB


def begun(url: str, headers: dict[str, str]) -> socket.socket:
    """An upload that has sent half of what it means to."""
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(MIB)
    words = {"Host": urlsplit(url).netloc, "Content-Length": str(2 * len(body))} | headers
    words["Content-Type"] = "multipart/form-data; boundary=x"
    head = "".join(f"{name}: {value}\r\n" for name, value in words.items())
    line = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port))
    line.sendall(f"POST /v1/loras HTTP/1.1\r\n{head}\r\n".encode() + body)
    return line


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.glob(".*.part/*") if path.stat().st_size > MIB // 2]


def test_an_upload_that_breaks_off_leaves_nothing(url, headers, folder, eventually):
    with begun(url, headers):
        eventually(lambda: parts(folder))

    eventually(lambda: not list(folder.iterdir()))


def test_an_upload_that_dies_with_its_server_is_no_adapter(
    house, farm, url, headers, folder, eventually
):
    with begun(url, headers):
        (part,) = eventually(lambda: parts(folder))
        for pid in (house.workers[0].process.pid, *house.workers[0].ranks()):
            os.kill(pid, signal.SIGKILL)

    assert (list(farm.loras), part.exists()) == ([], True)
    form = {"data": {"name": "style"}, "files": {"file": adapter()}}
    url = served(house, eventually)
    again = httpx.post(f"{url}/v1/loras", headers=headers, timeout=60, **form)
    assert again.json()["name"] == "style"
    for path in (part, part.parent):
        os.utime(path, (0, 0))
    assert removal.drop_strays(farm) == 1
    assert [path.name for path in folder.iterdir()] == ["style"]
