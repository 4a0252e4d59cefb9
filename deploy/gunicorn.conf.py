"""gunicorn for the API: threads, because a held-open answer costs one, and few processes."""

import ctypes
import signal
import sys
from pathlib import Path

from shared.machinery.settings import load_settings

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


def post_fork(_server: object, _worker: object) -> None:
    """Let a worker end with its master: a killed master would leave it on the port for seconds."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
