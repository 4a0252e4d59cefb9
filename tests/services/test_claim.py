"""Which waiting video a group gets, and that no two groups get the same one."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import text, update

from shared.jobs import lifecycle
from shared.machinery.tables import Tenant
from tests.services.jobs import (
    MODEL,
    OFFER,
    OTHER_MODEL,
    ago,
    edit,
    row,
    seconds_until,
    submit,
    take,
)

LOW = {"guidance_low": None, "boundary": None, "model": OTHER_MODEL}


def order_of_claims(farm, offer=OFFER) -> list[str]:
    """Claim until nothing is due."""
    taken = []
    while claim := lifecycle.claim(farm, offer):
        taken.append(claim.fence.video_id)
    return taken


def has_used(farm, tenant: str, share: float) -> None:
    with farm.db.connect() as db:
        db.execute(update(Tenant).where(Tenant.name == tenant).values(share=share))


def test_among_equals_the_oldest_goes_first(farm):
    ids = [submit(farm) for _ in range(3)]

    assert order_of_claims(farm) == ids


def test_priority_goes_before_age(farm):
    usual, urgent, idle = (submit(farm, priority=priority) for priority in (0, 5, -5))

    assert order_of_claims(farm) == [urgent, usual, idle]


def test_the_tenant_that_has_used_least_goes_before_the_others(farm):
    heavy = [submit(farm, tenant="heavy") for _ in range(3)]
    light = submit(farm, tenant="light")
    has_used(farm, "heavy", 100)

    assert order_of_claims(farm) == [light, *heavy]


def test_priority_goes_before_the_tenants_share(farm):
    light = submit(farm, tenant="light")
    urgent = submit(farm, tenant="heavy", priority=1)
    has_used(farm, "heavy", 100)

    assert order_of_claims(farm) == [urgent, light]


def test_the_warm_model_goes_before_age(farm):
    cold, warm = submit(farm, **LOW), submit(farm)

    assert order_of_claims(farm, replace(OFFER, warm_model=MODEL)) == [warm, cold]


def test_without_a_warm_model_age_decides(farm):
    first, second = submit(farm, **LOW), submit(farm)

    assert order_of_claims(farm) == [first, second]


def test_the_tenants_share_goes_before_the_warm_model(farm):
    warm, cold = submit(farm, tenant="heavy"), submit(farm, tenant="light", **LOW)
    has_used(farm, "heavy", 100)

    assert order_of_claims(farm, replace(OFFER, warm_model=MODEL)) == [cold, warm]


def test_a_group_takes_only_models_it_has(farm):
    submit(farm, **LOW)

    assert lifecycle.claim(farm, replace(OFFER, models=(MODEL,))) is None


@pytest.mark.parametrize(
    "edited",
    [{"run_after": ago(-60)}, {"start_by": ago(1)}, {"finish_by": ago(1)}],
    ids=["backs off", "should have started", "should have finished"],
)
def test_a_video_that_is_not_due_is_passed_by(farm, edited):
    not_due, due = submit(farm, priority=9), submit(farm)
    edit(farm, not_due, **edited)

    assert order_of_claims(farm) == [due]


def test_a_video_that_wants_a_group_waits_for_it(farm):
    theirs, anyones = submit(farm, group="g1"), submit(farm)

    assert order_of_claims(farm) == [anyones]
    assert order_of_claims(farm, replace(OFFER, group="g1")) == [theirs]


def test_a_claim_gives_a_lease_a_number_and_the_whole_spec(farm):
    video_id = submit(farm, seed=11, finish_within_s=600)

    claim = take(farm)

    held = row(farm, video_id)
    assert (claim.spec.seed, claim.fence.attempt, claim.attempts_left) == (11, 1, 2)
    assert (held["group_name"], held["attempts_left"]) == ("g0", 2)
    assert 0 < seconds_until(farm, video_id, "lease_until") <= farm.settings.lease_s
    (attempt,) = held["attempts"]
    assert (attempt["group_name"], attempt["incarnation"], attempt["ranks"]) == ("g0", "life-1", 1)


def test_sixteen_parents_that_claim_at_once_get_sixteen_videos(farm):
    ids = {submit(farm) for _ in range(16)}

    claims = claim_at_once(farm, 16)

    assert {claim.fence.video_id for claim in claims if claim} == ids


def test_parents_that_outnumber_the_videos_never_share_one(farm):
    ids = [submit(farm) for _ in range(5)]

    claims = claim_at_once(farm, 16)

    assert sorted(claim.fence.video_id for claim in claims if claim) == ids
    assert all(len(row(farm, video_id)["attempts"]) == 1 for video_id in ids)


def claim_at_once(farm, parents: int) -> list[lifecycle.Claim | None]:
    start = threading.Barrier(parents)

    def one(number: int) -> lifecycle.Claim | None:
        start.wait()
        return lifecycle.claim(farm, replace(OFFER, group=f"g{number}"))

    with ThreadPoolExecutor(parents) as pool:
        return list(pool.map(one, range(parents)))


def test_a_row_that_a_frozen_client_holds_is_passed_by(farm):
    held, free = submit(farm), submit(farm)
    with farm.db.connect().execution_options(isolation_level="READ COMMITTED") as frozen:
        frozen.execute(text("SELECT id FROM videos WHERE id = :id FOR UPDATE"), {"id": held})

        assert order_of_claims(farm) == [free]

    assert order_of_claims(farm) == [held]


def test_fifteen_parents_in_the_middle_of_a_claim_leave_the_sixteenth_its_video(farm):
    *held, free = [submit(farm) for _ in range(16)]
    with farm.db.connect().execution_options(isolation_level="READ COMMITTED") as others:
        lock = text("SELECT id FROM videos WHERE id = ANY(:ids) FOR UPDATE")
        others.execute(lock, {"ids": held})

        assert take(farm).fence.video_id == free


def test_a_stored_request_that_no_longer_makes_sense_fails_alone(farm):
    odd, good = submit(farm), submit(farm)
    edit(farm, odd, spec={"model": "gone"})

    assert take(farm).fence.video_id == good

    assert (row(farm, odd)["state"], row(farm, odd)["error"]["code"]) == ("failed", "invalid_input")
