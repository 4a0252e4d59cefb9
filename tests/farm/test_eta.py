"""What a farm foretells of its videos, against what became of them."""

import itertools
import random

import pytest
from sqlalchemy import func, select

from shared.machinery.tables import Attempt, Video

LEARNT, JUDGED = 50, 200
QUEUED = 20
SIZES = ((64, 64, 5), (64, 64, 17), (96, 64, 9), (128, 128, 9))


def orders(draw: random.Random):
    """Videos of many shapes, in no order."""
    while True:
        width, height, frames = draw.choice(SIZES)
        shape = {"width": width, "height": height, "frames": frames}
        levels = draw.choice(({}, {}, {"guidance_high": 1.0, "guidance_low": 1.0}))
        steps = draw.choice((4, 10, 20, 40))
        yield shape | levels | {"steps": steps, "seed": draw.randrange(2**32)}


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_four_of_five_videos_end_in_the_range_that_was_foretold(house, eventually, record_property):
    house.start()
    for order in itertools.islice(orders(random.Random(8)), LEARNT + JUDGED):
        eventually(lambda: count(house, "queued") < QUEUED, within=300)
        house.submit(**order)

    eventually(lambda: count(house, "completed") == LEARNT + JUDGED, within=300)

    rows = ended(house)[LEARNT:]
    inside = [one["p10_s"] <= took <= one["p90_s"] for one, took in rows]
    share = sum(inside) / JUDGED

    record_property("inside", share)
    assert 0.72 <= share <= 0.88


def ended(house) -> list[tuple[dict, float]]:
    """What was foretold of each run, and its seconds but for the loading of the model."""
    report = Attempt.report["load_s"].as_float()
    took = func.extract("epoch", Attempt.ended_at - Attempt.claimed_at) - func.coalesce(report, 0)
    with house.farm.db.connect() as db:
        rows = db.execute(select(Attempt.expected, took).order_by(Attempt.ended_at)).all()
    return [(expected, float(seconds)) for expected, seconds in rows]


def count(house, state: str) -> int:
    with house.farm.db.connect() as db:
        return db.scalar(select(func.count()).where(Video.state == state))
