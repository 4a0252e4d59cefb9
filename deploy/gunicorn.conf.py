"""gunicorn for the API: threads, because a held-open answer costs one, and few processes."""

import ctypes
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from gunicorn import util
from gunicorn.glogging import Logger

from shared.machinery.logs import configure
from shared.machinery.settings import load_settings
from shared.vocabulary.errors import CODES
from shared.vocabulary.ids import new_id

_settings = load_settings()
_PR_SET_PDEATHSIG = 1
_memory = Path("/dev/shm")  # noqa: S108 - heartbeat files; a slow disk would look like a hung worker

bind = f"{_settings.host}:{_settings.port}"
workers = _settings.api_processes
worker_class = "gthread"
threads = _settings.api_threads
worker_tmp_dir = str(_memory) if _memory.is_dir() else None
timeout = 60
graceful_timeout = 5  # streams are closed within two seconds of shutdown
keepalive = 5
control_socket_disable = True  # otherwise a socket appears below the home directory
accesslog = None  # the app logs requests itself, without tokens
loglevel = "warning"
proc_name = "wanfarm-api"
configure(_settings.log_level, service="api")


def _refuse(sock: Any, status: int, reason: str, text: str) -> None:  # noqa: ANN401 - gunicorn's own
    """Answer what never reached the app as the app answers: too long a line, a broken header."""
    ours = status >= 500
    code = "internal_error" if ours else "invalid_header"
    said = {
        "message": f"{reason}. {text}"[:300] or "The request cannot be read. Send it anew.",
        "type": CODES[code].type,
        "code": code,
        "param": None,
        "request_id": new_id("req"),
        "errors": [],
    }
    body = json.dumps({"error": said})
    head = f"HTTP/1.1 {CODES[code].status} {'Internal Server Error' if ours else 'Bad Request'}"
    lines = (head, "Connection: close", "Content-Type: application/json")
    util.write_nonblock(
        sock, "\r\n".join((*lines, f"Content-Length: {len(body)}", "", body)).encode()
    )


util.write_error = _refuse


class logger_class(Logger):
    """gunicorn's own words, which may quote a request, as lines of our log."""

    def setup(self, cfg: Any) -> None:  # noqa: ANN401 - gunicorn's own
        """Leave them to the root logger."""
        super().setup(cfg)
        self.error_log.handlers = []
        self.error_log.propagate = True


def when_ready(server: Any) -> None:  # noqa: ANN401 - gunicorn's own
    """Make a folder where the processes count, before the first of them: all begin at 0."""
    server.counts = tempfile.mkdtemp(prefix="wanfarm-metrics-", dir=worker_tmp_dir)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = server.counts


def child_exit(server: Any, worker: Any) -> None:  # noqa: ANN401 - gunicorn's own
    """Forget the gauges of a worker that is gone; what it counted stays counted."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid, server.counts)


def worker_exit(server: Any, _worker: object) -> None:  # noqa: ANN401 - gunicorn's own
    """Clear the folder away for a master that was killed."""
    if os.getppid() != server.pid:
        on_exit(server)


def on_exit(server: Any) -> None:  # noqa: ANN401 - gunicorn's own
    """Clear the folder away."""
    shutil.rmtree(server.counts, ignore_errors=True)


def post_fork(_server: object, _worker: object) -> None:
    """Let a worker end with its master: a killed master would leave it on the port for seconds."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
