"""From a row to a video object: the only place that shapes a job's JSON."""

import math
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from shared.jobs import estimates, groups, queries
from shared.jobs.estimates import Wait
from shared.jobs.ledger import Values
from shared.jobs.provenance import provenance
from shared.machinery.farm import Farm
from shared.machinery.links import signed_query
from shared.vocabulary.adapters import distilled_pair
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.errors import JOB_CODES
from shared.vocabulary.runtime import UNSURE, Expected
from shared.vocabulary.spec import FailureKind, GenerationSpec
from shared.vocabulary.states import Phase
from shared.vocabulary.video import (
    AttemptError,
    AttemptObject,
    Eta,
    JobError,
    QueuePlace,
    ResultObject,
    Urls,
    VideoObject,
    VideoPage,
    Warned,
)

_PRIOR_S: Final = 60.0  # left of a video of which nothing is known
_POLL_MS: Final = (500, 5000)
_RETRYABLE: Final = frozenset(JOB_CODES[kind] for kind in FailureKind if kind.retryable)
_DETAIL: Final = (
    "phase", "step", "steps", "switch_step", "expert", "cached", "cached_steps", "step_s",
    "updated_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a waiting video's start depends on."""

    groups: list[Values]  # all of them, at least what `groups.OFFER` names
    place: int  # in the queue of its model, from 1
    dispatches: bool  # videos are started


def video(farm: Farm, row: Values, base_url: str) -> VideoObject:
    """Show one video, with its attempts, its place and when it may end; see `answer`."""
    return answer(farm, row, base_url)[0]


def answer(
    farm: Farm, row: Values, base_url: str, outlook: Outlook | None = None
) -> tuple[VideoObject, int | None]:
    """Show one video, and advise how many ms to wait between polls; None when it is over.

    Args:
        farm: the handles.
        row: the video, with its attempts.
        base_url: how its readers reach the farm.
        outlook: of a waiting video, where it was just read.
    """
    if queries.is_over(row["state"]):
        return _video(farm, row, base_url, queue=None, eta=None), None
    if row["state"] == "in_progress":
        queue, eta = None, _eta_of_running(row)
    else:
        outlook = outlook or Outlook(groups.all_groups(farm), *queries.turn(farm, row))
        wait = _wait(farm, row, outlook)
        queue, eta = _queue(row, outlook, wait), _eta_of_waiting(wait, outlook)
    return _video(farm, row, base_url, queue=queue, eta=eta), _poll_after_ms(eta)


def page(farm: Farm, found: queries.Page, base_url: str) -> VideoPage:
    """Show a page of videos; what needs a look of its own per video is null here."""
    videos = [_video(farm, row, base_url, queue=None, eta=None) for row in found.rows]
    return VideoPage(
        data=videos,
        first_id=videos[0].id if videos else None,
        last_id=videos[-1].id if videos else None,
        has_more=found.has_more,
    )


def unix(moment: datetime | None) -> int | None:
    """Write a moment as whole seconds."""
    return None if moment is None else int(moment.timestamp())


def _poll_after_ms(eta: Eta | None) -> int:
    """A twentieth of what is probably left."""
    least, most = _POLL_MS
    left_s = eta.completes_at - time.time() if eta else _PRIOR_S
    return int(min(most, max(least, left_s / 20 * 1000)))


def _video(
    farm: Farm, row: Values, base_url: str, *, queue: QueuePlace | None, eta: Eta | None
) -> VideoObject:
    spec: Values = row["spec"]
    tries: list[Values] | None = row.get("attempts")
    report = _report(tries)
    return VideoObject(
        id=row["id"],
        model=row["model"],
        status=row["state"],
        progress=row["progress"],
        created_at=int(row["created_at"].timestamp()),
        completed_at=unix(row["completed_at"]),
        expires_at=unix(row["expires_at"]),
        seconds=f"{(spec['frames'] - 1) / spec['fps']:g}",
        size=f"{spec['width']}x{spec['height']}",
        prompt=spec["prompt"],
        remixed_from_video_id=row["remixed_from"],
        promoted_from_video_id=row["promoted_from"],
        error=_error(row["error"]),
        url=_signed(farm, row, base_url),
        quality=quality(row),
        fps=spec["fps"],
        num_frames=spec["frames"],
        duration_s=round(spec["frames"] / spec["fps"], 4),
        inference_time_s=_inference_s(report),
        peak_memory_mb=_peak_mb(report),
        spec={name: value for name, value in spec.items() if name != "prompt"},
        started_at=unix(row["started_at"]),
        cancel_requested_at=unix(row["cancel_requested_at"]),
        priority=row["priority"],
        key=row["key_name"],
        tenant=row["tenant"],
        batch_id=row["batch_id"],
        metadata=row["metadata"],
        start_by=unix(row["start_by"]),
        finish_by=unix(row["finish_by"]),
        warnings=[Warned.model_validate(one) for one in row["warnings"]],
        queue=queue,
        eta=eta,
        progress_detail=_detail(row),
        attempts=None if tries is None else [attempt(one) for one in tries],
        timings=_timings(row, report),
        gpu_seconds=None if tries is None else queries.gpu_seconds(tries),
        result=result(row),
        provenance=provenance(row),
        urls=_urls(row, base_url),
    )


def quality(row: Values) -> str:
    """Name the preset that a request asked for, read off what it filled in."""
    if "quality" not in row["asked"]:
        return "standard"
    spec: Values = row["spec"]
    if distilled_pair(MODELS[row["model"]]) in {lora["name"] for lora in spec["loras"]}:
        return "distill4"
    draft = max(1, MODELS[row["model"]].steps // 2)
    if "steps" not in row["asked"] and spec["steps"] == draft:
        return "draft"
    return "high" if spec["cache"] == "off" and "cache" not in row["asked"] else "standard"


def has_files(row: Values) -> bool:
    """Tell whether the result can still be fetched."""
    return row["result"] is not None and not row["result"].get("expired")


def _error(error: Values | None) -> JobError | None:
    if error is None:
        return None
    return JobError(
        code=error["code"],
        message=error["message"],
        retryable=error["code"] in _RETRYABLE,
        attempt=error.get("attempt"),
    )


def _queue(row: Values, outlook: Outlook, wait: Wait | None) -> QueuePlace:
    waits_on_purpose = row["run_after"] > row["created_at"] and row["attempt"] > 0
    if waits_on_purpose and row["run_after"] > datetime.now(row["run_after"].tzinfo):
        reason = "retry_backoff"
    elif not outlook.dispatches:
        reason = "dispatch_paused"
    elif row["model"] in groups.served_models(outlook.groups):
        reason = "waiting_for_group"
    else:
        reason = "no_group_for_model"
    ahead_s = round(wait.ahead_gpu_s, 1) if wait and wait.run else None
    return QueuePlace(position=outlook.place, ahead_gpu_seconds=ahead_s, reason=reason)


def _wait(farm: Farm, row: Values, outlook: Outlook) -> Wait | None:
    spec = GenerationSpec.model_validate(row["spec"])
    earliest = max(row["run_after"], row["created_at"]).timestamp()
    return estimates.wait(farm, spec, earliest, outlook.groups, outlook.place)


def _eta_of_waiting(wait: Wait | None, outlook: Outlook) -> Eta | None:
    """Expect a waiting video's end; nobody knows when a farm that starts none goes on."""
    if wait is None or wait.run is None or not outlook.dispatches:
        return None
    return _eta_of(wait.run, wait.starts_at, ahead=wait.ahead)


def _eta_of_running(row: Values) -> Eta | None:
    """Expect a video's end, by its own steps or what was expected of its run."""
    told: Values | None = row["attempts"][-1]["expected"]
    run = Expected(**told) if told else None
    detail: Values = row["detail"] or {}
    if detail.get("phase") == Phase.DENOISE and detail.get("step"):
        return _eta_by_steps(run or _alone(detail), detail)
    return _eta_of(run, row["started_at"].timestamp()) if run else None


def _eta_of(run: Expected, start: float, *, ahead: int | None = None) -> Eta:
    """Expect a whole run; the spread of those `ahead` of a waiting one adds to its own."""
    spreads = 1 + (ahead or 0)
    likely = start + run.p50_s
    return Eta(
        starts_at=None if ahead is None else int(start),
        completes_at=int(likely),
        earliest=int(max(start, likely - spreads * (run.p50_s - run.p10_s))),
        latest=math.ceil(likely + spreads * (run.p90_s - run.p50_s)),
        basis=run.basis,
    )


def _alone(detail: Values) -> Expected:
    """Expect the first run of a model, of which only its steps so far are known."""
    likely = detail["steps"] * detail["step_s"]
    return Expected(UNSURE[0] * likely, likely, UNSURE[1] * likely, 0.0, "measured")


def _eta_by_steps(run: Expected, detail: Values) -> Eta:
    """Go on from the steps of this very run; its range narrows with what is left."""
    left = detail["steps"] - detail["step"]
    ends = detail["updated_at"] + left * detail["step_s"] + run.rest_s
    part = (left * detail["step_s"] + run.rest_s) / run.p50_s
    return Eta(
        starts_at=None,
        completes_at=int(ends),
        earliest=int(ends - part * (run.p50_s - run.p10_s)),
        latest=math.ceil(ends + part * (run.p90_s - run.p50_s)),
        basis="measured",
    )


def _detail(row: Values) -> dict[str, Any] | None:
    detail: Values | None = row["detail"]
    if detail is None or row["state"] != "in_progress":
        return None
    shown = {name: detail.get(name) for name in _DETAIL}
    if shown["updated_at"] is not None:
        shown["updated_at"] = int(shown["updated_at"])
    return shown


def attempt(one: Values) -> AttemptObject:
    """Show one try."""
    error = None
    if one["kind"] is not None:
        code = JOB_CODES[FailureKind(one["kind"])]
        error = AttemptError(code=code, message=one["message"] or "")
    return AttemptObject(
        n=one["number"],
        group=one["group_name"],
        gpus=one["ranks"],
        started_at=int(one["claimed_at"].timestamp()),
        ended_at=unix(one["ended_at"]),
        outcome="lost" if one["kind"] == FailureKind.LOST else one["outcome"],
        error=error,
    )


def _report(tries: list[Values] | None) -> Values | None:
    """Find what the attempt that completed the video reported."""
    return next((one["report"] for one in reversed(tries or []) if one["report"]), None)


def _timings(row: Values, report: Values | None) -> dict[str, float] | None:
    if row["state"] != "completed" or not report:
        return None
    phases: dict[str, float] = report.get("phase_seconds", {})
    queued = (row["started_at"] - row["created_at"]).total_seconds()
    total = (row["completed_at"] - row["created_at"]).total_seconds()
    rounded = {name: round(seconds, 3) for name, seconds in phases.items()}
    return {"queued": round(queued, 3)} | rounded | {"total": round(total, 3)}


def _inference_s(report: Values | None) -> float | None:
    phases: dict[str, float] = (report or {}).get("phase_seconds", {})
    return round(sum(phases.values()) - phases.get("load", 0.0), 3) if phases else None


def _peak_mb(report: Values | None) -> int | None:
    peak: int | None = (report or {}).get("peak_memory_bytes")
    return None if peak is None else peak // 2**20


def result(row: Values) -> ResultObject | None:
    """Show the finished file; None before there is one."""
    if row["result"] is None:
        return None
    return ResultObject.model_validate(
        {name: row["result"].get(name) for name in ResultObject.model_fields}
    )


def _signed(farm: Farm, row: Values, base_url: str) -> str | None:
    query = signed_query(farm.settings, row["id"], "video", row["tenant"])
    if not has_files(row) or query is None:
        return None
    return f"{base_url}/v1/videos/{row['id']}/content?{query}"


def _urls(row: Values, base_url: str) -> Urls:
    own = f"{base_url}/v1/videos/{row['id']}"
    content = f"{own}/content" if has_files(row) else None
    return Urls(
        self=own,
        events=f"{own}/events",
        cancel=f"{own}/cancel",
        content=content,
        thumbnail=content and f"{content}?variant=thumbnail",
        spritesheet=content and f"{content}?variant=spritesheet",
        provenance=f"{own}/provenance" if row["state"] == "completed" else None,
        log=f"{own}/log",
    )
