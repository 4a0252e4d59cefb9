"""A TCP relay that cuts and swallows: `python -m tests.chaos.relay PORT TARGET_PORT`.

It reads words from stdin: `cut` ends every connection; `swallow SECONDS` takes bytes and passes
none on for so long, and ends the connections after that: what was swallowed is gone.
"""

import asyncio
import contextlib
import socket
import struct
import sys

_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero: close with a reset

Writers = set[asyncio.StreamWriter]


class Relay:
    """All connections between one port and its target."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._writers: Writers = set()
        self._swallows = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what one client says, and what it is answered."""
        try:
            back_reader, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        ends = {writer, back}
        self._writers |= ends
        pumps = [self._pump(reader, back), self._pump(back_reader, writer)]
        await asyncio.wait(map(asyncio.ensure_future, pumps), return_when="FIRST_COMPLETED")
        for end in ends:
            end.close()
        self._writers -= ends

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if not self._swallows:
                    writer.write(data)
                    await writer.drain()

    def cut(self) -> None:
        """End every connection with a reset."""
        for writer in self._writers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def obey(self) -> None:
        """Do what stdin says until it ends."""
        words = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
        while line := await words.readline():
            match line.decode().split():
                case ["swallow", seconds]:
                    self._swallows = True
                    await asyncio.sleep(float(seconds))
                    self._swallows = False
                    self.cut()
                case _:
                    self.cut()


async def main(port: int, target: int) -> None:
    """Relay until stdin ends."""
    relay = Relay(target)
    async with await asyncio.start_server(relay.serve, "127.0.0.1", port):
        await relay.obey()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
