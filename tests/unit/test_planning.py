"""How a video is laid out over its group: branches first, then heads, as far as they go."""

import pytest

from shared.machinery.settings import ConfigurationError, load_settings
from shared.vocabulary.planning import Degrees, degrees_of, plan
from tests.engine.rendering import REF, small

A14B, I2V, TI2V, MINI = "wan2.2-t2v-a14b", "wan2.2-i2v-a14b", "wan2.2-ti2v-5b", "wan-tiny-t2v"


def spec(model: str, guidance: float = 4.0):
    image = REF if model == I2V else None
    return small(model, guidance_high=guidance, image=image)


@pytest.mark.parametrize(
    ("model", "guidance", "ranks", "cfg", "ulysses"),
    [
        (A14B, 4.0, 1, 1, 1),
        (A14B, 4.0, 2, 2, 1),
        (A14B, 4.0, 4, 2, 2),
        (I2V, 4.0, 8, 2, 4),
        (A14B, 1.0, 1, 1, 1),
        (A14B, 1.0, 2, 1, 2),
        (TI2V, 1.0, 8, 1, 8),
        (A14B, 4.0, 6, 2, 2),  # 3 does not divide 40 heads
        (TI2V, 4.0, 6, 2, 3),
        (MINI, 4.0, 8, 2, 2),
    ],
)
def test_branches_come_first_and_heads_as_far_as_they_go(model, guidance, ranks, cfg, ulysses):
    laid_out = plan(spec(model, guidance), ranks)

    assert (laid_out.cfg, laid_out.ulysses, laid_out.ring) == (cfg, ulysses, 1)


def test_wanted_degrees_are_taken_and_one_branch_leaves_the_others_ranks_alone():
    wanted = degrees_of("2x2x1")

    guided, unguided = (plan(spec(A14B, guidance), 4, wanted) for guidance in (4.0, 1.0))

    assert wanted == Degrees(2, 2, 1)
    assert (guided.cfg, guided.ulysses, guided.active) == (2, 2, 4)
    assert (unguided.cfg, unguided.ulysses, unguided.active) == (1, 2, 2)
    assert degrees_of("auto") is None


@pytest.mark.parametrize(
    ("wanted", "ranks", "trouble"),
    [
        ("3x1x1", 4, "cfg is 3. Guidance has two branches: use 1 or 2."),
        ("2x2x1", 2, "That takes 4 ranks. The group has 2."),
        ("1x3x1", 4, "ulysses is 3. It must divide the 40 heads of wan2.2-t2v-a14b."),
    ],
)
def test_degrees_that_do_not_go_stop_the_start_and_name_their_variable(wanted, ranks, trouble):
    with pytest.raises(ConfigurationError) as refused:
        load_settings(parallel=wanted, ranks=ranks, models=(A14B,))

    assert str(refused.value) == f"WANFARM_PARALLEL is '{wanted}': {trouble}"
