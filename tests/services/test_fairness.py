"""Who goes first when tenants compete: GPU-seconds over weight, neither hoarded nor owed."""

import heapq
import random
from collections import Counter
from dataclasses import replace

import pytest
from sqlalchemy import select, text

from shared.jobs import invariants, keys
from shared.machinery.tables import Tenant, Video
from tests.services.jobs import MODEL, OFFER, OTHER_MODEL, ago, edit, submit, take
from tests.services.tenants import finish, flood, run, tenant_of, used
from tests.services.test_claim import LOW, has_used, order_of_claims

COARSE_S = 30  # shares are told apart no finer
GROUPS = 4
TENANTS = ("a", "b", "c")


def mix(farm, draw: random.Random) -> None:
    """Give all that waits some steps of its own."""
    change = """UPDATE videos SET spec = jsonb_set(spec, '{steps}', to_jsonb(given.steps))
                  FROM unnest(CAST(:ids AS text[]), CAST(:steps AS int[])) AS given (id, steps)
                 WHERE videos.id = given.id"""
    with farm.db.connect() as db:
        ids = db.scalars(select(Video.id).order_by(Video.id)).all()
        steps = [draw.choice((2, 4, 8, 16)) for _ in ids]
        db.execute(text(change), {"ids": ids, "steps": steps})


def test_two_tenants_get_time_by_their_weights_while_both_have_work(farm):
    draw, clock, running = random.Random(5), 0.0, []
    flood(farm, 200, tenant="one")
    flood(farm, 200, tenant="three")
    mix(farm, draw)
    keys.weigh(farm, "three", 3)

    left = Counter(one=200, three=200)
    while all(left.values()):
        while len(running) < GROUPS:
            claim = take(farm)
            left[tenant_of(farm, claim)] -= 1
            takes = claim.spec.steps * draw.uniform(5, 15)
            heapq.heappush(running, (clock + takes, claim.fence.video_id, claim, takes))
        clock, _, claim, took = heapq.heappop(running)
        finish(farm, claim, took)

    assert used(farm, "three") / used(farm, "one") == pytest.approx(3, rel=0.05)
    assert list(invariants.broken(farm)) == []


def test_ten_videos_of_one_tenant_are_not_starved_by_ten_thousand_of_another(farm):
    farm = replace(farm, settings=farm.settings.model_copy(update={"max_queued": 20_000}))
    flood(farm, 10_000, tenant="many")
    for _ in range(10):
        run(farm, 100)
    flood(farm, 10, tenant="few")

    order = [run(farm, 100) for _ in range(20)]

    assert order.count("few") == 10


def test_a_tenant_that_comes_back_is_level_with_the_others_and_no_further(farm):
    submit(farm, tenant="sleeper")
    run(farm, 1)
    flood(farm, 20, tenant="busy")
    for _ in range(5):
        run(farm, 1000)
    flood(farm, 10, tenant="sleeper")

    order = [run(farm, 1000) for _ in range(10)]

    assert order.count("sleeper") == 5  # and not ten, for what it did not use while it slept


@pytest.mark.parametrize("seed", range(2))
def test_any_queue_is_taken_by_priority_then_share_then_warmth_then_age(farm, seed):
    draw = random.Random(seed)
    due, not_due = {}, set()
    for n in range(40):
        tenant, cold = draw.choice(TENANTS), draw.random() < 0.3
        priority = draw.choice((-5, -1, 0, 0, 0, 3))
        within = draw.choice(({}, {"start_within_s": 600}, {"finish_within_s": 60}))
        given = LOW if cold else {}
        video_id = submit(farm, tenant=tenant, priority=priority, key_id=f"k{n}", **within, **given)
        edited = draw.choice([{}] * 6 + [{"run_after": ago(-60)}, {"start_by": ago(1)}])
        if edited:
            edit(farm, video_id, **edited)
            not_due.add(video_id)
        else:
            due[video_id] = (-priority, tenant, cold, video_id)
    shares = {tenant: draw.uniform(0, 100) for tenant in TENANTS}
    for tenant, share in shares.items():
        has_used(farm, tenant, share)

    taken = order_of_claims(farm, replace(OFFER, warm_model=MODEL))

    def place(video_id: str) -> tuple:
        priority, tenant, *rest = due[video_id]
        return priority, shares[tenant] // COARSE_S, *rest

    assert taken == sorted(due, key=place)
    assert not not_due & {*taken}


def test_an_urgent_video_overtakes_more_than_a_claim_looks_at(farm):
    flood(farm, 50)
    urgent = submit(farm, priority=1)

    assert take(farm).fence.video_id == urgent


def test_the_background_starts_only_when_a_group_could_take_nothing_else(farm):
    background = submit(farm, tenant="idle", priority=-1)
    elsewhere = submit(farm, tenant="heavy", group="g1")
    cold = submit(farm, tenant="heavy", **LOW)
    has_used(farm, "heavy", 10_000)

    assert order_of_claims(farm, replace(OFFER, warm_model=MODEL)) == [cold, background]
    assert order_of_claims(farm, replace(OFFER, group="g1")) == [elsewhere]


@pytest.mark.parametrize(("waited_s", "first"), [(590, "warm"), (610, "cold")])
def test_a_cold_model_waits_for_a_warm_one_for_ten_minutes_and_no_longer(farm, waited_s, first):
    cold = submit(farm, **LOW)
    flood(farm, 50)
    edit(farm, cold, created_at=ago(waited_s))

    claim = take(farm, replace(OFFER, warm_model=MODEL))

    assert claim.spec.model == {"warm": MODEL, "cold": OTHER_MODEL}[first]


def test_a_warm_model_moves_a_tenant_ahead_by_no_more_than_a_step_of_shares(farm):
    flood(farm, 40, tenant="warm")
    flood(farm, 40, tenant="cold", **LOW)

    for _ in range(40):
        claim = take(farm, replace(OFFER, warm_model=MODEL))
        finish(farm, claim, 10)
        with farm.db.connect() as db:
            shares = db.scalars(select(Tenant.share).where(Tenant.used_s > 0)).all()
        assert max(shares) - min([*shares, max(shares)]) <= COARSE_S + 10 + 1
