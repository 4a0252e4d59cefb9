"""What of a video may still change: its priority while it waits, its metadata at any time."""

from typing import Any

from shared.jobs.ledger import Values, Write, note
from shared.machinery.farm import Farm
from shared.machinery.tables import Video
from shared.vocabulary.errors import WanfarmError
from shared.vocabulary.states import VideoState


def change(
    farm: Farm,
    video_id: str,
    *,
    by: str,
    priority: int | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Change both or neither; None leaves it.

    Args:
        farm: the handles.
        video_id: which video.
        by: the name of the key that asks; its event tells.
        priority: where it stands in the queue.
        metadata: all of its pairs.

    Raises:
        WanfarmError: `not_queued` for a priority of a video that no longer waits.
    """
    wanted: Values = {"priority": priority, "metadata": metadata}
    told = {name: value for name, value in wanted.items() if value is not None}
    if not told:
        return
    columns: dict[str, Any] = {{"metadata": "meta"}.get(n, n): v for n, v in told.items()}
    waits = [Video.state == VideoState.QUEUED] if priority is not None else []
    write = Write(columns, told | {"by": by})
    if note(farm, "change", write, Video.id == video_id, *waits) is None:
        raise WanfarmError(
            "not_queued",
            "The video does not wait any more. Only a waiting one has a place in the queue. "
            "Leave priority out.",
            param="priority",
        )
