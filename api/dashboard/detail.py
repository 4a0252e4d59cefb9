"""Everything that the page of one video shows."""

from dataclasses import dataclass
from typing import Any, Final

from api.dashboard.cachecard import CacheCard, cache_card
from api.dashboard.curl import command
from api.dashboard.stepmap import EXPERT_WORDS, Mark, StepMap, draw
from api.dashboard.timeline import Moment, timeline
from api.dashboard.views import (
    Badge,
    Remaining,
    badge,
    detail_of,
    doing,
    is_draft,
    poster_url,
    remaining,
)
from api.dashboard.words import duration, number
from shared.jobs import presenters, queries
from shared.jobs.ledger import Values
from shared.jobs.provenance import cache_used
from shared.machinery.farm import Farm
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.spec import GenerationSpec
from shared.vocabulary.states import Phase, VideoState

_ALL_EVENTS: Final = 2000  # five attempts of a hundred steps, and their phases


@dataclass(frozen=True, slots=True)
class Setting:
    """One value of a request, and who chose it: asked, default or drawn."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class StepLine:
    """One row of the step table."""

    step: int
    marks: dict[str, Mark]  # by branch
    seconds: float | None


@dataclass(frozen=True, slots=True)
class JobPage:
    """A video with its history, ready to show."""

    row: Values
    spec: GenerationSpec
    badge: Badge
    is_live: bool
    attempts_left: int
    doing: str
    expert: str | None
    remaining: Remaining | None
    place: int | None
    map: StepMap
    step_lines: list[StepLine]
    pace: str
    cache: CacheCard | None
    timeline: list[Moment]
    settings: list[Setting]
    is_draft: bool
    original: str | None  # what it was made from, where both can be played
    poster: str | None
    run_s: float | None
    gpu_seconds: float
    curl: str

    @property
    def expired(self) -> bool:
        """Tell whether the files are gone while the row stays."""
        result: Values | None = self.row["result"]
        return bool(result and result.get("expired"))


def job_page(farm: Farm, row: Values, base_url: str) -> JobPage:
    """Gather what belongs to a video; `row` comes from `queries.one`."""
    state = VideoState(row["state"])
    spec = GenerationSpec.model_validate(row["spec"])
    report = _report(row)
    detail = detail_of(row)
    told: Values = (row["attempts"][-1]["cache"] if row["attempts"] else None) or {}
    drawn = draw(spec.steps, report or detail, told, guided=spec.guided)
    lines = _step_lines(drawn, report)
    return JobPage(
        row=row,
        spec=spec,
        badge=badge(state),
        is_live=not state.is_final,
        attempts_left=row["attempts_left"],
        doing=doing(row) if state is VideoState.IN_PROGRESS else "",
        expert=EXPERT_WORDS.get(detail.get("expert", "")) if _denoises(row) else None,
        remaining=remaining(row) if state is VideoState.IN_PROGRESS else None,
        place=queries.place(farm, row) if state is VideoState.QUEUED else None,
        map=drawn,
        step_lines=lines,
        pace=_pace(lines, detail),
        cache=cache_card(told, report),
        timeline=timeline(row, queries.events(farm, row["id"], limit=_ALL_EVENTS)),
        settings=settings_of(row, spec),
        is_draft=is_draft(row),
        original=_original(farm, row),
        poster=poster_url(row),
        run_s=_run_s(row),
        gpu_seconds=queries.gpu_seconds(row["attempts"]),
        curl=_curl(spec, cache_used(row), base_url),
    )


def _denoises(row: Values) -> bool:
    live = row["state"] == VideoState.IN_PROGRESS
    return live and detail_of(row).get("phase") == Phase.DENOISE.value


def _report(row: Values) -> Values | None:
    """The report of the attempt that completed; None while there is none."""
    reports: list[Values] = [one["report"] for one in row["attempts"] if one["report"]]
    return reports[-1] if reports else None


def _original(farm: Farm, row: Values) -> str | None:
    source = row["promoted_from"] or row["remixed_from"]
    if source is None or not presenters.has_files(row):
        return None
    original = queries.one(farm, source, row["tenant"])
    return original["id"] if original and presenters.has_files(original) else None


def _run_s(row: Values) -> float | None:
    if row["completed_at"] is None or row["started_at"] is None:
        return None
    return (row["completed_at"] - row["started_at"]).total_seconds()


def _step_lines(drawn: StepMap, report: Values | None) -> list[StepLine]:
    """The drawing's data as a table, with seconds once the attempt has reported them."""
    costs: list[Values] = report["steps"] if report else []
    seconds: dict[int, float] = {one["step"]: one["seconds"] for one in costs}
    return [
        StepLine(
            index + 1,
            {branch: cells[index].mark for branch, cells in drawn.lanes},
            seconds.get(index + 1),
        )
        for index in range(drawn.done)
    ]


def _pace(lines: list[StepLine], detail: Values) -> str:
    """Say what a step costs, computed and cached apart."""
    costs: dict[str, list[float]] = {"computed": [], "cached": []}
    for one in lines:
        if one.seconds is not None:
            decisions = {mark.decision for mark in one.marks.values()}
            costs["cached" if "cached" in decisions else "computed"].append(one.seconds)
    parts = [f"{sum(c) / len(c):.2f} s/step {word}" for word, c in costs.items() if c]
    if not parts and detail.get("step_s"):
        parts = [f"{detail['step_s']:.2f} s last step"]
    return " · ".join(parts)


def settings_of(row: Values, spec: GenerationSpec) -> list[Setting]:
    """List what was asked of a video, or filled in for it."""
    asked = set(row["asked"])

    def source(*names: str, otherwise: str = "default") -> str:
        return "asked" if asked & set(names) else otherwise

    steps_by = "quality" if "quality" in asked else "default"
    two = spec.card.experts == 2
    lines = [
        Setting("model", spec.model, source("model")),
        Setting("size", f"{spec.width}×{spec.height}", source("size", "width", "height")),  # noqa: RUF001
        Setting("frames", str(spec.frames), source("frames", "seconds")),
        Setting("fps", str(spec.fps), source("fps")),
        Setting("length", duration(spec.frames / spec.fps), ""),
        Setting("steps", str(spec.steps), source("steps", otherwise=steps_by)),
        Setting(
            "guidance high" if two else "guidance",
            number(spec.guidance_high),
            source("guidance_high", "guidance_scale"),
        ),
    ]
    if two:
        low = source("guidance_low", "guidance_scale", "guidance_scale_2")
        lines.append(Setting("guidance low", number(spec.guidance_low), low))
        lines.append(Setting("boundary", number(spec.boundary), source("boundary")))
    cache = spec.cache if isinstance(spec.cache, str) else "custom"
    return [
        *lines,
        Setting("shift", number(spec.shift), source("shift")),
        Setting("sampler", spec.sampler, source("sampler")),
        Setting("seed", str(spec.seed), source("seed", otherwise="drawn")),
        Setting("cache", cache, source("cache", otherwise=steps_by)),
        Setting("priority", str(row["priority"]), source("priority")),
    ]


def _curl(spec: GenerationSpec, cache: Values | str | None, base_url: str) -> str:
    """Phrase the command that renders the same pixels again."""
    names = ("model", "prompt", "frames", "fps", "steps", "guidance_high", "guidance_low", "shift")
    body: dict[str, Any] = {name: getattr(spec, name) for name in names}
    body |= {"size": f"{spec.width}x{spec.height}", "seed": spec.seed}
    if spec.negative_prompt != MODELS[spec.model].negative_prompt:
        body["negative_prompt"] = spec.negative_prompt
    asked = spec.model_dump(mode="json")["cache"]
    body["cache"] = cache or (asked if asked != "default" else None)
    body = {name: value for name, value in body.items() if value is not None}
    return command(base_url, "/v1/videos", body, image="input.png" if spec.image else None)
