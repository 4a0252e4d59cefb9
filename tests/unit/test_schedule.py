"""The pure schedule against the table of the design and against diffusers' schedulers."""

import pytest

from shared.vocabulary.spec import FailureKind, GenerationSpec
from worker.engine.denoise.schedule import Schedule
from worker.engine.faults import EngineFault

# boundary, shift: high-noise steps for 4, 8, 20, 27, 30, 40 and 50 steps
SWITCHES = {
    (0.875, 12): (3, 6, 13, 18, 19, 26, 32),
    (0.900, 5): (2, 3, 8, 10, 11, 15, 18),
    (0.875, 5): (2, 4, 9, 12, 13, 17, 21),
    (0.875, 3): (2, 3, 7, 9, 10, 13, 16),
}
COUNTS = (4, 8, 20, 27, 30, 40, 50)


def spec(**fields: object) -> GenerationSpec:
    given = {"model": "wan-tiny-t2v", "prompt": "x", "width": 64, "height": 64, "seed": 0}
    return GenerationSpec.model_validate(given | fields)


@pytest.mark.parametrize(
    ("boundary", "shift", "steps", "high"),
    [
        (boundary, shift, steps, high)
        for (boundary, shift), row in SWITCHES.items()
        for steps, high in zip(COUNTS, row, strict=True)
    ],
)
def test_the_high_expert_takes_so_many_steps(boundary, shift, steps, high):
    schedule = Schedule.of(spec(boundary=boundary, shift=shift, steps=steps))

    assert schedule.high_steps == high
    assert schedule.switch_step == high + 1


def test_the_distilled_grid_is_shifted_once():
    distilled = spec(steps=4, sampler="euler", shift=5.0, sigmas=(1, 0.75, 0.5, 0.25))

    schedule = Schedule.of(distilled)

    assert [round(t, 1) for t in schedule.timesteps] == [1000.0, 937.5, 833.3, 625.0]
    assert schedule.high_steps == 2


def test_one_expert_takes_all_steps():
    schedule = Schedule.of(spec(model="wan-tiny-ti2v", steps=7))

    assert schedule.high_steps == 7


def test_sigmas_that_do_not_match_the_steps_are_refused():
    with pytest.raises(EngineFault, match="sigmas has 2 values for 5 steps") as refusal:
        Schedule.of(spec(steps=5, sigmas=(1.0, 0.5)))

    assert refusal.value.kind is FailureKind.BAD_INPUT


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 5.0, 8.0, 12.0])
@pytest.mark.parametrize("sampler", ["unipc", "euler"])
def test_timesteps_equal_those_of_diffusers(sampler, shift):
    diffusers = pytest.importorskip("diffusers", reason="the worker's packages are not installed")

    for steps in range(1, 101):
        if sampler == "unipc":
            referee = diffusers.UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
            )
        else:
            referee = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
        referee.set_timesteps(steps)
        ours = Schedule.of(spec(steps=steps, shift=shift, sampler=sampler))
        assert list(ours.timesteps) == referee.timesteps.tolist()
