"""Static files under one content hash, so that a browser may keep them for ever."""

import hashlib
from pathlib import Path
from typing import Final

from flask import Blueprint, Response, redirect, send_from_directory
from werkzeug.wrappers import Response as Redirect

_ROOT: Final = Path(__file__).parent.parent / "static"
_YEAR_S: Final = 31_536_000


def fingerprint(root: Path = _ROOT) -> str:
    """Hash all files of a folder with their names: any change gives other URLs.

    One hash for all lets our modules import each other by relative names, which a strict content
    policy could not map otherwise.
    """
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def register(pages: Blueprint) -> None:
    """Serve the files and give templates `static_url(name)`."""
    current = fingerprint()

    @pages.get("/static/<version>/<path:name>")
    def static_file(version: str, name: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        # A page of another version, during an upgrade, gets today's file and may not keep it.
        answer = send_from_directory(_ROOT, name, max_age=_YEAR_S if version == current else 0)
        if version == current:
            answer.cache_control.public = True
            answer.cache_control.immutable = True
        return answer

    @pages.get("/favicon.ico")
    def favicon() -> Redirect:  # pyright: ignore[reportUnusedFunction]
        # Asked for beside what is no page of ours: a log, a video in a tab of its own.
        return redirect(f"/static/{current}/app/favicon.svg")

    @pages.app_template_global()
    def static_url(name: str) -> str:  # pyright: ignore[reportUnusedFunction]
        return f"/static/{current}/{name}"
