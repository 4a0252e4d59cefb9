"""The trained miniature through the whole farm: the video shows what was asked for."""

import pytest

from mini import judge, world
from mini.build import TRAINED
from mini.judge import Verdict
from tests.engine.rendering import decoded

SEED = 20_000_001  # of a scene that nobody was taught


@pytest.mark.long
def test_a_video_shows_what_was_asked_for(house, completes):
    one = world.scene(SEED)
    house.start(models=("wan-mini-t2v",), models_dir=TRAINED)

    row = completes(
        house.submit(
            model="wan-mini-t2v",
            prompt=world.caption(one, SEED, whole=True),
            width=world.SIDE,
            height=world.SIDE,
            frames=17,
            steps=20,
        )
    )

    (path,) = house.results(row["id"])
    video = decoded(path, world.SIDE, world.SIDE)
    assert judge.verdict(one, video) == Verdict(True, True, True, True)
    assert row["attempts"][0]["report"]["peak_memory_bytes"] < 1.5e9
