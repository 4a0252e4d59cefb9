"""What an attempt costs its tenant: by estimate at its claim, settled at its end."""

import pytest
from sqlalchemy import func, select

from shared.jobs import invariants, lifecycle, removal
from shared.machinery.tables import Attempt, Cost
from shared.vocabulary.errors import JobFailure
from shared.vocabulary.spec import FailureKind
from tests.services.jobs import (
    DIED,
    RESULT,
    claimed,
    let_back_off_pass,
    let_lease_expire,
    submit,
    take,
)
from tests.services.tenants import let_it_take, run, taken, used

LOST = JobFailure(FailureKind.LOST, "It went silent.")


def test_an_attempt_costs_its_time_on_all_its_ranks(farm):
    claim = claimed(farm)
    let_it_take(farm, claim, 50)
    lifecycle.complete(farm, claim.fence, RESULT, {})

    (seconds,) = taken(farm)
    assert seconds >= 50
    assert used(farm) == pytest.approx(seconds)


@pytest.mark.parametrize(("failure", "share"), [(DIED, 1), (LOST, 0)], ids=["a failure", "a loss"])
def test_what_the_farm_lost_is_not_charged(farm, failure, share):
    claim = claimed(farm)
    let_it_take(farm, claim, 50)
    lifecycle.give_back(farm, claim, failure)

    assert used(farm) == pytest.approx(share * sum(taken(farm)))


def test_a_claim_is_charged_at_once_by_what_its_model_took_before(farm):
    submit(farm)
    run(farm, 40)

    (before,) = taken(farm)

    claim = claimed(farm, steps=4)  # twice the steps

    assert used(farm) == pytest.approx(before + 2 * before)
    let_it_take(farm, claim, 10)
    lifecycle.complete(farm, claim.fence, RESULT, {})
    assert used(farm) == pytest.approx(sum(taken(farm)))


def test_a_rate_follows_its_newest_samples(farm):
    for seconds in (10, 20):
        submit(farm)
        run(farm, seconds)

    with farm.db.connect() as db:
        rates = db.scalars(select(Cost.rate)).all()
    tokens_and_steps = 2 * 2 * 4 * 4  # of the small video: two latent frames of 4 x 4 tokens
    first, second = taken(farm)
    assert rates == [pytest.approx((0.8 * first + 0.2 * second) / tokens_and_steps)]


def test_what_removed_videos_cost_stays_with_their_tenant(farm):
    claim = claimed(farm)
    let_it_take(farm, claim, 50)
    lifecycle.complete(farm, claim.fence, RESULT, {})

    (seconds,) = taken(farm)

    removal.delete(farm, claim.fence.video_id, by="a person")

    assert used(farm) == pytest.approx(seconds)
    assert list(invariants.broken(farm)) == []


def test_losses_and_retries_add_up(farm):
    claim = claimed(farm)
    let_lease_expire(farm, claim.fence.video_id)
    lifecycle.rescue(farm)
    again = take(farm)
    let_it_take(farm, again, 30)
    lifecycle.give_back(farm, again, DIED)
    let_back_off_pass(farm, again.fence.video_id)
    take(farm)

    _, settled = taken(farm)
    assert used(farm) == pytest.approx(settled)
    assert [one for one in invariants.broken(farm) if one.of == "default"] == []
    with farm.db.connect() as db:
        assert db.scalar(select(func.count()).select_from(Attempt)) == 3
