"""The rules of a request, without a server: what fills in, what warns, what hypothesis finds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.vocabulary.catalog import MODELS
from shared.vocabulary.errors import Fault, RequestRejected
from shared.vocabulary.geometry import frames_for
from shared.vocabulary.request import Overrides, VideoRequest
from shared.vocabulary.resolve import Resolved, resolve
from shared.vocabulary.spec import MAX_SEED, CacheWish, GenerationSpec, ImageRef

T2V, I2V, FIVE = "wan2.2-t2v-a14b", "wan2.2-i2v-a14b", "wan2.2-ti2v-5b"
IMAGE = ImageRef(sha256="0" * 64, width=900, height=1600)


def settle(*, image: ImageRef | None = None, **fields) -> Resolved:
    request = VideoRequest.model_validate({"prompt": "a boat"} | fields)
    return resolve(request, default_text_model=T2V, default_image_model=I2V, image=image)


def codes(resolved: Resolved) -> list[str]:
    return [warning["code"] for warning in resolved.warnings]


def faults(**fields) -> list[tuple[str, str]]:
    with pytest.raises(RequestRejected) as caught:
        settle(**fields)
    assert all(len(fault.message) <= 300 for fault in caught.value.faults)
    return [(fault.param, fault.code) for fault in caught.value.faults]


@pytest.mark.parametrize("name", MODELS)
def test_a_bare_request_is_exactly_the_models_own_column(name):
    model = MODELS[name]

    settled = settle(model=name, image=IMAGE if model.needs_image else None, seed=7)

    spec = settled.spec
    for field in ("frames", "fps", "steps", "guidance_high", "guidance_low", "shift", "boundary"):
        assert getattr(spec, field) == getattr(model, field)
    assert (spec.seed, spec.cache, settled.warnings) == (7, "default", ())
    assert settled.delivery.priority == 0


@pytest.mark.parametrize(
    ("seconds", "a14b", "five"),
    [(4, 65, 97), (5, 81, 121), ("8", 129, 193), ("12", 193, 289)],
)
def test_seconds_become_the_nearest_frames(seconds, a14b, five):
    assert settle(model=T2V, seconds=seconds).spec.frames == a14b
    assert settle(model=FIVE, seconds=seconds).spec.frames == five


def test_an_image_picks_the_image_model_and_its_aspect():
    spec = settle(image=IMAGE).spec

    assert (spec.model, spec.width, spec.height) == (I2V, 720, 1280)


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({"frames": 129}, "frames_beyond_training"),
        ({"fps": 24}, "fps_changes_speed"),
        ({"size": "640x640"}, "untrained_size"),
        ({"model": FIVE, "size": "1280x720"}, "size_snapped"),
        ({"guidance_high": 1, "negative_prompt": "blur"}, "negative_prompt_unused"),
    ],
)
def test_what_may_disappoint_is_taken_with_a_warning(fields, warning):
    assert codes(settle(**fields)) == [warning]


def test_a_typed_clients_size_is_snapped_on_the_5b():
    spec = settle(model=FIVE, size="720x1280").spec

    assert (spec.width, spec.height) == (704, 1280)


@pytest.mark.parametrize(
    ("fields", "steps", "cache"),
    [
        ({"quality": "draft"}, 20, "fast"),
        ({"quality": "draft", "cache": {"mc": 2}}, 20, CacheWish(mc=2)),
        ({"quality": "high"}, 40, "off"),
        ({"quality": "standard"}, 40, "default"),
        ({"quality": "draft", "steps": 7, "cache": "default"}, 7, "default"),
        ({"sigmas": [0.9, 0.5, 0.1]}, 3, "default"),
        ({"cache": {"enabled": False}}, 40, "off"),
        ({"cache": {"enabled": False, "mc": 2}}, 40, "off"),
        ({"cache": {}}, 40, "default"),
        ({"cache": {"secondary": {}}}, 40, "default"),
        ({"cache": {"enabled": True}}, 40, CacheWish(enabled=True)),
    ],
)
def test_quality_fills_only_what_was_left_out(fields, steps, cache):
    spec = settle(**fields).spec

    assert (spec.steps, spec.cache) == (steps, cache)


@pytest.mark.parametrize(
    ("fields", "high", "low"),
    [
        ({"guidance_scale": 2}, 2, 2),
        ({"guidance_scale": 2, "guidance_low": 5}, 2, 5),
        ({"guidance_high": 1}, 1, 1),
        ({"guidance_scale": 0.5}, 0.5, 0.5),
        ({"model": FIVE, "guidance_scale": 2}, 2, None),
    ],
)
def test_guidance_reaches_the_experts_there_are(fields, high, low):
    spec = settle(**fields).spec

    assert (spec.guidance_high, spec.guidance_low) == (high, low)


@pytest.mark.parametrize("seed", [None, -1])
def test_a_seed_is_drawn_and_recorded(seed):
    drawn = {settle(seed=seed).spec.seed for _ in range(5)}

    assert len(drawn) == 5
    assert all(0 <= one <= MAX_SEED for one in drawn)


def test_every_fault_is_told_at_once():
    assert faults(size="130x130", frames=80, boundary=0.5, model=FIVE, loras=[{"name": "a"}]) == [
        ("size", "invalid_value"),
        ("frames", "invalid_value"),
        ("boundary", "not_for_model"),
        ("loras", "lora_not_found"),
    ]


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (80, "frames is 80. Wan2.2 makes 4k+1 frames. Use 77 or 81."),
        (2, "frames is 2. Wan2.2 makes 4k+1 frames. Use 1 or 5."),
        (197, "frames is 197. wan2.2-t2v-a14b makes at most 193 frames. Ask for a shorter video."),
    ],
)
def test_frames_are_refused_with_what_would_do(frames, words):
    with pytest.raises(RequestRejected, match=words.replace("+", r"\+")):
        settle(model=T2V, frames=frames)


@given(width=st.integers(0, 99_999), height=st.integers(0, 99_999), name=st.sampled_from([*MODELS]))
def test_a_refused_size_names_those_that_are_taken(width, height, name):
    model = MODELS[name]
    image = IMAGE if model.needs_image else None
    try:
        spec = settle(model=name, size=f"{width}x{height}", image=image).spec
    except RequestRejected as refused:
        named = refused.message.rpartition("Use ")[2].rstrip(".").split(" or ")
        for size in named:
            near = settle(model=name, size=size, image=image).spec
            assert f"{near.width}x{near.height}" == size
        assert len(set(named)) == (1 if model.min_side == model.max_side else 2)
    else:
        assert spec.width * spec.height <= model.max_area


@given(seconds=st.floats(0.001, 100_000), fps=st.integers(1, 60))
def test_seconds_always_make_4k_plus_1_frames_within_two(seconds, fps):
    frames = frames_for(seconds, fps)

    assert (frames - 1) % 4 == 0
    assert abs((frames - 1) - seconds * fps) <= 2.001


@given(
    st.builds(
        dict,
        model=st.sampled_from([*MODELS]),
        size=st.sampled_from([None, "auto", "128x128", "704x1280", "832x480", "x"]),
        frames=st.none() | st.integers(1, 300),
        seconds=st.none() | st.floats(0.01, 30),
        fps=st.none() | st.integers(1, 60),
        steps=st.none() | st.integers(1, 100),
        quality=st.none() | st.sampled_from(["draft", "standard", "high", "distill4"]),
        guidance_high=st.none() | st.floats(0, 20),
        guidance_low=st.none() | st.floats(0, 20),
        boundary=st.none() | st.floats(0, 1),
        sigmas=st.none() | st.lists(st.floats(-1, 2), min_size=1, max_size=5),
        cache=st.sampled_from([None, "off", "default", "fast", {}, {"fn": 3}, {"enabled": False}]),
    ),
    st.booleans(),
)
def test_any_request_is_settled_or_refused_by_name(fields, with_image):
    request = Overrides.model_validate({"prompt": "a"} | fields)
    image = IMAGE if with_image else None
    refused: list[Fault] = []
    try:
        spec = resolve(request, default_text_model=T2V, default_image_model=I2V, image=image).spec
    except RequestRejected as err:
        refused = err.faults
    else:
        assert GenerationSpec.model_validate(spec.model_dump()) == spec

    assert all(fault.param and len(fault.message) <= 300 for fault in refused)
