"""Saved latents: the same bits as an undisturbed job, or a fresh start that says why."""

import functools
import itertools
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from shared.vocabulary.cache import CachePolicies, CachePolicy
from shared.vocabulary.plan import Build
from tests.engine.ranks import Rank, job, load
from tests.engine.rendering import ALONE, Render, small
from tests.engine.test_equality import FLAVOURS
from worker.engine.contract import Cancelled, Word
from worker.inputs import pattern_of


def eight(flavour: str = "t2v", **fields):
    model, image = FLAVOURS[flavour]
    return small(model, image=image, **{"steps": 8, "frames": 5} | fields)


def until(render: Render, spec, step: int, folder: Path, **more) -> Path:
    """Render so many steps, save there and stop."""
    forwards = iter([Word.GO] * (2 * step))
    with pytest.raises(Cancelled):
        render(spec, word=lambda: next(forwards, Word.SAVE_AND_STOP), save_to=folder, **more)
    return folder / "latents.safetensors"


@pytest.fixture(scope="module")
def whole(render):
    """The hash of a job's latents when nothing disturbs it."""
    return functools.cache(lambda spec: render(spec)[1].latents_sha256)


@pytest.fixture
def anew(models, picture, tmp_path):
    """An engine that has rendered nothing."""
    return Render(models, picture, tmp_path)


# what a sampler remembers differs from step to step, what a flavour adds does not
RESUMED = [
    pytest.param(
        *case,
        marks=()
        if case[0] == "t2v" or case[1:] in {("unipc", 4), ("euler", 6)}
        else (pytest.mark.long,),
    )
    for case in itertools.product(FLAVOURS, ("unipc", "euler"), (1, 4, 6, 8))
]


@pytest.mark.parametrize(("flavour", "sampler", "step"), RESUMED)
def test_a_resumed_job_has_the_latents_of_an_undisturbed_one(
    render: Render, whole, anew: Render, tmp_path, flavour, sampler, step
):
    spec = eight(flavour, sampler=sampler)
    undisturbed = whole(spec)
    saved = until(render, spec, step, tmp_path / "saved")
    told = []

    _, report = anew(spec, resume=saved, step=lambda done: told.append(done.step))

    assert report.latents_sha256 == undisturbed
    assert (report.resumed_at, report.warnings) == (step, [])
    assert told == list(range(step + 1, 9))


def test_a_job_saves_where_the_experts_take_turns_and_goes_on_there(
    render: Render, anew: Render, tmp_path
):
    told = []
    _, undisturbed = render(eight(), save_to=tmp_path, saved=lambda *save: told.append(save))
    ((step, path),) = told

    _, report = anew(eight(), resume=path)

    assert (step, report.resumed_at) == (6, 6)
    assert report.latents_sha256 == undisturbed.latents_sha256


def test_a_job_saves_as_often_as_it_is_told_and_leaves_one_file(render: Render, tmp_path):
    told = []

    render(eight(), save_to=tmp_path, save_every_s=1e-9, saved=lambda step, _: told.append(step))

    assert told == sorted(told)
    assert len(told) > 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["latents.safetensors"]


def test_saved_latents_tell_which_steps_led_to_them_across_attempts(
    render: Render, anew: Render, tmp_path
):
    policy = CachePolicy(warmup=1, rdt="always", mc=1, min_steps=0)
    spec, cache = eight(), CachePolicies(high=policy, low=policy)
    first = until(render, spec, 4, tmp_path / "first", cache=cache)

    second = until(anew, spec, 3, tmp_path / "second", cache=cache, resume=first)

    assert pattern_of(first) == {"high": {"cond": "XcXc", "uncond": "XcXc"}}
    after = {"cond": "XcXcXc", "uncond": "XcXcXc"}  # its cache was cold
    assert pattern_of(second) == {"high": after, "low": {"cond": "X", "uncond": "X"}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 2}, "another request"),
        ({"steps": 9}, "another request"),
        ({"shift": 3.0}, "another request"),
        ({"prompt": "a blue square"}, "another request"),
    ],
    ids=["seed", "steps", "shift", "prompt"],
)
def test_latents_of_another_request_are_not_taken(
    render: Render, anew: Render, tmp_path, change, words
):
    saved = until(render, eight(), 4, tmp_path / "saved")
    spec = eight(**change)

    _, report = anew(spec, resume=saved)

    assert report.warnings == [
        f"latents_unused: The saved latents are of {words}. The attempt began at step 1."
    ]
    assert report.resumed_at is None
    assert report.latents_sha256 == render(spec)[1].latents_sha256


def test_latents_of_other_weights_are_not_taken(render: Render, anew: Render, tmp_path):
    saved = until(render, eight(), 4, tmp_path / "saved")
    shutil.copytree(render.models, tmp_path / "models")
    anew.models = tmp_path / "models"
    shard = anew.models / "wan-tiny-t2v/transformer/diffusion_pytorch_model.safetensors"
    weights = load_file(shard)
    last = sorted(weights)[-1]
    save_file(weights | {last: weights[last] + 1}, shard, {"format": "pt"})

    _, report = anew(eight(), resume=saved)

    assert (report.resumed_at, "of other weights" in report.warnings[0]) == (None, True)


def test_latents_of_another_precision_class_are_not_taken(render: Render, anew: Render, tmp_path):
    saved = until(render, eight(), 4, tmp_path / "saved")
    anew.engine.load(anew.models / "wan-tiny-t2v", ALONE, Build(precision="bf16"))
    anew._loaded = "wan-tiny-t2v"

    _, report = anew(eight(), resume=saved)

    assert "of another precision class" in report.warnings[0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:7],
        lambda content: content[:200],
        lambda content: content[:-1],
        lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    ],
    ids=["empty", "no-header", "half-a-header", "torn", "a-flipped-bit"],
)
def test_a_damaged_file_is_not_taken(render: Render, anew: Render, tmp_path, damage):
    saved = until(render, eight(), 4, tmp_path / "saved")
    saved.write_bytes(damage(saved.read_bytes()))
    pattern_of(saved)  # says something or nothing, and never fails

    _, report = anew(eight(), resume=saved)

    said = "latents_unused: The saved latents are damaged. The attempt began at step 1."
    assert report.warnings == [said]
    assert report.latents_sha256 == render(eight())[1].latents_sha256


def test_a_disk_that_refuses_a_save_costs_a_warning_and_not_the_job(
    render: Render, whole, tmp_path
):
    (tmp_path / "full").write_bytes(b"")  # no folder can be made here

    _, report = render(eight(), save_to=tmp_path / "full")

    assert report.latents_sha256 == whole(eight())
    assert [one.partition(":")[0] for one in report.warnings] == ["latents_unsaved"]


def test_a_process_killed_while_it_saves_leaves_the_save_before(
    render: Render, anew: Render, tmp_path
):
    spec = eight(width=128, height=128, frames=17)  # more than a pipe holds
    saved = until(render, spec, 2, tmp_path / "saved")
    before, part = saved.read_bytes(), saved.with_name(".latents.safetensors.part")
    os.mkfifo(part)
    rank = Rank(0, 1, tmp_path)
    try:
        rank.say(load(spec.model, render.models / spec.card.directory))
        command = job(spec, ALONE, tmp_path / "out.mp4")
        rank.say(command.model_copy(update={"save_to": str(saved.parent), "save_every_s": 1e-9}))
        with part.open("rb") as written:
            assert written.read(1000)
            rank.kill()
    finally:
        rank.end()

    assert saved.read_bytes() == before
    assert anew(spec, resume=saved)[1].resumed_at == 2
