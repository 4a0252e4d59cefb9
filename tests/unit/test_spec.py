"""The vocabulary of a render: complete once parsed, the same after any pipe, never half wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.vocabulary.catalog import MODELS, find_model
from shared.vocabulary.plan import ParallelPlan
from shared.vocabulary.spec import (
    MAX_SEED,
    CacheWish,
    Delivery,
    FailureKind,
    GenerationSpec,
    ImageRef,
)

LEAST = {"prompt": "a ball", "seed": 1}
IMAGE = ImageRef(sha256="0" * 64, width=64, height=64)


def spec(model: str = "wan-tiny-t2v", **fields) -> GenerationSpec:
    card = MODELS[model]
    size = {"width": card.native_sizes[0].width, "height": card.native_sizes[0].height}
    image = {"image": IMAGE} if card.needs_image else {}
    return GenerationSpec.model_validate(LEAST | size | image | fields | {"model": model})


@pytest.mark.parametrize("model", MODELS)
def test_what_is_not_said_comes_from_the_model(model):
    parsed, card = spec(model), MODELS[model]

    assert (parsed.frames, parsed.fps, parsed.steps) == (card.frames, card.fps, card.steps)
    assert (parsed.guidance_high, parsed.guidance_low) == (card.guidance_high, card.guidance_low)
    assert (parsed.shift, parsed.boundary) == (card.shift, card.boundary)
    assert parsed.negative_prompt == card.negative_prompt


@given(
    model=st.sampled_from(sorted(MODELS)),
    seed=st.integers(0, MAX_SEED),
    quarter=st.integers(0, 20),
    guidance=st.floats(0, 20),
    prompt=st.text(min_size=1, max_size=50),
)
def test_a_spec_is_the_same_after_any_pipe(model, seed, quarter, guidance, prompt):
    frames = 4 * quarter + 1
    given_ = spec(model, seed=seed, frames=frames, guidance_high=guidance, prompt=prompt)

    assert GenerationSpec.model_validate_json(given_.model_dump_json()) == given_


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"frames": 80}, "frames is 80. Wan2.2 makes 4k"),
        ({"width": 130}, "multiples of 16"),
        ({"height": 100}, "multiples of 16"),
        ({"guidance_low": None}, "two-expert models"),
        ({"boundary": None}, "two-expert models"),
        ({"image": IMAGE}, "does not go with the task"),
        ({"prompt": ""}, "prompt"),
        ({"seed": MAX_SEED + 1}, "seed"),
        ({"seed": -1}, "seed"),
        ({"steps": 0}, "steps"),
        ({"guidance_high": float("nan")}, "guidance_high"),
        ({"shift": float("inf")}, "shift"),
        ({"num_frames": 5}, "num_frames"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_wrong_value_is_refused_by_name(wrong, says):
    with pytest.raises(ValidationError, match=says):
        spec(**wrong)


def test_an_unknown_model_is_refused_by_name():
    with pytest.raises(ValidationError, match="Unknown model 'wan3'"):
        GenerationSpec.model_validate(LEAST | {"model": "wan3", "width": 64, "height": 64})


def test_an_image_model_needs_its_image():
    with pytest.raises(ValidationError, match="does not go with the task"):
        spec("wan-tiny-i2v", image=None)


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        spec().seed = 2


@pytest.mark.parametrize(
    ("model", "size", "frames", "tokens"),
    [
        ("wan2.2-t2v-a14b", (1280, 720), 81, 75_600),
        ("wan2.2-t2v-a14b", (832, 480), 81, 32_760),
        ("wan2.2-ti2v-5b", (1280, 704), 121, 27_280),
    ],
)
def test_tokens_are_those_of_the_transformer(model, size, frames, tokens):
    assert spec(model, width=size[0], height=size[1], frames=frames).tokens == tokens


@pytest.mark.parametrize(("guidance", "guided"), [(0, False), (1, False), (1.01, True), (4, True)])
def test_guidance_of_one_or_less_runs_one_branch(guidance, guided):
    assert spec(guidance_high=guidance).guided is guided


def test_a_plan_fits_its_group():
    with pytest.raises(ValidationError, match="is 4, the group has 3"):
        ParallelPlan(ranks=3, cfg=2, ulysses=2)


def test_bins_of_a_cache_mask_come_in_pairs():
    with pytest.raises(ValidationError, match="go together"):
        CacheWish(scm_compute_bins=[4])

    assert CacheWish(scm_compute_bins=[4], scm_cache_bins=[1]).scm_cache_bins == [1]


@pytest.mark.parametrize("wrong", [{"priority": 11}, {"max_attempts": 0}, {"start_within_s": 0}])
def test_a_delivery_out_of_range_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Delivery(**wrong)


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.id)
def test_a_model_is_found_by_its_id_and_by_its_repository(model):
    assert find_model(model.id) is find_model(model.repo) is model
    assert find_model(model.id.upper()) is None


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.id)
def test_the_native_sizes_of_a_model_can_be_made_by_it(model):
    for size in model.native_sizes:
        assert size.width * size.height <= model.max_area
        assert size.width % model.size_multiple == size.height % model.size_multiple == 0
        assert model.min_side <= min(size.width, size.height)


def test_a_kind_that_leaves_the_device_in_doubt_starts_the_ranks_anew():
    assert FailureKind.RANK_DIED.poisons_group
    assert FailureKind.OUT_OF_MEMORY.poisons_group
    assert not FailureKind.BAD_INPUT.poisons_group
    assert not FailureKind.NON_FINITE.poisons_group
