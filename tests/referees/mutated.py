"""Ten thousand requests gone wrong, to a live farm: no 5xx, no hang, no growth, true answers."""

import http.client
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.api.mutations import Mutations, Request
from tests.api.verdicts import faults
from tests.conftest import wait_for

COUNT, SEED, BESIDE = 10_000, 2026, 4
HANGS_S = 20.0
GROWTH = 40 << 20  # of one process, after the first part
PROMPT = {"prompt": "a red ball", "model": "wan-mini-t2v"}


def storm(client: httpx.Client) -> tuple[list[object], str]:
    """Send them all; gives what was wrong, and what to say."""
    url = str(client.base_url).rstrip("/")
    wait_for(lambda: client.get("/health").is_success, within=60)  # with a worker, it stays so
    keys = {True: client.headers["Authorization"]}
    keys[False], ids = objects(client)
    document = client.get("/openapi.json").raise_for_status().json()
    requests = list(Mutations(document, SEED, ids).take(COUNT))
    found: list[object] = []
    lines = threading.local()

    def one(request: Request) -> None:
        try:
            status, body = send(lines, url, request, keys[request.needs_admin])
        except (OSError, http.client.HTTPException) as err:
            found.append((repr(err), request))
            lines.kept = None
            return
        if wrong := faults(request, status, body):
            found.append((wrong, request, body[:300]))

    with ThreadPoolExecutor(BESIDE) as pool:
        list(pool.map(one, requests[: COUNT // 4]))
        before = memory(url)
        list(pool.map(one, requests[COUNT // 4 :]))
    after = memory(url)
    grown = max(after[pid] - before[pid] for pid in before)
    if set(before) != set(after) or grown > GROWTH:
        found.append(("memory", before, after))
    return found, f"{COUNT} requests, none with a fault; {grown >> 20} MiB more in a process"


def objects(client: httpx.Client) -> tuple[str, dict[str, list[str]]]:
    """Make things of one's own and of another tenant; gives a key that may submit, and the ids."""
    made = [
        client.post("/v1/keys", json={"name": name, "tenant": name}).json()["key"]
        for name in ("own", "other")
    ]
    ids: dict[str, list[str]] = {"key_id": ["zzzzzzzz"], "model_id": ["wan-mini-t2v"]}
    for key in made:
        with httpx.Client(base_url=client.base_url, timeout=60) as caller:
            caller.headers["Authorization"] = f"Bearer {key}"
            sent = {
                "video_id": ("/v1/videos", PROMPT),
                "batch_id": ("/v1/batches", {"request": PROMPT, "variations": 2}),
                "webhook_id": ("/v1/webhooks", {"url": "https://a.example/h"}),
            }
            for name, (path, body) in sent.items():
                ids.setdefault(name, []).append(caller.post(path, json=body).json()["id"])
    return f"Bearer {made[0]}", ids


def send(lines: threading.local, url: str, request: Request, key: str) -> tuple[int, bytes]:
    """Send one over this thread's connection, exactly as it is; a stream's body is not read."""
    line = getattr(lines, "kept", None)
    if line is None:
        line = lines.kept = http.client.HTTPConnection(urlsplit(url).netloc, timeout=HANGS_S)
    headers = {"Authorization": key} | request.headers
    named = {name: value.encode() for name, value in headers.items()}
    line.request(request.method, request.path, body=request.body, headers=named)
    answer = line.getresponse()
    if "event-stream" in answer.headers.get("Content-Type", ""):
        line.close()
        return answer.status, b""
    return answer.status, answer.read()


def memory(url: str) -> dict[int, int]:
    """Read what each process of the API holds, in bytes."""
    mark = f"WANFARM_PORT={urlsplit(url).port}\0".encode()
    held = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            served = (folder / "environ").read_bytes()
            status = (folder / "status").read_text()
        except OSError:  # it has ended
            continue
        if b"gunicorn" in words and mark in served:
            held[int(folder.name)] = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) << 10
    assert held, "no process of the API was found"
    return held
