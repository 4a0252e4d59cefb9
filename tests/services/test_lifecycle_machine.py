"""Any interleaving of claimers, cancels and rescues agrees with a model of one page."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete

from shared.jobs import lifecycle, running
from shared.jobs.scheduling import Offer
from shared.machinery.farm import Farm
from shared.machinery.tables import Video
from shared.vocabulary.errors import JobFailure, StaleAttempt, WanfarmError
from shared.vocabulary.retry import MAX_LOSSES
from shared.vocabulary.spec import FailureKind
from shared.vocabulary.states import MOVES, VideoState
from tests.services.jobs import (
    MODEL,
    RESULT,
    let_back_off_pass,
    let_lease_expire,
    row,
    states_of,
    submit,
)

KINDS = st.sampled_from([FailureKind.RANK_DIED, FailureKind.BAD_INPUT, FailureKind.LOST])
GROUPS = st.sampled_from(["g0", "g1", "g2"])


@dataclass
class Model:
    """What a video should be."""

    state: str = "queued"
    attempt: int = 0
    left: int = 2
    losses: int = 0
    asked: bool = False

    def holds(self, claim: lifecycle.Claim) -> bool:
        return (self.state, self.attempt) == ("in_progress", claim.fence.attempt)

    def back(self, *, lost: bool = False, charged: bool = False, final: bool = False) -> str:
        self.losses += lost
        self.left += not charged
        over = final or (charged and self.left <= 0) or (lost and self.losses >= MAX_LOSSES)
        self.state = "cancelled" if self.asked else "failed" if over else "queued"
        return self.state


class Videos(RuleBasedStateMachine):
    """Two or more parents, callers and rescuers over a handful of videos."""

    farm: Farm
    videos = Bundle("videos")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, Model] = {}

    @rule(target=videos)
    def submit(self) -> str:
        video_id = submit(self.farm, max_attempts=2)
        self.models[video_id] = Model()
        return video_id

    @rule(target=claims, group=GROUPS)
    def claim(self, group: str):
        waiting = sorted(v for v, model in self.models.items() if model.state == "queued")
        claim = lifecycle.claim(self.farm, Offer(group, "life-1", 1, (MODEL,)))
        if not waiting:
            assert claim is None
            return multiple()
        assert claim is not None
        assert claim.fence.video_id == waiting[0]  # the oldest: nothing else tells them apart
        model = self.models[waiting[0]]
        model.state, model.attempt, model.left = "in_progress", model.attempt + 1, model.left - 1
        assert (claim.fence.attempt, claim.attempts_left) == (model.attempt, model.left)
        return claim

    @rule(video_id=videos)
    def cancel(self, video_id: str) -> None:
        model = self.models[video_id]
        if model.state in {"completed", "failed"}:
            with pytest.raises(WanfarmError):
                lifecycle.cancel(self.farm, video_id, by="a person")
            return
        if model.state == "queued":
            model.state = "cancelled"
        model.asked = True
        assert lifecycle.cancel(self.farm, video_id, by="a person") == model.state

    @rule(claim=claims)
    def report(self, claim: lifecycle.Claim) -> None:
        model = self.models[claim.fence.video_id]
        if model.holds(claim):
            told = running.report(self.farm, claim.fence, "step", {}, {"progress": 5})
            assert told == running.renew(self.farm, claim.fence) == model.asked
        else:
            with pytest.raises(StaleAttempt):
                running.report(self.farm, claim.fence, "step", {}, {"progress": 5})

    @rule(claim=claims)
    def complete(self, claim: lifecycle.Claim) -> None:
        model = self.models[claim.fence.video_id]
        if model.holds(claim):
            model.state = "completed"
        if (model.state, model.attempt) == ("completed", claim.fence.attempt):
            lifecycle.complete(self.farm, claim.fence, RESULT, {})
        else:
            with pytest.raises(StaleAttempt):
                lifecycle.complete(self.farm, claim.fence, RESULT, {})

    @rule(claim=claims)
    def stopped(self, claim: lifecycle.Claim) -> None:
        model = self.models[claim.fence.video_id]
        held = model.holds(claim)
        if held:
            model.state = "cancelled"
        assert lifecycle.cancelled(self.farm, claim.fence) == held

    @rule(claim=claims, kind=KINDS)
    def give_back(self, claim: lifecycle.Claim, kind: FailureKind) -> None:
        model, failure = self.models[claim.fence.video_id], JobFailure(kind, "It broke.")
        if not model.holds(claim):
            with pytest.raises(StaleAttempt):
                lifecycle.give_back(self.farm, claim, failure)
            return
        lost = kind is FailureKind.LOST
        expected = model.back(lost=lost, charged=not lost, final=not kind.retryable)
        assert lifecycle.give_back(self.farm, claim, failure) == expected
        let_back_off_pass(self.farm, claim.fence.video_id)

    @rule(claim=claims)
    def drain(self, claim: lifecycle.Claim) -> None:
        model = self.models[claim.fence.video_id]
        if model.holds(claim):
            lifecycle.requeue_uncharged(self.farm, claim.fence, "leaving")
            model.back()
        else:
            with pytest.raises(StaleAttempt):
                lifecycle.requeue_uncharged(self.farm, claim.fence, "leaving")

    @rule(video_id=videos)
    def vanish(self, video_id: str) -> None:
        model = self.models[video_id]
        if model.state == "in_progress":
            let_lease_expire(self.farm, video_id)
            assert lifecycle.rescue(self.farm) == 1
            model.back(lost=True)
        else:
            assert lifecycle.rescue(self.farm) == 0

    @invariant()
    def rows_agree_with_the_model(self) -> None:
        for video_id, model in self.models.items():
            seen = row(self.farm, video_id)
            assert (seen["state"], seen["attempt"]) == (model.state, model.attempt)
            assert len(seen["attempts"]) == model.attempt

    def teardown(self) -> None:
        for video_id, model in self.models.items():
            states = [VideoState(state) for state in states_of(self.farm, video_id)]
            assert all(new in MOVES[old] for old, new in pairwise(states))
            assert sum(state.is_final for state in states) == (not MOVES[VideoState(model.state)])
        with self.farm.db.connect() as db:
            db.execute(delete(Video))


def test_no_interleaving_breaks_a_promise(farm):
    machine = type("VideosOfThisFarm", (Videos,), {"farm": farm})

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
