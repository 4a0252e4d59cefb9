"""The options that describe a video and how to wait for it, and the body that they make."""

import base64
import functools
import json
import mimetypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import click

from cli.session import Session

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for on the command line."""

    body: Json  # of the request, without what the verb's own arguments add
    wait: bool
    timeout_s: float | None
    output: Path | None
    idempotency_key: str | None
    spread: Json  # the seeds and the grid of a batch; empty for one video
    dry_run: bool

    @property
    def stays(self) -> bool:
        """Tell whether the verb stays until the video has ended; a file must exist to be saved."""
        return self.wait or self.output is not None


def _lora_refs(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> list[Json] | None:
    """Read `NAME[:STRENGTH[:TARGET]]`."""
    refs: list[Json] = []
    for text in texts:
        name, _, rest = text.partition(":")
        strength, _, target = rest.partition(":")
        ref: Json = {"name": name}
        try:
            ref |= {"strength": float(strength)} if strength else {}
        except ValueError:
            raise click.BadParameter(f"'{strength}' in '{text}' is no strength.") from None
        refs.append(ref | ({"target": target} if target else {}))
    return refs or None


def _grid(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> dict[str, list[object]]:
    """Read `NAME=A,B`, or `NAME=[...]` in JSON for values that have commas."""
    grid: dict[str, list[object]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not name or name in grid:
            raise click.BadParameter(f"'{text}' is not NAME=A,B, or its name comes twice.")
        listed = _value(values) if values.startswith("[") else None
        grid[name] = (
            cast("list[object]", listed)
            if isinstance(listed, list)
            else [_value(one) for one in values.split(",")]
        )
    return grid


# Ranges are the farm's to check: it knows its models, and names every fault at once.
_OPTIONS: Final = (
    click.option("--model", help="An id of `wanfarm models ls`."),
    click.option("--negative", "negative_prompt", help="What it should not show."),
    click.option("--size", help="WxH in pixels, or `auto` to follow the image."),
    click.option("--frames", type=int, help="Number of frames, 4k+1."),
    click.option("--seconds", type=float, help="Length, instead of --frames."),
    click.option("--fps", type=int, help="Playback rate."),
    click.option("--quality", help="draft, standard, high or distill4."),
    click.option("--steps", type=int, help="Denoising steps."),
    click.option("--guidance", "guidance_scale", type=float, help="Guidance of every expert."),
    click.option("--guidance-high", type=float, help="Guidance of the high-noise expert."),
    click.option("--guidance-low", type=float, help="Guidance of the low-noise expert."),
    click.option("--shift", type=float, help="Shift of the noise schedule."),
    click.option("--seed", type=int, help="Where the noise starts; drawn if left out."),
    click.option("--cache", help="off, default or fast; `--set cache.rdt=0.2` reaches the knobs."),
    click.option(
        "--lora",
        "loras",
        multiple=True,
        metavar="NAME[:STRENGTH[:TARGET]]",
        callback=_lora_refs,
        help="A LoRA; the target is `high`, `low` or both experts.",
    ),
)
_DELIVERY: Final = (
    click.option("--priority", type=int, help="Higher starts sooner."),
    click.option("--start-within", "start_within_s", type=int, help="Seconds; else cancelled."),
    click.option("--finish-within", "finish_within_s", type=int, help="Seconds; else ended."),
    click.option("--webhook", "webhook_url", help="An https address to tell of the end."),
)
_IMAGE: Final = click.option(
    "--image",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The picture to start from.",
)
_SPEC: Final = click.option(
    "--spec", type=click.File(), help="A JSON object of fields; options beat it. `-` is stdin."
)
_SET: Final = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any field of the API by name; `metadata.shot=12` reaches inside.",
)


_MANNER: Final = (
    click.option("--wait", is_flag=True, help="Stay until it has ended."),
    click.option("--timeout", type=float, help="Seconds to stay at most."),
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        help="Stay, then save the video there; `-` is stdout.",
    ),
    click.option("--idempotency-key", help="The same key gives the same video, not another one."),
)
_SPREAD: Final = (
    click.option("-n", "count", type=int, help="So many videos, each with a seed of its own."),
    click.option(
        "--grid",
        multiple=True,
        metavar="NAME=A,B",
        callback=_grid,
        help="A video for each value of a field; several combine.",
    ),
)
_NOT_FIELDS: Final = frozenset(
    {"image", "spec", "assignments", "wait", "timeout", "output", "idempotency_key"}
    | {"count", "grid", "dry_run"}
)


def video_options(run: Callable[[Session, str | None, Wish], int]) -> Callable[..., int]:
    """Give a verb every option that describes a video; it gets the wish that they make."""

    @functools.wraps(run)
    def verb(session: Session, word: str | None, **options: Any) -> int:  # noqa: ANN401 - click's
        wish = Wish(
            body=body_of(options),
            wait=options["wait"],
            timeout_s=options["timeout"],
            output=options["output"],
            idempotency_key=options["idempotency_key"],
            spread=_spread_of(options),
            dry_run=options.get("dry_run", False),
        )
        return run(session, word, wish)

    return spec_options(_with(verb, *_DELIVERY, *_MANNER))


def spread_options(verb: Callable[..., int]) -> Callable[..., int]:
    """Give a verb of `video_options` those that make a batch."""
    return _with(verb, *_SPREAD)


def _spread_of(options: Json) -> Json:
    """Say in what the videos of a batch differ."""
    said = {"variations": options.get("count"), "grid": options.get("grid") or None}
    return {name: value for name, value in said.items() if value is not None}


def spec_options(verb: Callable[..., int]) -> Callable[..., int]:
    """Give a verb the options that describe a video's pictures; `body_of` reads them."""
    return _with(verb, *_OPTIONS, _IMAGE, _SPEC, _SET)


def _with(verb: Callable[..., int], *options: Callable[..., Any]) -> Callable[..., int]:
    for option in reversed(options):
        verb = option(verb)
    return verb


def body_of(options: Json) -> Json:
    """Make the request body: the file first, then `--set`, then what has an option of its own."""
    body = _spec(options)
    for assignment in options["assignments"]:
        _assign(body, assignment)
    named = {name: value for name, value in options.items() if name not in _NOT_FIELDS}
    body |= {name: value for name, value in named.items() if value is not None}
    if options["image"] is not None:
        body["input_reference"] = data_url(options["image"])
    return body


def read_prompt(word: str) -> str:
    """Take a prompt as it is, from stdin (`-`) or from a file (`@name`)."""
    if word == "-":
        return sys.stdin.read().strip()
    if word.startswith("@"):
        try:
            return Path(word[1:]).read_text().strip()
        except (OSError, UnicodeDecodeError) as err:
            raise click.UsageError(f"{word[1:]} cannot be read as text: {err}.") from err
    return word


def data_url(path: Path) -> str:
    """Write a picture into one line; the farm decodes it and believes no name."""
    kind = mimetypes.guess_type(path.name)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _spec(options: Json) -> Json:
    if options["spec"] is None:
        return {}
    try:
        value: object = json.load(options["spec"])
    except ValueError as err:
        raise click.UsageError(f"--spec is not JSON: {err}.") from err
    if not isinstance(value, dict):
        raise click.UsageError("--spec is not a JSON object. Fields have names.")
    return cast("Json", value)


def _assign(body: Json, assignment: str) -> None:
    """Put `a.b=value` into a body; what reads as JSON is taken as such, the rest as text.

    Members of `metadata` are always text: the farm takes nothing else there.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise click.UsageError(f"--set takes NAME=VALUE, not '{assignment}'.")
    *folders, name = path.split(".")
    for folder in folders:
        inner: object = body.setdefault(folder, {})
        if not isinstance(inner, dict):
            raise click.UsageError(f"--set {assignment}: {folder} is no object.")
        body = cast("Json", inner)
    body[name] = text if folders[:1] == ["metadata"] else _value(text)


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
