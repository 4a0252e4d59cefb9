"""Two to six finished videos side by side: players on one clock, and where their settings part."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from flask import Blueprint, render_template, request

from api.dashboard.detail import settings_of
from api.dashboard.rows import find_row
from api.dashboard.stepmap import draw
from api.dashboard.views import spec_words, took_s
from api.dashboard.words import DASH, duration, short_id, size
from api.plumbing.auth import require
from shared.jobs import presenters, queries
from shared.jobs.ledger import Values
from shared.jobs.provenance import cache_used, finished_attempt, provenance
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.spec import GenerationSpec
from shared.vocabulary.states import VideoState

LEAST, MOST = 2, 6
_HASH: Final = 12  # letters of a hash that tell files apart


@dataclass(frozen=True, slots=True)
class Player:
    """One of the videos, under its letter."""

    letter: str
    id: str
    prompt: str
    spec: str
    width: int
    height: int
    frames: int
    fps: int


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: a value per video."""

    name: str
    values: list[str]

    @property
    def differs(self) -> bool:
        """Tell whether not all videos have the same."""
        return len(set(self.values)) > 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that the page shows."""

    players: list[Player]
    settings: list[Row]
    costs: list[Row]
    aligned: str  # how videos of other lengths are played together; empty when all are alike


def register(pages: Blueprint) -> None:
    """Serve the page."""
    pages.add_url_rule("/compare", view_func=compare)


def compare() -> str:
    """Show videos side by side; `ids` comes as a list with commas, or again and again."""
    caller = require(request, "read")
    rows = [find_row(one, caller) for one in ids_of(request.args.getlist("ids"))]
    _refuse_without_file(rows)
    return render_template("compare.html", comparison=comparison(rows))


def comparison(rows: list[Values]) -> Comparison:
    """Gather what there is to see; every row is of a video with a file, and has its attempts."""
    players = [_player(chr(ord("A") + at), row) for at, row in enumerate(rows)]
    return Comparison(
        players=players,
        settings=_table(rows, _settings),
        costs=_table(rows, _costs),
        aligned=_aligned(players),
    )


def parts(given: list[str]) -> list[str]:
    """Read ids that come as a list with commas, or again and again."""
    found = [part.strip() for text in given for part in text.split(",")]
    return list(dict.fromkeys(part for part in found if part))


def ids_of(given: list[str]) -> list[str]:
    """Read the ids of a comparison.

    Raises:
        WanfarmError: `invalid_value` for fewer or more than can stand beside each other.
    """
    ids = parts(given)
    if not LEAST <= len(ids) <= MOST:
        raise WanfarmError(
            "invalid_value",
            f"ids names {len(ids)} video{'' if len(ids) == 1 else 's'}. "
            f"{LEAST} to {MOST} can be compared. Tick them in the list of jobs.",
            param="ids",
        )
    return ids


def _refuse_without_file(rows: list[Values]) -> None:
    lacking = [row for row in rows if not presenters.has_files(row)]
    if not lacking:
        return
    named = ", ".join(f"{short_id(row['id'])} ({_lack(row)})" for row in lacking)
    waits = any(not queries.is_over(row["state"]) for row in lacking)
    advice = "Come back when it is completed." if waits else "Re-run it, or leave it out."
    raise WanfarmError(
        "video_not_ready" if waits else "content_gone",
        f"There is no file of {named}. Only finished videos can be played. {advice}",
    )


def _lack(row: Values) -> str:
    return "expired" if row["result"] else VideoState(row["state"]).word


def _player(letter: str, row: Values) -> Player:
    result = row["result"]
    return Player(
        letter=letter,
        id=row["id"],
        prompt=" ".join(row["spec"]["prompt"].split()),
        spec=spec_words(row),
        width=result["width"],
        height=result["height"],
        frames=result["frames"],
        fps=result["fps"],
    )


def _aligned(players: list[Player]) -> str:
    """Say what is done about different frame rates and lengths; nothing, where there are none."""
    if len({(one.frames, one.fps) for one in players}) == 1:
        return ""
    shapes = ", ".join(f"{one.letter} {one.frames} frames at {one.fps} fps" for one in players)
    return f"{shapes}: they are aligned by time. A leads, and all of them stop where it ends."


def _table(rows: list[Values], read: Callable[[Values], dict[str, str]]) -> list[Row]:
    """Line up what is read of each video; what one does not have is a dash."""
    columns = [read(row) for row in rows]
    names = dict.fromkeys(name for column in columns for name in column)
    return [Row(name, [column.get(name, DASH) for column in columns]) for name in names]


def _settings(row: Values) -> dict[str, str]:
    """Everything that decided the pixels; the cache as it was used, not as it was wished for."""
    spec = GenerationSpec.model_validate(row["spec"])
    told = {"prompt": spec.prompt, "negative prompt": spec.negative_prompt or DASH}
    told |= {one.name: one.value for one in settings_of(row, spec) if one.name != "priority"}
    loras = [f"{one.name} {one.strength:g} {one.target}" for one in spec.loras]
    told |= {"LoRAs": ", ".join(loras)} if loras else {}
    told |= {"input image": spec.image.sha256[:_HASH]} if spec.image else {}
    used = cache_used(row)
    if used is not None:
        told |= _knobs("cache", used) if isinstance(used, dict) else {"cache": used}
    parallel: Values = (provenance(row) or {}).get("parallel", {})
    return told | {name: str(value) for name, value in parallel.items()}


def _knobs(prefix: str, policy: Values) -> dict[str, str]:
    """Spell a cache policy out: a name per knob, those of the low-noise expert apart."""
    lines: dict[str, str] = {}
    for name, value in policy.items():
        if name == "enabled":
            lines[prefix] = "on"
        elif name == "secondary":
            lines |= _knobs(f"{prefix} low", value)
        else:
            lines[f"{prefix} {name}"] = str(value)
    return lines


def _costs(row: Values) -> dict[str, str]:
    """What the video took and what came out, which no request decides."""
    spec, result = GenerationSpec.model_validate(row["spec"]), row["result"]
    attempt = finished_attempt(row)
    drawn = draw(spec.steps, attempt["report"] if attempt else {}, {}, guided=spec.guided)
    return {
        "run": duration(took_s(row)),
        "GPU-seconds": f"{queries.gpu_seconds(row['attempts']):g}",
        "cached steps": f"{drawn.cached} of {drawn.done}" if drawn.done else DASH,
        "file": size(result["bytes"]),
        "sha256": result["sha256"][:_HASH],
    }
