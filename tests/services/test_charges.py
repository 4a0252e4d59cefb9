"""Who goes first when tenants compete: GPU-seconds over weight, neither hoarded nor owed."""

import random

import pytest
from sqlalchemy import func, select, update

from shared.jobs import invariants, keys, lifecycle, removal
from shared.machinery.tables import Attempt, Cost, Tenant, Video
from shared.vocabulary.errors import JobFailure
from shared.vocabulary.spec import FailureKind
from tests.services.jobs import (
    DIED,
    RESULT,
    ago,
    claimed,
    let_back_off_pass,
    let_lease_expire,
    submit,
    take,
)

LOST = JobFailure(FailureKind.LOST, "It went silent.")


def used(farm, tenant: str = "default") -> float:
    with farm.db.connect() as db:
        return db.scalar(select(Tenant.used_s).where(Tenant.name == tenant))


def let_it_take(farm, claim: lifecycle.Claim, seconds: float) -> None:
    """Let an attempt have begun some seconds ago."""
    with farm.db.connect() as db:
        mine = (Attempt.video_id == claim.fence.video_id, Attempt.number == claim.fence.attempt)
        db.execute(update(Attempt).where(*mine).values(claimed_at=ago(seconds)))


def run(farm, seconds: float) -> str:
    """Claim the next video and complete it after so long; gives its tenant."""
    claim = take(farm)
    let_it_take(farm, claim, seconds)
    lifecycle.complete(farm, claim.fence, RESULT, {})
    with farm.db.connect() as db:
        return db.scalar(select(Video.tenant).where(Video.id == claim.fence.video_id))


def test_an_attempt_costs_its_time_on_all_its_ranks(farm):
    claim = claimed(farm)
    let_it_take(farm, claim, 50)
    lifecycle.complete(farm, claim.fence, RESULT, {})

    assert used(farm) == pytest.approx(50, abs=1)


@pytest.mark.parametrize(("failure", "cost"), [(DIED, 50), (LOST, 0)], ids=["a failure", "a loss"])
def test_what_the_farm_lost_is_not_charged(farm, failure, cost):
    claim = claimed(farm)
    let_it_take(farm, claim, 50)
    lifecycle.give_back(farm, claim, failure)

    assert used(farm) == pytest.approx(cost, abs=1)


def test_a_claim_is_charged_at_once_by_what_its_model_took_before(farm):
    submit(farm)
    run(farm, 40)

    claim = claimed(farm, steps=4)  # twice the steps

    assert used(farm) == pytest.approx(40 + 80, abs=1)
    let_it_take(farm, claim, 10)
    lifecycle.complete(farm, claim.fence, RESULT, {})
    assert used(farm) == pytest.approx(40 + 10, abs=1)


def test_a_rate_follows_its_newest_samples(farm):
    for seconds in (10, 20):
        submit(farm)
        run(farm, seconds)

    with farm.db.connect() as db:
        rates = db.scalars(select(Cost.rate)).all()
    tokens_and_steps = 2 * 2 * 4 * 4  # of the small video: two latent frames of 4 x 4 tokens
    assert rates == [pytest.approx(12 / tokens_and_steps, rel=0.05)]


def test_two_tenants_get_time_by_their_weights(farm):
    draw = random.Random(5)
    for tenant in ("one", "three"):
        for n in range(200):  # a key may have a hundred waiting
            key = f"{tenant}{n // 100}"
            submit(farm, tenant=tenant, key_id=key, steps=draw.choice((2, 4, 8)))
    keys.weigh(farm, "three", 3)

    while used(farm, "three") < 3 * 2000:
        run(farm, draw.uniform(5, 60))

    assert used(farm, "three") / used(farm, "one") == pytest.approx(3, rel=0.05)
    assert list(invariants.broken(farm)) == []


def test_a_tenant_with_few_videos_is_not_starved_by_one_with_many(farm):
    for _ in range(60):
        submit(farm, tenant="many")
    for _ in range(10):
        run(farm, 100)
    for _ in range(10):
        submit(farm, tenant="few")

    order = [run(farm, 100) for _ in range(20)]

    assert order.count("few") == 10


def test_a_tenant_that_comes_back_is_level_with_the_others_and_no_further(farm):
    submit(farm, tenant="sleeper")
    run(farm, 1)
    for _ in range(20):
        submit(farm, tenant="busy")
    for _ in range(5):
        run(farm, 1000)
    for _ in range(10):
        submit(farm, tenant="sleeper")

    order = [run(farm, 1000) for _ in range(10)]

    assert order.count("sleeper") == 5  # and not ten, for what it did not use while it slept


def test_what_removed_videos_cost_stays_with_their_tenant(farm):
    claim = claimed(farm)
    let_it_take(farm, claim, 50)
    lifecycle.complete(farm, claim.fence, RESULT, {})

    removal.delete(farm, claim.fence.video_id, by="a person")

    assert used(farm) == pytest.approx(50, abs=1)
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

    assert used(farm) == pytest.approx(30, abs=1)
    assert [one for one in invariants.broken(farm) if one.of == "default"] == []
    with farm.db.connect() as db:
        assert db.scalar(select(func.count()).select_from(Attempt)) == 3
