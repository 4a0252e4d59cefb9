"""Looks at a finished video and says what of the world it shows.

It knows the world's colours and shapes and nothing of models: background by the rows at the edges,
shapes by colour, their form by laying templates over them, their motion by the ways they take.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch

from mini.world import BACKGROUNDS, COLOURS, SHAPES, Motion, Rgb, Scene, Shape, distance

_EDGE: Final = 5  # columns at either side that tell the background
_APART: Final = 0.14  # a pixel this far from the background, in one channel, belongs to a shape
_LEAST: Final = 0.003  # of the picture, for a colour to be a shape
_STILL: Final = 0.08  # what a resting shape may stray, in heights
_WIDE: Final = 0.28  # how far circles and bounces reach at least


@dataclass(frozen=True, slots=True)
class Seen:
    """What a video shows; None where there is nothing of the kind."""

    background: tuple[str, str]  # top and bottom
    things: tuple[tuple[Shape, str], ...]  # shape and colour; what passes behind comes first
    motion: Motion | None


class Verdict(NamedTuple):
    """What of a scene a video shows rightly."""

    background: bool
    colour: bool
    shape: bool
    motion: bool

    @property
    def all(self) -> bool:
        """Whether nothing is wrong."""
        return self.background and self.colour and self.shape and self.motion


class _Track(NamedTuple):
    """One colour through a video."""

    colour: str
    masks: np.ndarray  # [F, H, W] bool
    areas: np.ndarray  # [F], in shares of the picture
    places: np.ndarray  # [F, 2], x and y in heights; NaN in frames without it


def verdict(one: Scene, video: np.ndarray) -> Verdict:
    """Compare a video, [F, H, W, 3] uint8, with the scene it should show."""
    given = seen(video)
    wanted = [(thing.shape, thing.colour) for thing in one.things]
    shown = list(given.things)
    if one.motion == "cross":
        wanted.sort(key=lambda thing: thing[1])
        shown.sort(key=lambda thing: thing[1])
    return Verdict(
        background=given.background == one.background,
        colour=[colour for _, colour in shown] == [colour for _, colour in wanted],
        shape=[shape for shape, _ in shown] == [shape for shape, _ in wanted],
        motion=given.motion == one.motion,
    )


def seen(video: np.ndarray) -> Seen:
    """Say what a video, [F, H, W, 3] uint8, shows."""
    pictures = video.astype(np.float32) / 255
    rows = _rows(pictures)
    tracks = _tracks(pictures, rows)
    motion = _motion(tracks)
    if motion == "behind" and _travel(tracks[0]) < _travel(tracks[1]):
        tracks.reverse()
    return Seen(
        background=(_nearest(rows[0], BACKGROUNDS), _nearest(rows[-1], BACKGROUNDS)),
        things=tuple((_shape(track), track.colour) for track in tracks),
        motion=motion,
    )


def outlined(video: np.ndarray) -> bool:
    """Say whether shapes show the background in their middle, [F, H, W, 3] uint8."""
    pictures = video.astype(np.float32) / 255
    middles = [
        track.masks[frame, int(y * track.masks.shape[1]), int(x * track.masks.shape[1])]
        for track in _tracks(pictures, _rows(pictures))
        for frame, (x, y) in enumerate(track.places)
        if track.areas[frame] > 0
    ]
    return bool(middles) and sum(middles) < len(middles) / 2


def _rows(pictures: np.ndarray) -> np.ndarray:
    """The background, [H, 3]: a straight line through what lies at the edges."""
    edges = np.concatenate([pictures[:, :, :_EDGE], pictures[:, :, -_EDGE:]], axis=2)
    rows = np.median(edges.transpose(1, 0, 2, 3).reshape(edges.shape[1], -1, 3), axis=1)
    heights = np.linspace(0, 1, len(rows))
    slope, start = np.polyfit(heights, rows, 1)
    return start + heights[:, None] * slope


def _nearest(colour: np.ndarray, among: Mapping[str, Rgb]) -> str:
    return min(among, key=lambda name: float(np.abs(colour - among[name]).sum()))


def _tracks(pictures: np.ndarray, rows: np.ndarray) -> list[_Track]:
    """The one or two colours that take most room, the larger first."""
    apart = np.abs(pictures - rows[:, None]).max(-1) > _APART  # [F, H, W]
    palette = np.array(list(COLOURS.values()), np.float32)
    nearest = np.abs(pictures[..., None, :] - palette).sum(-1).argmin(-1)
    found: list[tuple[float, _Track]] = []
    for number, colour in enumerate(COLOURS):
        masks = _opened(apart & (nearest == number))
        areas = masks.mean((1, 2))
        if np.median(np.sort(areas)[len(areas) // 2 :]) > _LEAST:
            found.append((float(areas.sum()), _Track(colour, masks, areas, _places(masks))))
    return [track for _, track in sorted(found, key=lambda pair: -pair[0])[:2]]


def _opened(masks: np.ndarray) -> np.ndarray:
    """Without what is a pixel or two thin, as mixed colours at edges are."""
    core = masks.copy()
    core[:, 1:-1, 1:-1] = np.logical_and.reduce(
        [masks[:, 1 + dy : masks.shape[1] - 1 + dy, 1 + dx : masks.shape[2] - 1 + dx]
         for dy, dx in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))]
    )  # fmt: skip
    grown = core.copy()
    for axis, step in ((1, 1), (1, -1), (2, 1), (2, -1)):
        grown |= np.roll(core, step, axis)
    return grown & masks


def _places(masks: np.ndarray) -> np.ndarray:
    height, width = masks.shape[1:]
    counts = masks.sum((1, 2))
    with np.errstate(invalid="ignore"):
        x = (masks.sum(1) * (np.arange(width) + 0.5)).sum(1) / counts / height
        y = (masks.sum(2) * (np.arange(height) + 0.5)).sum(1) / counts / height
    return np.stack([x, y], 1)


def _shape(track: _Track) -> Shape:
    """The template that covers a shape best, where all of it is to be seen."""
    height, width = track.masks.shape[1:]
    touching = track.masks[:, [0, -1]].any((1, 2)) | track.masks[:, :, [0, -1]].any((1, 2))
    areas = np.where(touching, 0, track.areas)
    frames = [int(i) for i in np.flatnonzero(areas > 0.9 * areas.max())][:8]
    x, y = np.meshgrid((np.arange(width) + 0.5) / height, (np.arange(height) + 0.5) / height)
    scores = dict.fromkeys(SHAPES, 0.0)
    for frame in frames:
        mask, (cx, cy) = track.masks[frame], track.places[frame]
        for shape in SHAPES:
            radius = np.sqrt(mask.mean() * width / height / _AREAS[shape])
            given = (torch.from_numpy(values / radius) for values in (x - cx, y - cy))
            template = distance(shape, *given).numpy() < 0
            scores[shape] += (mask & template).sum() / (mask | template).sum()
    return max(scores, key=scores.__getitem__)


def _unit_areas() -> dict[Shape, float]:
    axis = torch.linspace(-1.3, 1.3, 521)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return {shape: float((distance(shape, x, y) < 0).float().mean() * 2.6**2) for shape in SHAPES}


_AREAS: Final = _unit_areas()  # of shapes of radius 1


def _travel(track: _Track) -> float:
    """How far a shape gets, sideways or up and down."""
    return float(np.max(np.nanmax(track.places, 0) - np.nanmin(track.places, 0)))


def _motion(tracks: list[_Track]) -> Motion | None:
    if not tracks:
        return None
    if len(tracks) == 1:
        return _of_one(tracks[0])
    return _of_two(*tracks)


def _of_one(track: _Track) -> Motion | None:
    there = np.flatnonzero(track.areas > 0)
    few = max(1, len(there) // 8)
    first, last = there[:few], there[-few:]
    growth = track.areas[last].mean() / track.areas[first].mean()
    reach_x, reach_y = np.nanmax(track.places, 0) - np.nanmin(track.places, 0)
    x, y = track.places[last].mean(0) - track.places[first].mean(0)
    if max(reach_x, reach_y) < _STILL:
        return "grow" if growth > 1.8 else "shrink" if growth < 1 / 1.8 else "still"
    if min(reach_x, reach_y) > _WIDE:
        return "circle"
    if reach_x < _STILL and reach_y > _WIDE and abs(y) < reach_y / 2:
        return "bounce"
    if abs(x) > abs(y):
        return "right" if x > 0 else "left"
    return "down" if y > 0 else "up"


def _of_two(one: _Track, other: _Track) -> Motion | None:
    ways = []
    for track in (one, other):
        there = np.flatnonzero(track.areas > 0.5 * track.areas.max())
        ways.append(track.places[there[-1], 0] - track.places[there[0], 0])
    if ways[0] * ways[1] < 0 and min(abs(ways[0]), abs(ways[1])) > _WIDE:
        return "cross"
    mover, still = (one, other) if abs(ways[0]) > abs(ways[1]) else (other, one)
    if _travel(mover) > _WIDE and still.areas.min() > 0.85 * still.areas.max():
        return "behind" if mover.areas.min() < 0.5 * mover.areas.max() else None
    return None
