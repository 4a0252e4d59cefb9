"""The farm itself: its groups and its queue."""

from typing import Final

from flask import Response

from api.plumbing.registry import Call, NoQuery, Route, endpoint
from api.plumbing.runtime import farm
from api.plumbing.schemas import GroupList, GroupObject, QueueObject
from api.plumbing.wire import json_response
from api.presenters import unix
from shared.jobs import groups, queries
from shared.jobs.ledger import Values
from shared.vocabulary.errors import WanfarmError


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
    found = [_group(row, sees_all=call.tenant is None) for row in groups.all_groups(farm())]
    return json_response(GroupList(data=found))


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
    name = call.path["name"]
    for row in groups.all_groups(farm()):
        if row["name"] == name:
            return json_response(_group(row, sees_all=call.tenant is None))
    raise WanfarmError(
        "group_not_found",
        f"There is no group '{name[:60]}'. Groups are shown for a day after their last heartbeat. "
        "See /v1/groups.",
    )


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
    board = queries.board(farm(), call.tenant)
    settings = farm().settings
    return json_response(
        QueueObject(
            counts={
                "queued": board.queued,
                "in_progress": board.in_progress,
                "completed_1h": board.completed_1h,
                "failed_24h": board.failed_24h,
            },
            oldest_queued_s=board.oldest_queued_s,
            run_p50_s=board.run_p50_s,
            run_p95_s=board.run_p95_s,
            limits={"per_key": settings.max_queued_per_key, "global": settings.max_queued},
        )
    )


def _group(row: Values, *, sees_all: bool) -> GroupObject:
    started, beat = unix(row["started_at"]), unix(row["heartbeat_at"])
    assert started is not None
    assert beat is not None
    return GroupObject(
        name=row["name"],
        state=row["state"],
        ranks=row["ranks"],
        device=row["device"],
        models=row["models"],
        model=row["warm_model"],
        video_id=row["video_id"] if sees_all else None,  # another tenant's, maybe
        gpus=row["devices"],
        software=row["software"],
        problem=row["problem"],
        started_at=started,
        last_heartbeat_at=beat,
    )


ENDPOINTS: Final = (list_groups, retrieve_group, queue)
