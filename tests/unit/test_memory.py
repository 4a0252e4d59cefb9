"""What fits where: predictions against recorded peaks, and the ladder of residencies."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.vocabulary.cache import CachePolicies, CachePolicy
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.memory import (
    CONTEXT_BYTES,
    SHARE,
    DoesNotFit,
    Room,
    fit,
    host_bytes,
    peak_bytes,
)
from shared.vocabulary.plan import Build, ParallelPlan, Residency
from shared.vocabulary.spec import GenerationSpec, ImageRef

RECORDS = Path(__file__).parents[2] / "bench" / "measured"
ALONE = ParallelPlan(ranks=1)
A14B, TI2V = "wan2.2-t2v-a14b", "wan2.2-ti2v-5b"
BF16, REFERENCE = Build(precision="bf16"), Build()
GB = 10**9


def video(model: str, width: int, height: int, frames: int, **more) -> GenerationSpec:
    card = MODELS[model]
    image = ImageRef(sha256="0" * 64, width=8, height=8) if card.needs_image else None
    size = {"width": width, "height": height, "frames": frames}
    return GenerationSpec.model_validate(
        {"model": model, "prompt": "a ball", "seed": 1, "image": image} | size | more
    )


SD, HD = video(A14B, 832, 480, 81), video(A14B, 1280, 720, 81)
WIDE = video(TI2V, 1280, 704, 121)


@pytest.mark.parametrize(
    ("spec", "residency", "text_parameters", "recorded_gb"),
    [
        # diffusers' own forward on one H200, torch 2.11; the first two as docs/status.md has them
        (WIDE, Residency(), MODELS[TI2V].text_parameters, 33.6),
        (SD, Residency(), 1_437_000_000, 63.0),
        (SD, Residency(experts=True, vae=True, layerwise=True), 193_000_000, 6.51),
    ],
    ids=["5b-704p121", "a14b-480p81-with-2-text-layers", "a14b-480p81-streamed-with-1-text-layer"],
)
def test_predictions_are_within_a_tenth_of_recorded_peaks(
    spec, residency, text_parameters, recorded_gb
):
    layout = ParallelPlan(ranks=1, residency=residency)
    missing = 2 * (spec.card.text_parameters - text_parameters)

    predicted = peak_bytes(spec, layout, REFERENCE) - CONTEXT_BYTES - missing

    assert predicted == pytest.approx(recorded_gb * GB, rel=0.1)


@pytest.mark.parametrize("record", ["job.json", "h200/job.json"])
def test_the_peak_of_a_whole_job_on_record_is_foretold_within_a_tenth(record):
    (told,) = (
        row["report"]
        for row in json.loads((RECORDS / record).read_text())["rows"]
        if "report" in row
    )
    missing = 2 * (WIDE.card.text_parameters - 1_437_000_000)  # its text encoder has 2 layers

    predicted = peak_bytes(WIDE, ALONE, BF16) - CONTEXT_BYTES - missing

    assert predicted == pytest.approx(told["peak_memory_bytes"], rel=0.1)


def test_what_a_group_keeps_in_cpu_memory_is_every_ranks_idle_parts_and_one_text_encoder():
    away = Residency(text_encoder=True, experts=True)
    pair = ParallelPlan(ranks=2, cfg=2, residency=away)

    kept = host_bytes(SD, pair, BF16)

    assert kept == pytest.approx(2 * 57.2 * GB + 11.36 * GB, rel=0.01)
    assert host_bytes(SD, ALONE, BF16) == 0


def test_what_a_decode_is_predicted_to_hold_was_measured():
    told = json.loads((RECORDS / "decode.json").read_text())["rows"]
    for row, (card, size) in zip(told, ((MODELS[A14B], SD), (MODELS[TI2V], WIDE)), strict=True):
        pixels, weights = size.width * size.height, 2 * card.vae_parameters
        ours, theirs = (row["peak_bytes"][way] - weights for way in ("ours", "diffusers"))
        assert card.decode_bytes_per_pixel * pixels == pytest.approx(ours, rel=0.03)
        assert card.reference_decode_bytes_per_pixel * pixels == pytest.approx(theirs, rel=0.03)


FEWER = {"text_encoder": True, "experts": True}
ALL = FEWER | {"vae": True, "layerwise": True}


@pytest.mark.parametrize(
    ("spec", "card_gb", "chosen"),
    [
        (SD, 141, {}),
        (HD, 141, {}),
        (HD, 85, {"text_encoder": True}),  # an H100 of "80 GB"
        (SD, 48, FEWER),
        (HD, 48, FEWER),
        (SD, 24, ALL),
        (HD, 24, ALL),
        (WIDE, 48, {}),
        (WIDE, 32, {"text_encoder": True}),
        (WIDE, 24, FEWER),
        (WIDE, 16, ALL),
        (WIDE, 14, ALL | {"tiled_vae": True}),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(getattr(value, "tokens", value)),
)
def test_the_first_rung_that_fits_is_taken(spec, card_gb, chosen):
    laid = fit(spec, ALONE, BF16, None, Room(card_gb * GB))

    assert laid.residency == Residency(**chosen)


def test_without_a_known_limit_everything_stays_on_the_device():
    assert fit(HD, ALONE, BF16, None, Room()) == ALONE


def test_what_the_settings_force_holds_on_every_rung():
    never = Room(24 * GB, {"vae": False})
    always = Room(141 * GB, {"experts": True, "text_encoder": False})

    assert not fit(HD, ALONE, BF16, None, never).residency.vae
    assert fit(HD, ALONE, BF16, None, always).residency == Residency(experts=True)


@pytest.mark.parametrize(
    ("times", "chosen"),
    [(0, {}), (1, {"text_encoder": True}), (2, FEWER), (3, ALL), (9, ALL)],
)
def test_each_time_the_memory_ran_out_leads_one_rung_down(times, chosen):
    laid = fit(SD, ALONE, BF16, None, Room(141 * GB), rungs_down=times)

    assert laid.residency == Residency(**chosen)


@pytest.mark.parametrize(
    ("model", "taylor", "order", "gb"),
    [
        (A14B, False, 1, 1.3),
        (A14B, True, 1, 2.0),
        (A14B, True, 2, 2.7),
        (TI2V, False, 1, 0.7),
        (TI2V, True, 2, 1.3),
    ],
)
def test_the_cache_takes_two_to_four_states_per_branch(model, taylor, order, gb):
    policy = CachePolicy(taylorseer=taylor, ts_order=order)
    spec = SD if model == A14B else WIDE
    tiled = ALONE.model_copy(update={"residency": Residency(tiled_vae=True)})  # no peak of its own

    cached = peak_bytes(spec, tiled, REFERENCE, CachePolicies(high=policy))

    assert cached - peak_bytes(spec, tiled, REFERENCE) == pytest.approx(gb * GB, abs=0.1 * GB)


@pytest.mark.parametrize(
    "spread",
    [{"ulysses": 2}, {"ring": 2}, {"cfg": 2}],
    ids=lambda spread: next(iter(spread)),
)
def test_more_ranks_take_less_memory_each(spread):
    away = Residency(text_encoder=True)
    cache = CachePolicies(high=CachePolicy())
    alone = ALONE.model_copy(update={"residency": away})
    pair = ParallelPlan(ranks=2, residency=away, **spread)

    assert peak_bytes(HD, pair, BF16, cache) < peak_bytes(HD, alone, BF16, cache)


@pytest.mark.parametrize("build", [{"shard_weights": True}, {"shard_text": True}])
def test_sharding_over_ranks_takes_less_memory_each(build):
    pair = ParallelPlan(ranks=2, cfg=2)

    assert peak_bytes(SD, pair, Build(**build)) < peak_bytes(SD, pair, Build())


def test_the_refusal_names_what_is_needed_what_there_is_and_what_fits():
    said = (
        r"^1280x720 with 193 frames needs [\d.]+ GB of GPU memory\. A GPU here has 16\.0 GB\. "
        r"The nearest that fits is \d+x\d+ with \d+ frames\.$"
    )

    with pytest.raises(DoesNotFit, match=said):
        fit(video(A14B, 1280, 720, 193), ALONE, BF16, None, Room(16 * GB))


def test_a_hopeless_card_is_told_so():
    with pytest.raises(DoesNotFit, match=r"A GPU here has 8\.0 GB\. Use larger GPUs\.$") as refused:
        fit(HD, ALONE, BF16, None, Room(8 * GB))

    assert refused.value.nearest is None


videos = st.builds(
    video,
    st.sampled_from([A14B, TI2V, "wan2.2-i2v-a14b"]),
    st.integers(2, 40).map(lambda n: 32 * n),
    st.integers(2, 22).map(lambda n: 32 * n),
    st.integers(1, 48).map(lambda n: 4 * n + 1),
    guidance_high=st.sampled_from([1.0, 4.0]),
)
builds = st.builds(
    Build,
    precision=st.sampled_from(["reference", "bf16", "fp8"]),
    shard_weights=st.booleans(),
    shard_text=st.booleans(),
)
layouts = st.sampled_from(
    [ALONE, ParallelPlan(ranks=2, cfg=2), ParallelPlan(ranks=8, cfg=2, ulysses=4)]
)
rooms = st.builds(
    Room,
    st.integers(4, 200).map(lambda n: n * GB),
    st.dictionaries(st.sampled_from(["text_encoder", "experts", "vae"]), st.booleans()),
)


@given(videos, layouts, builds, rooms, st.integers(0, 3))
def test_nothing_is_ever_placed_above_the_cap(spec, layout, build, room, rungs_down):
    with contextlib.suppress(DoesNotFit):
        laid = fit(spec, layout, build, None, room, rungs_down)

        assert peak_bytes(spec, laid, build) <= SHARE * room.total_bytes
        assert all(getattr(laid.residency, name) is on for name, on in room.forced.items())


def refusal(*asked) -> DoesNotFit | None:
    try:
        fit(*asked)
    except DoesNotFit as refused:
        return refused
    return None


@given(videos, layouts, builds, rooms)
def test_the_shape_that_a_refusal_names_is_smaller_and_fits(spec, layout, build, room):
    refused = refusal(spec, layout, build, None, room)
    assume(refused)

    assert len(str(refused)) <= 300
    if nearest := refused.nearest:
        assert nearest.tokens < spec.tokens
        laid = fit(nearest, layout, build, None, room)
        assert peak_bytes(nearest, laid, build) <= SHARE * room.total_bytes
