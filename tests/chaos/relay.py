"""A TCP relay that fails as networks do: `python -m tests.chaos.relay PORT TARGET_PORT`.

It obeys what it reads from stdin, a line each:

* `cut`: end every connection with a reset;
* `away SECONDS`: cut, and cut whoever comes for so long;
* `swallow SECONDS`: take bytes and pass none on for so long, then cut: what was swallowed is gone;
* `freeze`: no connection of now ever passes a byte again; later ones do;
* `lose WORDS`: the next request that has these words arrives, and is cut before its answer;
* `hold WORDS`: no request that has these words arrives, nor what follows it.
"""

import asyncio
import contextlib
import socket
import struct
import sys

_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero: close with a reset


class Line:
    """One connection: the client's end, the server's end, and what is wrong with it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client, self.server = client, server
        self.passes = True
        self.loses = False  # the answer to come

    def cut(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):  # whoever hung up by himself has no socket any more
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.transport.abort()


class Relay:
    """All connections between one port and its target."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._lines: set[Line] = set()
        self._away = self._swallows = False
        self._lose = self._hold = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what one client says, and what it is answered."""
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        line = Line(writer, server)
        self._lines.add(line)
        if self._away:
            line.cut()
        pumps = [self._ask(line, reader), self._answer(line, answers)]
        await asyncio.wait(map(asyncio.ensure_future, pumps), return_when="FIRST_COMPLETED")
        for end in (writer, server):
            end.close()
        self._lines.discard(line)

    async def _ask(self, line: Line, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if self._hold and self._hold in data:
                    line.passes = False
                if self._lose and self._lose in data:
                    line.loses, self._lose = True, b""
                await self._pass(line, line.server, data)

    async def _answer(self, line: Line, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if line.loses:
                    line.cut()
                    return
                await self._pass(line, line.client, data)

    async def _pass(self, line: Line, end: asyncio.StreamWriter, data: bytes) -> None:
        if line.passes and not self._swallows:
            end.write(data)
            await end.drain()

    def _cut(self) -> None:
        for line in self._lines:
            line.cut()

    async def obey(self) -> None:
        """Do what stdin says until it ends."""
        words = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
        while line := await words.readline():
            word, _, rest = line.decode().strip().partition(" ")
            await self._do(word, rest)

    async def _do(self, word: str, rest: str) -> None:
        match word:
            case "cut":
                self._cut()
            case "away":
                self._away = True
                self._cut()
                await asyncio.sleep(float(rest))
                self._away = False
            case "swallow":
                self._swallows = True
                await asyncio.sleep(float(rest))
                self._swallows = False
                self._cut()
            case "freeze":
                for line in self._lines:
                    line.passes = False
            case "lose":
                self._lose = rest.encode()
            case "hold":
                self._hold = rest.encode()
            case _:
                raise ValueError(word)


async def main(port: int, target: int) -> None:
    """Relay until stdin ends."""
    relay = Relay(target)
    async with await asyncio.start_server(relay.serve, "127.0.0.1", port):
        await relay.obey()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
