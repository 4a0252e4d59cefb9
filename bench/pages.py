"""What each page weighs, and how soon one can be used: `python -m bench.pages`.

A farm with some videos serves, and Debian's chromium looks, each time as somebody new.
"""

import gzip
import shutil
import statistics
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import httpx

from bench.farm_queue import UNBOUNDED
from bench.service import running
from bench.timing import record

_MODEL: Final = "wan-mini-t2v"
_VIDEOS: Final = 40
_MEDIA: Final = ("image/", "video/")
_MEASURED: Final = Path("bench/measured/pages.json")


@click.command()
@click.option("--rounds", default=10, show_default=True, help="Visits of each page.")
@click.option("--to", type=click.Path(path_type=Path), default=_MEASURED, show_default=True)
def main(rounds: int, to: Path) -> None:
    """Visit every page."""
    rows: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="wanfarm-bench-") as folder,
        running(Path(folder) / "farm", "--no-worker", **UNBOUNDED) as client,
        _browser() as browser,
    ):
        for name, path in _pages(client).items():
            visits = [_visit(browser, client, path) for _ in range(rounds)]
            rows.append(_row(name, visits))
    for one in rows:
        print(f"{one['row']:10} {one['bytes'] / 1000:6.1f} kB {one['seconds'] * 1000:7.0f} ms")
    record(to, rows)


@contextmanager
def _browser() -> Generator[Any]:
    program = shutil.which("chromium")
    if program is None:
        raise click.ClickException("There is no chromium on PATH. Install your system's package.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def _pages(client: httpx.Client) -> dict[str, str]:
    ids = [_submit(client, number) for number in range(_VIDEOS)]
    return {
        "overview": "/", "jobs": "/jobs", "grid": "/jobs?view=grid", "job": f"/jobs/{ids[-1]}",
        "new": "/new", "groups": "/groups", "keys": "/admin/keys", "audit": "/admin/audit",
        "docs": "/docs",
    }  # fmt: skip


def _submit(client: httpx.Client, number: int) -> str:
    body = {"model": _MODEL, "prompt": f"a red ball, number {number}"}
    return client.post("/v1/videos", json=body).raise_for_status().json()["id"]


def _visit(browser: Any, client: httpx.Client, path: str) -> dict[str, float]:  # noqa: ANN401
    """Open a page with an empty cache; gives its compressed bytes, and when its scripts had run."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_extra_http_headers({"Authorization": client.headers["Authorization"]})
    page = context.new_page()
    heard: list[Any] = []

    def note(response: Any) -> None:  # noqa: ANN401 - playwright's
        heard.append(response)

    page.on("response", note)
    page.goto(f"{client.base_url}".rstrip("/") + path, wait_until="load")
    ready = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    weights = [len(gzip.compress(one.body())) for one in list(heard) if _counts(one)]
    context.close()
    return {"bytes": sum(weights), "seconds": ready / 1000}


def _counts(response: Any) -> bool:  # noqa: ANN401 - playwright's
    kind = response.headers.get("content-type", "")
    return response.status == 200 and not kind.startswith((*_MEDIA, "text/event-stream"))


def _row(name: str, visits: list[dict[str, float]]) -> dict[str, Any]:
    seconds = [one["seconds"] for one in visits]
    return {
        "row": name,
        "bytes": max(one["bytes"] for one in visits),
        "seconds": statistics.median(seconds),
        "max_s": max(seconds),
        "samples_s": seconds,
    }


if __name__ == "__main__":
    main()
