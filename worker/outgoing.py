"""One POST to an address that a stranger named: to a vetted host, in bounded time."""

import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from shared.jobs.deliveries import Answer
from shared.vocabulary.addresses import is_public, url_fault

_CONNECT_S: Final = 5.0
_HEAD_BYTES: Final = 1024
_LEAST_S: Final = 0.001  # a socket takes 0 for "do not wait"


class Refused(Exception):
    """The farm does not call this address; the text says why."""


@dataclass(frozen=True, slots=True)
class Sender:
    """How to send: `tls` checks the receiver's name; `allow_private` is for a lab."""

    tls: ssl.SSLContext
    allow_private: bool = False
    total_s: float = 15.0

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send once; no redirect is followed, no proxy is asked, and nothing is raised."""
        began = time.monotonic()
        try:
            status, head = self._exchange(url, body, headers, began + self.total_s)
        except (Refused, OSError, http.client.HTTPException, ValueError) as err:
            return Answer(None, _ms_since(began), problem=_reason(err))
        moved = "It redirects, which webhooks do not follow." if 300 <= status < 400 else None
        return Answer(status, _ms_since(began), head, moved)

    def _exchange(
        self, url: str, body: bytes, headers: Mapping[str, str], deadline: float
    ) -> tuple[int, str]:
        if fault := url_fault("url", url, allow_private=self.allow_private):
            raise Refused(fault.message)
        parts = urlsplit(url)
        with self._connect(parts, deadline) as line:
            connection = http.client.HTTPConnection(parts.netloc)
            connection.sock = _Timed(line, deadline)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", target, body, {"Host": parts.netloc, **headers})
            answer = connection.getresponse()
            return answer.status, _head(answer)

    def _connect(self, parts: SplitResult, deadline: float) -> socket.socket:
        """Connect to the first address of a host that answers, if each of them may be called."""
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        assert parts.hostname
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        addresses = [str(one[4][0]) for one in found]
        if not self.allow_private and not all(map(is_public, addresses)):
            raise Refused("The host has an address that is not of the public internet.")
        until = min(deadline, time.monotonic() + _CONNECT_S)
        line = _first(addresses, port, until)
        if not secure:
            return line
        line.settimeout(_left(deadline))
        return self.tls.wrap_socket(line, server_hostname=parts.hostname)


def _first(addresses: list[str], port: int, until: float) -> socket.socket:
    *others, last = dict.fromkeys(addresses)
    for address in others:
        try:
            return socket.create_connection((address, port), _left(until))
        except OSError:
            continue
    return socket.create_connection((last, port), _left(until))


class _Timed(io.RawIOBase):
    """A socket whose every read and write ends by one deadline, as HTTPConnection wants it."""

    def __init__(self, line: socket.socket, deadline: float) -> None:
        self._line = line
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - a writable buffer
        self._line.settimeout(_left(self._deadline))
        return self._line.recv_into(buffer)

    def sendall(self, data: bytes) -> None:
        self._line.settimeout(_left(self._deadline))
        self._line.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def close(self) -> None:
        """Do nothing: HTTPConnection closes before the body is read; `_exchange` does it after."""


def _left(deadline: float) -> float:
    return max(_LEAST_S, deadline - time.monotonic())


def _head(answer: http.client.HTTPResponse) -> str:
    """Read the beginning of a body; what breaks off or takes too long is as long as it is."""
    head = b""
    try:
        while len(head) < _HEAD_BYTES and (more := answer.read1(_HEAD_BYTES - len(head))):
            head += more
    except (OSError, http.client.HTTPException):
        pass
    return head.decode("utf-8", "replace").replace("\0", "\ufffd")


def _reason(err: Exception) -> str:
    """Say why there is no answer, without hosts and addresses."""
    match err:
        case Refused():
            return str(err)
        case TimeoutError():
            return "No answer came in time."
        case ssl.SSLCertVerificationError():
            return f"The certificate does not hold: {err.verify_message}."[:300]
        case socket.gaierror():
            return "The host's name does not resolve."
        case ConnectionRefusedError():
            return "The host refused the connection."
        case _:
            return f"The connection broke ({type(err).__name__})."


def _ms_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
