"""What becomes of more listeners than a farm has places for, and of everybody else meanwhile."""

import asyncio
import contextlib
import json
from collections import Counter
from email.parser import Parser
from functools import partial
from typing import Any, Final

import httpx

from bench.farm_load import Taken, load, reads, submits

_KEYS: Final = 20  # so that the farm's own limit is met, and not only that of each key
_VIDEOS: Final = 20
_BESIDE_HZ: Final = 20.0  # lists, and as many submits, while the listeners knock
_LINES: Final = 8
_ANSWER_S: Final = 30.0  # whoever has none by then counts as left hanging
_RETRY_S: Final = 5.0
_END_S: Final = 10.0  # from a video's end until all its listeners must know


def streams(
    client: httpx.Client, model: str, *, listeners: int, seconds: float
) -> list[dict[str, Any]]:
    """Let listeners come all at once; those that are refused come back when they may.

    Returns:
        Rows of the lists and submits that others send meanwhile.
    """
    crowd = _Crowd(client, model)
    listed, sent = asyncio.run(crowd.gather(listeners, seconds))
    told = {
        "listeners": listeners,
        "served": crowd.served,
        "told_the_end": crowd.ended,
        "first_answers": dict(crowd.first),
        "answers": dict(crowd.answers),
    }
    print(json.dumps(told), flush=True)
    return [
        listed.row(f"list, {listeners} listeners", **told),
        sent.row(f"submit, {listeners} listeners"),
    ]


class _Crowd:
    """Listeners, each of one video and with one of a few keys."""

    def __init__(self, client: httpx.Client, model: str) -> None:
        self._client = client
        self._model = model
        self._videos = [self._make("/v1/videos", model=model, prompt="x") for _ in range(_VIDEOS)]
        names = (f"listener {number}" for number in range(_KEYS))
        self._keys = [self._make("/v1/keys", name=name, scope="read") for name in names]
        self._over = asyncio.Event()
        self.first: Counter[str] = Counter()  # answers to the first knock of each
        self.answers: Counter[str] = Counter()  # to all
        self.served = 0  # got the standing of their video
        self.ended = 0  # of these, heard of its end

    async def gather(self, listeners: int, seconds: float) -> tuple[Taken, Taken]:
        """Let them listen while others list and submit; then end all videos.

        Args:
            listeners: how many.
            seconds: how long.
        """
        here = [asyncio.create_task(self._listen(number)) for number in range(listeners)]
        other = partial(load, self._client, seconds=seconds, lines=_LINES, rate_hz=_BESIDE_HZ)
        taken = await asyncio.gather(
            asyncio.to_thread(other, reads(self._client, "/v1/videos")),
            asyncio.to_thread(other, submits(self._client, self._model)),
        )
        self._over.set()
        for video in self._videos:
            path = f"/v1/videos/{video['id']}/cancel"
            (await asyncio.to_thread(self._client.post, path)).raise_for_status()
        _, left = await asyncio.wait(here, timeout=_END_S)
        for task in left:
            task.cancel()
        return taken

    async def _listen(self, number: int) -> None:
        knocks = [self.first, self.answers]
        while not self._over.is_set():
            answer, wait_s = await self._knock(number)
            for counted in knocks:
                counted[answer] += 1
            if wait_s is None:
                return
            knocks = [self.answers]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), wait_s)

    async def _knock(self, number: int) -> tuple[str, float | None]:
        """Ask for a stream and follow it; gives the answer, and when to come again."""
        address = self._client.base_url
        try:
            async with asyncio.timeout(_ANSWER_S):
                reader, writer = await asyncio.open_connection(address.host, address.port)
                writer.write(self._request(number))
                status, headers = _read_head(await reader.readuntil(b"\r\n\r\n"))
        except TimeoutError:
            return "none in time", _RETRY_S
        except (OSError, asyncio.IncompleteReadError):
            return "cut off", _RETRY_S
        with contextlib.closing(writer):
            if status == "200":
                await self._follow(reader)
                return status, None
            body = json.loads(await reader.readexactly(int(headers["Content-Length"])))
            return f"{status} {body['error']['code']}", float(headers["Retry-After"])

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            self.served += line == b"event: snapshot\n"
            self.ended += line == b"event: end\n"

    def _request(self, number: int) -> bytes:
        video, key = self._videos[number % _VIDEOS]["id"], self._keys[number % _KEYS]["key"]
        lines = (
            f"GET /v1/videos/{video}/events HTTP/1.1",
            f"Host: {self._client.base_url.netloc.decode()}",
            f"Authorization: Bearer {key}",
            "Accept: text/event-stream",
        )
        return "\r\n".join((*lines, "", "")).encode()

    def _make(self, path: str, **fields: str) -> dict[str, Any]:
        return self._client.post(path, json=fields).raise_for_status().json()


def _read_head(head: bytes) -> tuple[str, dict[str, str]]:
    first, _, rest = head.decode().partition("\r\n")
    return first.split()[1], dict(Parser().parsestr(rest, headersonly=True).items())
