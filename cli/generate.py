"""The verb that renders without a farm: it starts the engine, shows how far it is, and waits."""

import json
import signal
import subprocess
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click

from cli import render
from cli.client import Exit, FarmError, Json
from cli.processes import program
from cli.render import Screen
from cli.request import body_of, read_prompt, spec_options

_PLACES: Final = ("text_encoder", "dit", "vae", "layerwise")
_OFFLOAD: Final = click.Choice([*_PLACES, "none"])
_FOLDER: Final = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("word", metavar="[PROMPT]", required=False)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True,
    help="The file to write.",
)  # fmt: skip
@spec_options
@click.option("--gpus", type=click.IntRange(1), help="Ranks, one per GPU; on the CPU, processes.")
@click.option("--cfg", type=click.Choice(["1", "2"]), help="Ranks for the guidance branches.")
@click.option("--ulysses", type=click.IntRange(1), help="Ranks that share a sequence by heads.")
@click.option("--ring", type=click.IntRange(1), help="Ranks that share a sequence by tokens.")
@click.option("--device", help="cuda or cpu.")
@click.option("--precision", help="reference, bf16, fp8 or fp8_attn.")
@click.option("--attention", help="auto, fa3, cudnn, flash or native.")
@click.option(
    "--offload", multiple=True, type=_OFFLOAD,
    help="Keep a part in CPU memory while it is idle; `none` keeps all on the GPU.",
)  # fmt: skip
@click.option("--models-dir", type=_FOLDER, help="Checkpoints, one directory each.")
@click.option("--lora-dir", type=_FOLDER, help="LoRAs, one directory each.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option("-q", "--quiet", is_flag=True, help="The file's name only, and no notes.")
def generate(
    word: str | None,
    output: Path,
    *,
    as_json: bool,
    quiet: bool,
    **options: Any,  # noqa: ANN401
) -> int:
    """Render a video of PROMPT here, without a farm: a text, `-` for stdin, or `@file`.

    What the options leave out is as for `wanfarm submit` and in the settings of a worker, and the
    same request gives the same bytes as through a farm.
    """
    settings = _settings(options)
    image: Path | None = options.pop("image")
    body = body_of(options | {"image": None})
    if word is not None:
        body["prompt"] = read_prompt(word)
    wish: Json = {"request": body, "output": str(output.absolute()), "settings": settings}
    wish["image"] = str(image.absolute()) if image else None
    return _Show(Screen(as_json=as_json, quiet=quiet)).run(wish)


class _Show:
    """What a person sees of one rendering."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._detail: Json = {}
        self._spec: Json = {}

    def run(self, wish: Json) -> int:
        """Start the engine's program, and pass Ctrl-C on: it leaves no file then."""
        argv = program("worker.alone", json.dumps(wish))
        with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as process:
            assert process.stdout

            def pass_on(_number: int, _frame: FrameType | None) -> None:
                process.send_signal(signal.SIGINT)

            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, pass_on)
            for line in process.stdout:
                self._hear(json.loads(line))
        self._screen.end_progress()
        if process.returncode < 0:
            raise FarmError(Exit.ERROR, "The engine's program was killed.")
        return process.returncode

    def _hear(self, said: Json) -> None:
        match said["type"]:
            case "spec":
                self._spec = said
                for warning in said["warnings"]:
                    self._screen.note(f"Note: {warning['message']}")
            case "phase" | "step":
                self._detail |= said
                video = {"status": "in_progress", "progress_detail": self._detail}
                self._screen.progress(render.progress_text(video), kind=render.phase_of(video))
            case "done":
                self._done(said)
            case _:
                self._screen.end_progress()
                error = FarmError(Exit(said["exit"]), said["message"], details=said["more"])
                error.show()

    def _done(self, said: Json) -> None:
        self._screen.end_progress()
        whole = {name: value for name, value in (self._spec | said).items() if name != "type"}
        self._screen.object(whole, [said["output"]], short=said["output"])
        took = render.seconds_text(said["seconds"])
        self._screen.note(f"{took} in all, seed {self._spec['spec']['seed']}")


def _settings(options: Json) -> Json:
    """Take the options that are settings of a worker out, by the names of those."""
    gpus, parallel = options.pop("gpus"), [options.pop(n) for n in ("cfg", "ulysses", "ring")]
    settings: Json = {"ranks": gpus}
    if any(parallel):
        cfg, ulysses, ring = (int(one or 1) for one in parallel)
        settings["parallel"] = f"{cfg}x{ulysses}x{ring}"
        settings["ranks"] = gpus or cfg * ulysses * ring
    for name in ("device", "precision", "attention"):
        settings[name] = options.pop(name)
    for name in ("models_dir", "lora_dir"):
        folder: Path | None = options.pop(name)
        settings[name] = str(folder.absolute()) if folder else None
    away: tuple[str, ...] = options.pop("offload")
    for place in _PLACES if away else ():
        settings[f"offload_{place}"] = "on" if place in away else "off"
    return {name: value for name, value in settings.items() if value is not None}
