"""The miniature's world, and the judge that must know it when it sees it."""

import subprocess
from dataclasses import replace

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from mini import judge, world
from mini.judge import Verdict


def shown(scenes, frames=17) -> np.ndarray:
    """Clips as they come out of a file, [B, F, H, W, 3]."""
    clips = world.clip(scenes, frames).mul(255).round().byte()
    return clips.permute(0, 2, 3, 4, 1).numpy()


def through_h264(video: np.ndarray) -> np.ndarray:
    size = f"{video.shape[2]}x{video.shape[1]}"
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", "16"]
    argv = [get_ffmpeg_exe(), "-loglevel", "error"]
    encode = [*argv, *raw, "-i", "-", "-pix_fmt", "yuv420p", "-c:v", "libx264", "-f", "h264", "-"]
    stream = subprocess.run(encode, input=video.tobytes(), capture_output=True, check=True).stdout
    decode = [*argv, "-f", "h264", "-i", "-", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    made = subprocess.run(decode, input=stream, capture_output=True, check=True).stdout
    return np.frombuffer(made, np.uint8).reshape(video.shape)


@pytest.mark.parametrize("motion", world.MOTIONS)
def test_the_judge_is_right_about_clips_of_the_world(motion):
    scenes = [world.scene(seed, motion) for seed in range(3)]

    verdicts = [judge.verdict(*pair) for pair in zip(scenes, shown(scenes), strict=True)]

    assert verdicts == [Verdict(True, True, True, True)] * len(scenes)


def test_it_is_right_about_files_too():
    scenes = [world.scene(seed, motion) for seed, motion in enumerate(world.MOTIONS, 100)]

    verdicts = [
        judge.verdict(one, through_h264(video))
        for one, video in zip(scenes, shown(scenes), strict=True)
    ]

    assert verdicts == [Verdict(True, True, True, True)] * len(scenes)


@pytest.mark.parametrize("property_", Verdict._fields)
def test_it_sees_what_another_scene_does_not_share(property_):
    asked, other = world.scene(3, "left"), world.scene(4, "grow")
    (thing,) = asked.things
    changed = {
        "background": {"background": ("white", "black")},
        "colour": {"things": (replace(thing, colour="cyan"),)},
        "shape": {"things": (replace(thing, shape="star"),)},
        "motion": {"motion": other.motion},
    }[property_]

    verdict = judge.verdict(asked, shown([replace(asked, **changed)])[0])

    assert not verdict.all
    assert [name for name in Verdict._fields if not getattr(verdict, name)] == [property_]


def test_an_empty_clip_shows_a_background_and_nothing_else():
    grey = np.full((17, world.SIDE, world.SIDE, 3), 128, np.uint8)

    seen = judge.seen(grey)

    assert seen == judge.Seen(("grey", "grey"), (), None)


def test_a_seed_gives_a_scene_and_its_words():
    one, again = (world.scene(7) for _ in range(2))

    assert one == again
    assert world.caption(one, 1) == world.caption(again, 1)
    assert len({world.caption(one, seed) for seed in range(20)}) > 3


def test_captions_are_made_of_the_known_words():
    said = {word for seed in range(500) for word in world.caption(world.scene(seed), seed).split()}

    assert said <= set(world.words())
    assert set(world.COLOURS) | set(world.BACKGROUNDS) <= said


def test_a_part_of_a_clip_is_that_part():
    scenes = [world.scene(seed) for seed in range(4)]

    part = world.clip(scenes, 17, part=slice(10, 15))

    assert part.equal(world.clip(scenes, 17)[:, :, 10:15])


@pytest.mark.parametrize("style", ["outlined", "filled"])
def test_the_judge_tells_outlines_from_areas(style):
    scenes = [world.scene(seed, motion) for seed, motion in enumerate(world.MOTIONS, 40)]
    clips = world.clip(scenes, 17, outlined=style == "outlined").mul(255).round().byte()

    told = [judge.outlined(clip) for clip in clips.permute(0, 2, 3, 4, 1).numpy()]

    assert told == [style == "outlined"] * len(scenes)
