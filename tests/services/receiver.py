"""A receiver of webhooks on this machine: it answers as it is told, and remembers what came."""

import http.server
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path

from standardwebhooks import Webhook

CERTIFICATE = Path(__file__).with_name("receiver.pem")  # of `localhost`, signed by itself


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verify(self, secret: str) -> dict:
        """What a receiver's own library makes of it; raises when the signature does not hold."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    """Answers `status` with `headers` and `text`; holds its answers until `go` is set."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    text: str = "thank you"
    got: list[Received] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    secure: bool = False

    def __enter__(self) -> "Receiver":
        self.go.set()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if self.secure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.got.append(Received(self.path, headers, body))
                receiver.go.wait(60)
                try:
                    self.answer()
                except OSError:  # the sender is gone
                    self.close_connection = True

            def answer(self) -> None:
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(receiver.text.encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler
