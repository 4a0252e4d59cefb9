"""The farm itself: its groups and its queue."""

from typing import Annotated, Final

from flask import Response
from pydantic import BaseModel, ConfigDict, Field

from api.plumbing import deeds
from api.plumbing.deeds import PauseRequest
from api.plumbing.registry import Call, NoQuery, Route, endpoint, small_body
from api.plumbing.runtime import farm
from api.plumbing.schemas import GroupList, GroupObject, ModelCounts, PauseObject, QueueObject
from api.plumbing.wire import json_response
from shared.jobs import board, forecast, group_history, groups, pauses
from shared.jobs.board import Live
from shared.jobs.group_history import Lately
from shared.jobs.ledger import Values
from shared.jobs.presenters import unix
from shared.vocabulary.states import VideoState


@endpoint(
    Route(
        method="GET",
        path="/v1/groups",
        scope="read",
        summary="List the GPU groups.",
        query=NoQuery,
        returns=GroupList,
    )
)
def list_groups(call: Call[NoQuery]) -> Response:
    """Show the groups of the last day."""
    return json_response(GroupList(data=_objects(groups.all_groups(farm()), call)))


@endpoint(
    Route(
        method="GET",
        path="/v1/groups/{name}",
        scope="read",
        summary="Look at a GPU group.",
        query=NoQuery,
        returns=GroupObject,
        errors=("group_not_found",),
    )
)
def retrieve_group(call: Call[NoQuery]) -> Response:
    """Show one group."""
    return _shown(call)


class DrainRequest(BaseModel):
    """How a group is to stop."""

    model_config = ConfigDict(extra="forbid")

    mode: groups.DrainMode = Field(
        default="finish",
        description="Finish the running video, or put it back at its next step, latents saved.",
    )
    reason: Annotated[str, Field(max_length=300)] | None = Field(
        default=None, description="For people."
    )


@endpoint(
    Route(
        method="POST",
        path="/v1/groups/{name}/drain",
        scope="admin",
        summary="Have a GPU group take no other video.",
        query=NoQuery,
        body=DrainRequest,
        returns=GroupObject,
        errors=("group_not_found",),
    )
)
def drain(call: Call[NoQuery]) -> Response:
    """Keep a group from new videos, across its restarts, until it is resumed."""
    asked = small_body(DrainRequest)
    groups.drain(farm(), call.path["name"], asked.mode, asked.reason, actor=call.actor)
    return _shown(call)


@endpoint(
    Route(
        method="POST",
        path="/v1/groups/{name}/resume",
        scope="admin",
        summary="Let a GPU group take videos again.",
        query=NoQuery,
        returns=GroupObject,
        errors=("group_not_found",),
    )
)
def resume(call: Call[NoQuery]) -> Response:
    """End a drain."""
    groups.resume(farm(), call.path["name"], actor=call.actor)
    return _shown(call)


def _shown(call: Call[NoQuery]) -> Response:
    found = groups.find(groups.all_groups(farm()), call.path["name"])
    return json_response(_objects([found], call)[0])


@endpoint(
    Route(
        method="GET",
        path="/v1/queue",
        scope="read",
        summary="Count what waits and runs.",
        query=NoQuery,
        returns=QueueObject,
    )
)
def queue(call: Call[NoQuery]) -> Response:
    """Show the queue of the caller's tenant; an admin's is the whole farm's."""
    return _queue(call)


@endpoint(
    Route(
        method="POST",
        path="/v1/queue/pause",
        scope="admin",
        summary="Take no new videos, or start none.",
        query=NoQuery,
        body=PauseRequest,
        returns=QueueObject,
    )
)
def pause(call: Call[NoQuery]) -> Response:
    """Close doors of the queue; what runs goes on."""
    deeds.pause(call.caller, small_body(PauseRequest))
    return _queue(call)


@endpoint(
    Route(
        method="POST",
        path="/v1/queue/resume",
        scope="admin",
        summary="Let videos pass again.",
        query=NoQuery,
        body=PauseRequest,
        returns=QueueObject,
    )
)
def reopen(call: Call[NoQuery]) -> Response:
    """Open doors of the queue."""
    deeds.reopen(call.caller, small_body(PauseRequest))
    return _queue(call)


def _queue(call: Call[NoQuery]) -> Response:
    standing = board.read(farm(), call.tenant)
    paused = pauses.closed(farm())
    shut = {row["what"] for row in paused}
    everything = standing.live if call.tenant is None else board.live(farm())
    drain = None
    if "dispatch" not in shut:
        drain = forecast.drained(farm(), everything, groups.all_groups(farm()))
    settings = farm().settings
    return json_response(
        QueueObject(
            intake="paused" if "intake" in shut else "open",
            dispatch="paused" if "dispatch" in shut else "open",
            counts={
                "queued": standing.queued,
                "in_progress": standing.in_progress,
                "completed_1h": standing.completed_1h,
                "failed_24h": standing.failed_24h,
            },
            by_model=_by_model(standing.live),
            oldest_queued_at=unix(standing.oldest_queued_at),
            drains_at=int(drain.likely) if drain else None,
            run_p50_s=standing.run_p50_s,
            run_p95_s=standing.run_p95_s,
            limits={"per_key": settings.max_queued_per_key, "global": settings.max_queued},
            paused=[
                PauseObject(
                    what=row["what"],
                    reason=row["reason"],
                    by=row["by"],
                    at=int(row["at"].timestamp()),
                )
                for row in paused
            ],
        )
    )


def _by_model(counts: list[Live]) -> dict[str, ModelCounts]:
    states = (VideoState.QUEUED, VideoState.IN_PROGRESS)
    found = {(one.model, one.state): one.count for one in counts}
    return {
        model: ModelCounts(**{state.value: found.get((model, state), 0) for state in states})
        for model in sorted({one.model for one in counts})
    }


def _objects(rows: list[Values], call: Call[NoQuery]) -> list[GroupObject]:
    lately = group_history.lately(farm(), [row["name"] for row in rows])
    return [_group(row, lately[row["name"]], sees_all=call.tenant is None) for row in rows]


def _group(row: Values, lately: Lately, *, sees_all: bool) -> GroupObject:
    started, beat = unix(row["started_at"]), unix(row["heartbeat_at"])
    assert started is not None
    assert beat is not None
    return GroupObject(
        name=row["name"],
        state=row["state"],
        ranks=row["ranks"],
        device=row["device"],
        parallel=lately.degrees(row["ranks"]),
        models=row["models"],
        model=row["warm_model"],
        warm_since=unix(row["warm_since"]),
        video_id=row["video_id"] if sees_all else None,  # another tenant's, maybe
        gpus=row["devices"],
        software=row["software"],
        problem=row["problem"],
        failure_streak=row["failure_streak"],
        jobs_last_hour=lately.completed_1h,
        drain=row["drain"],
        drain_reason=row["drain_reason"],
        started_at=started,
        last_heartbeat_at=beat,
    )


ENDPOINTS: Final = (list_groups, retrieve_group, drain, resume, queue, pause, reopen)
