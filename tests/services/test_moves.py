"""The database itself refuses what no video does, whoever writes."""

import pytest
from sqlalchemy import delete, func
from sqlalchemy.exc import IntegrityError

from shared.jobs import lifecycle
from shared.machinery.tables import Video
from shared.vocabulary.errors import JobFailure
from shared.vocabulary.spec import FailureKind
from shared.vocabulary.states import MOVES, VideoState
from tests.services.jobs import RESULT, claimed, completed, edit, row, submit


def brought_to(farm, state: VideoState) -> str:
    """The only video there is, in a state to which it got in the usual way."""
    with farm.db.connect() as db:
        db.execute(delete(Video))
    if state is VideoState.COMPLETED:
        return completed(farm)
    if state in {VideoState.IN_PROGRESS, VideoState.FAILED}:
        claim = claimed(farm)
        if state is VideoState.FAILED:
            lifecycle.give_back(farm, claim, JobFailure(FailureKind.BAD_INPUT, "It is odd."))
        return claim.fence.video_id
    video_id = submit(farm)
    if state is VideoState.CANCELLED:
        lifecycle.cancel(farm, video_id, by="a person")
    return video_id


def belongings(state: VideoState) -> dict:
    """The columns that go with a state, so that no other rule of the schema is in the way."""
    return {
        "lease_until": func.now() if state is VideoState.IN_PROGRESS else None,
        "completed_at": func.now() if state.is_final else None,
        "result": RESULT if state is VideoState.COMPLETED else None,
    }


@pytest.mark.parametrize("old", VideoState)
def test_the_database_lets_a_video_move_as_the_table_says_and_no_further(farm, old):
    for new in VideoState:
        video_id = brought_to(farm, old)
        if new in MOVES[old]:
            edit(farm, video_id, state=new, **belongings(new))
        else:
            with pytest.raises(IntegrityError, match=f"does not move from {old} to {new}"):
                edit(farm, video_id, state=new, **belongings(new))


def test_what_is_over_may_still_change_in_everything_else(farm):
    video_id = completed(farm)

    edit(farm, video_id, result={"expired": True}, expires_at=None)

    assert row(farm, video_id)["result"] == {"expired": True}
