"""What a farm adds to a render, from the client's request to the file: `python -m bench.service`.

A whole farm is started: Postgres, Redis, API, upkeep, one worker. Moments are those of the
events that it writes, by its database's clock.
"""

import json
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import httpx

from bench.checkpoints import BENCHED, write
from bench.timing import record
from cli.local import Local, pause
from cli.processes import verb
from mini.build import TRAINED
from shared.machinery.settings import child_environment
from shared.vocabulary.catalog import MINIATURES

_START_S: Final = 900.0  # of a real model's first load
_RENDER_S: Final = 1200.0
_POLL_S: Final = 0.2
_STOP_S: Final = 60.0
_LOG_TAIL: Final = 4000


@click.command()
@click.option(
    "--model", type=click.Choice([*MINIATURES, *BENCHED]), default="wan-mini-t2v", show_default=True
)
@click.option("--models", type=click.Path(path_type=Path), help="Where checkpoints are kept.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--videos", default=20, show_default=True, help="Of each kind, one after another.")
@click.option("--steps", default=4, show_default=True, help="Denoising steps of each.")
@click.option("--size", help="Of each, as 832x480; else the model's own.")
@click.option("--to", type=click.Path(path_type=Path), help="Else a file of this model.")
def main(  # noqa: PLR0913 - click's
    model: str,
    models: Path | None,
    device: str,
    videos: int,
    steps: int,
    size: str | None,
    to: Path | None,
) -> None:
    """Ask a warm, idle farm for videos, with prompts that it knows and with new ones."""
    with tempfile.TemporaryDirectory() as folder:
        kept = checkpoints(model, models or Path(folder) / "models")
        with warm_farm(Path(folder) / "farm", kept, model, device) as api:
            body = {"model": model, "steps": steps, "seed": 1} | ({"size": size} if size else {})
            rows = _measure(api, body, videos)
            rows.append({"row": "load by a worker", "seconds": api.loaded_s})
    for one in rows:
        print(f"{one['row']:48} {one['seconds'] * 1000:10.1f} ms", flush=True)
    record(to or Path(f"bench/measured/service-{model}.json"), rows)


def checkpoints(model: str, models: Path) -> Path:
    """Give where a model's checkpoint is: those that come with us, or written if missing."""
    kept = TRAINED if model in MINIATURES else models
    if not any(kept.glob("*/model_index.json")):
        write(model, kept)
    return kept


class Api:
    """A farm that is warm and idle, as a client sees it."""

    def __init__(self, client: httpx.Client, loaded_s: float) -> None:
        self.client = client
        self.loaded_s = loaded_s

    def video(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Make one video; gives its events, and asks for its file."""
        made = self.client.post("/v1/videos", json=body).raise_for_status().json()
        events = [*self.events(made["id"])]
        assert events[-1]["to"] == "completed", events[-1]
        self.client.get(f"/v1/videos/{made['id']}/content").raise_for_status()
        return events

    def events(self, video_id: str) -> Iterator[dict[str, Any]]:
        """Follow a video from its first event to its last."""
        accept = {"Accept": "text/event-stream", "Last-Event-ID": "0"}
        path = f"/v1/videos/{video_id}/events"
        with self.client.stream("GET", path, headers=accept, timeout=_RENDER_S) as lines:
            for line in lines.iter_lines():
                if not line.startswith("data: "):
                    continue
                event = json.loads(line.removeprefix("data: "))
                yield event
                if event.get("to") in {"completed", "failed", "cancelled"}:
                    return


def _measure(api: Api, body: dict[str, Any], videos: int) -> list[dict[str, Any]]:
    known = body | {"prompt": "a red ball moves left over a white background"}
    api.video(known)  # the first of its shape prepares what later ones find
    seen = [api.video(known) for _ in range(videos)]
    fresh = [api.video(body | {"prompt": f"a red ball, number {n}"}) for n in range(videos)]
    return [
        _row("submit to first step, prompt seen before", [_to_first_step(one) for one in seen]),
        _row("submit to first step, new prompt", [_to_first_step(one) for one in fresh]),
        _row("last step to file", [_to_end(one, "decode") for one in seen + fresh]),
        _row("last picture decoded to file", [_to_end(one, "encode") for one in seen + fresh]),
        _row("closed file to stored", [_to_end(one, "store") for one in seen + fresh]),
    ]


def _row(name: str, seconds: list[float]) -> dict[str, Any]:
    """A median, and the worst of a hundred as far as there are so many."""
    worst = sorted(seconds)[-1 - len(seconds) // 100]
    return {
        "row": name,
        "seconds": statistics.median(seconds),
        "p99_s": worst,
        "samples_s": seconds,
    }


def _to_first_step(events: list[dict[str, Any]]) -> float:
    return phase(events, "denoise") - events[0]["at"]


def _to_end(events: list[dict[str, Any]], since: str) -> float:
    return events[-1]["at"] - phase(events, since)


def phase(events: list[dict[str, Any]], name: str) -> float:
    """When a phase began."""
    return next(one["at"] for one in events if one["type"] == "phase" and one["name"] == name)


@contextmanager
def warm_farm(state: Path, models: Path, model: str, device: str) -> Generator[Api]:
    """Run a farm with a worker until the block ends."""
    words = ("--model", model, "--ranks", "1")
    known = {
        "WANFARM_MODELS_DIR": str(models.resolve()),
        "WANFARM_DEVICE": device,
        "WANFARM_DEFAULT_TEXT_MODEL": model,
    }
    with running(state, *words, **known) as client:
        _await_idle(client)
        yield Api(client, _loaded_s(_log_of(state)))


@contextmanager
def running(state: Path, *words: str, **settings: str) -> Generator[httpx.Client]:
    """Run `wanfarm up` with more words and settings until the block ends.

    Yields:
        A client of its API, with the admin key.
    """
    log = _log_of(state)
    state.parent.chmod(0o755)  # its servers run as another user when we are root
    known = child_environment(WANFARM_DATA_DIR=str(state), **settings)
    with log.open("wb") as out:
        argv = verb("up", "--port", str(_free_port()), *words)
        process = subprocess.Popen(argv, env=known, stdout=out, stderr=out)
    try:
        facts = _started(Local(state), process)
        key = Path(facts["admin_key_file"]).read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=facts["url"], headers=headers, timeout=60) as client:
            yield client
    except BaseException:
        click.echo(log.read_text()[-_LOG_TAIL:], err=True)
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_S)


def _log_of(state: Path) -> Path:
    return state.with_name("farm.log")


def _started(local: Local, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    facts = local.await_start(process, _STOP_S) and local.await_stage(("ready",), _START_S)
    if not facts:
        raise click.ClickException("The farm did not start; its log is above.")
    return facts


def _await_idle(client: httpx.Client) -> None:
    """Wait until the only group has its model."""
    give_up = time.monotonic() + _START_S
    while time.monotonic() < give_up:
        groups = client.get("/v1/groups").raise_for_status().json()["data"]
        if groups and groups[0]["state"] == "idle" and groups[0]["model"]:
            return
        pause(_POLL_S)
    raise click.ClickException("The worker's group did not become idle.")


def _loaded_s(log: Path) -> float:
    """What the worker's log says of the load."""
    lines = (
        line.partition("{")[2] for line in log.read_text().splitlines() if "model.loaded" in line
    )
    return next(json.loads("{" + line)["seconds"] for line in lines)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
