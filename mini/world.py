"""A small world of captioned moving shapes: what the miniature is taught, and is judged by.

A seed gives one scene; a scene gives its clip and its captions. Lengths are in heights of the
picture, places go from (0, 0) at the top left to (1, 1).
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch
from torch import Tensor

Shape = Literal["circle", "square", "triangle", "star"]
Motion = Literal[
    "left", "right", "up", "down", "circle", "bounce", "grow", "shrink", "still", "behind", "cross"
]
Rgb = tuple[float, float, float]

SIDE: Final = 128
FPS: Final = 16
SHAPES: Final[tuple[Shape, ...]] = get_args(Shape)
MOTIONS: Final[tuple[Motion, ...]] = get_args(Motion)
PAIRS: Final[tuple[Motion, ...]] = ("behind", "cross")  # motions of two shapes
COLOURS: Final[dict[str, Rgb]] = {
    "red": (0.90, 0.10, 0.10),
    "orange": (1.00, 0.55, 0.00),
    "yellow": (0.98, 0.92, 0.15),
    "green": (0.10, 0.70, 0.20),
    "cyan": (0.10, 0.85, 0.90),
    "blue": (0.15, 0.30, 0.95),
    "purple": (0.58, 0.15, 0.80),
    "pink": (1.00, 0.55, 0.80),
}
BACKGROUNDS: Final[dict[str, Rgb]] = {
    "black": (0.04, 0.04, 0.04),
    "grey": (0.50, 0.50, 0.50),
    "white": (0.96, 0.96, 0.96),
    "navy": (0.06, 0.08, 0.30),
    "brown": (0.36, 0.22, 0.12),
}
SIZES: Final = {"small": (0.12, 0.14), "large": (0.16, 0.19)}  # radii
_GROWTH: Final = 2.0  # a growing shape ends so many times as wide
_FAR: Final = 0.28  # from the middle: where straight ways begin and end
_LINE: Final = 3.0  # pixels: how thick an outline is
_EVERY: Final = slice(None)


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape of a scene."""

    shape: Shape
    colour: str
    size: str
    radius: float


@dataclass(frozen=True, slots=True)
class Scene:
    """What a clip shows, and where it happens."""

    things: tuple[Thing, ...]  # two for a motion of `PAIRS`
    motion: Motion
    background: tuple[str, str]  # colours of the top and the bottom; a gradient where they differ
    centre: tuple[float, float]
    turn: float  # where on its circle a shape begins, and in which direction it goes: -1 to 1

    @property
    def plain(self) -> bool:
        """Whether the background is of one colour."""
        return self.background[0] == self.background[1]


def scene(seed: int, motion: Motion | None = None) -> Scene:
    """Draw a scene; the same seed gives the same one."""
    draw = random.Random(seed)
    motion = motion or draw.choice(MOTIONS)
    top, bottom = draw.choice([*BACKGROUNDS]), draw.choice([*BACKGROUNDS])
    first = _thing(draw, "small" if motion in ("grow", "shrink", *PAIRS) else None)
    things = (first,)
    if motion in PAIRS:
        others = [colour for colour in COLOURS if colour != first.colour]
        second = _thing(draw, "large" if motion == "behind" else "small", others)
        things = (first, second)
    return Scene(
        things=things,
        motion=motion,
        background=(top, top if draw.random() < 0.6 else bottom),
        centre=(0.5 + draw.uniform(-0.06, 0.06), 0.5 + draw.uniform(-0.06, 0.06)),
        turn=draw.uniform(-1, 1),
    )


def _thing(draw: random.Random, size: str | None, colours: Sequence[str] = ()) -> Thing:
    size = size or draw.choice([*SIZES])
    shape, colour = draw.choice(SHAPES), draw.choice(colours or [*COLOURS])
    return Thing(shape, colour, size, draw.uniform(*SIZES[size]))


def clip(
    scenes: Sequence[Scene],
    frames: int,
    device: torch.device | str = "cpu",
    part: slice = _EVERY,
    *,
    outlined: bool = False,
) -> Tensor:
    """Render scenes.

    Args:
        scenes: B of them.
        frames: of each; a motion takes as long as its clip, however many there are.
        device: where it is drawn.
        part: of the frames, to be drawn alone.
        outlined: draw the edges of shapes instead of their areas.

    Returns:
        [B, 3, F, SIDE, SIDE] in 0 to 1.
    """
    axis = (torch.arange(SIDE, device=device) + 0.5) / SIDE
    times = [i / max(1, frames - 1) for i in range(frames)][part]
    ways = [_ways(one, times) for one in scenes]
    pictures = _background(scenes, axis)[:, :, None].expand(-1, -1, len(times), -1, -1)
    for number in range(2):  # the second covers the first
        here = [i for i, one in enumerate(scenes) if number < len(one.things)]
        if here:
            things = [scenes[i].things[number] for i in here]
            places = torch.tensor([ways[i][number] for i in here], device=device)
            rows = torch.tensor(here, device=device)
            painted = _paint(pictures[rows], things, places, axis, outlined=outlined)
            pictures = pictures.index_copy(0, rows, painted)
    return pictures


def _ways(one: Scene, times: Sequence[float]) -> list[list[tuple[float, float, float]]]:
    """Centre and radius of each thing at each time from 0 to 1."""
    if one.motion == "behind":
        mover, still = one.things
        across = _straight(one, "right" if one.turn > 0 else "left")
        return [
            [(*across(t), mover.radius) for t in times],
            [(*one.centre, still.radius) for _ in times],
        ]
    if one.motion == "cross":
        above, below = one.things
        right, left = _straight(one, "right"), _straight(one, "left")
        first, second = (right, left) if one.turn > 0 else (left, right)
        rise = 0.17  # one passes above the other
        return [
            [(first(t)[0], first(t)[1] - rise, above.radius) for t in times],
            [(second(t)[0], second(t)[1] + rise, below.radius) for t in times],
        ]
    radius = one.things[0].radius
    return [[_alone(one, t, radius) for t in times]]


def _alone(one: Scene, t: float, radius: float) -> tuple[float, float, float]:
    """Place and radius of a single shape at a time from 0 to 1."""
    x, y = one.centre
    match one.motion:
        case "left" | "right" | "up" | "down":
            return (*_straight(one, one.motion)(t), radius)
        case "circle":
            angle = 2 * math.pi * (one.turn + math.copysign(t, one.turn))
            return (x + 0.22 * math.cos(angle), y + 0.22 * math.sin(angle), radius)
        case "bounce":
            return (x, 0.78 - 0.5 * math.sin(math.pi * t), radius)
        case "grow":
            return (x, y, radius * (1 + (_GROWTH - 1) * t))
        case "shrink":
            return (x, y, radius * (1 + (_GROWTH - 1) * (1 - t)))
        case _:
            return (x, y, radius)


def _straight(one: Scene, direction: str) -> Callable[[float], tuple[float, float]]:
    """A way through the scene's centre."""
    x, y = one.centre
    dx, dy = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[direction]

    def at(t: float) -> tuple[float, float]:
        far = _FAR * (2 * t - 1)
        return x + dx * far, y + dy * far

    return at


def _background(scenes: Sequence[Scene], axis: Tensor) -> Tensor:
    """[B, 3, SIDE, SIDE]."""
    ends = [[BACKGROUNDS[colour] for colour in one.background] for one in scenes]
    top, bottom = torch.tensor(ends, device=axis.device).unbind(1)  # [B, 3]
    rows = torch.lerp(top[..., None], bottom[..., None], axis)
    return rows[..., None].expand(-1, -1, -1, SIDE)


def _paint(
    pictures: Tensor, things: Sequence[Thing], places: Tensor, axis: Tensor, *, outlined: bool
) -> Tensor:
    """Put one thing into each clip, [b, 3, F, SIDE, SIDE]; `places` are [b, F, 3]."""
    x, y, radius = (values[..., None, None] for values in places.unbind(-1))
    across, down = (axis - x) / radius, (axis[:, None] - y) / radius
    across, down = torch.broadcast_tensors(across, down)  # [b, F, SIDE, SIDE]
    cover = torch.empty_like(across)
    for shape in SHAPES:
        mine = [i for i, thing in enumerate(things) if thing.shape == shape]
        far = distance(shape, across[mine], down[mine]) * radius[mine] * SIDE
        if outlined:
            far = (far + _LINE / 2).abs() - _LINE / 2
        cover[mine] = (0.5 - far).clamp(0, 1)  # the pixels of an edge are mixed
    colours = torch.tensor([COLOURS[thing.colour] for thing in things], device=axis.device)
    return torch.lerp(pictures, colours[..., None, None, None], cover[:, None])


def distance(shape: Shape, x: Tensor, y: Tensor) -> Tensor:
    """How far points are outside a shape of radius 1 around (0, 0); negative within."""
    if shape == "circle":
        return torch.hypot(x, y) - 1
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.86
    if shape == "triangle":
        side = x.abs() * math.cos(math.pi / 6) - y * 0.5
        return torch.maximum(side, y) - 0.58
    fold = math.pi / 5  # half of one of the star's five points
    angle = torch.atan2(x, -y).abs() % (2 * fold)
    angle = torch.minimum(angle, 2 * fold - angle)
    reach = torch.hypot(x, y)
    tip, notch = 1.1, 0.5
    edge_x, edge_y = notch * math.cos(fold) - tip, notch * math.sin(fold)
    long = math.hypot(edge_x, edge_y)
    return ((reach * angle.cos() - tip) * edge_y - reach * angle.sin() * edge_x) / long


_NOUNS: Final[dict[Shape, tuple[str, ...]]] = {
    "circle": ("circle", "ball", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
}
_VERBS: Final[dict[Motion, tuple[str, ...]]] = {
    "left": ("moves left", "moves to the left", "slides to the left"),
    "right": ("moves right", "moves to the right", "slides to the right"),
    "up": ("moves up", "rises", "floats up"),
    "down": ("moves down", "sinks", "falls down"),
    "circle": ("moves in a circle", "goes around in a circle", "circles around"),
    "bounce": ("bounces", "bounces up and down", "is bouncing"),
    "grow": ("grows", "gets larger", "is growing"),
    "shrink": ("shrinks", "gets smaller", "is shrinking"),
    "still": ("stays still", "does not move", "rests"),
    "behind": ("passes behind", "moves behind", "slides behind"),
    "cross": ("crosses", "passes", "crosses paths with"),
}


def caption(one: Scene, seed: int, *, whole: bool = False) -> str:
    """Word a scene; the same seed gives the same words.

    Args:
        one: the scene.
        seed: of the choice of words.
        whole: leave nothing out that the judge looks at; else a background may go unsaid.
    """
    draw = random.Random(seed)
    names = [_name(thing, draw, sized=one.motion not in ("grow", "shrink")) for thing in one.things]
    said = f"{names[0]} {draw.choice(_VERBS[one.motion])}"
    if len(names) > 1:
        said += f" {names[1]}"
    if not whole and draw.random() < 0.1:
        return said
    top, bottom = one.background
    if one.plain:
        return f"{said} {draw.choice(('on', 'over', 'in front of'))} a {top} background"
    return f"{said} over a gradient from {top} to {bottom}"


def _name(thing: Thing, draw: random.Random, *, sized: bool) -> str:
    words = [thing.size] if sized and draw.random() < 0.4 else []
    words += [thing.colour, draw.choice(_NOUNS[thing.shape])]
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([article, *words])


def words() -> list[str]:
    """All words that captions are made of, in a fixed order."""
    said = " ".join(
        ["a an on over in front of background gradient from to", *SIZES, *COLOURS, *BACKGROUNDS]
        + [noun for nouns in _NOUNS.values() for noun in nouns]
        + [verb for verbs in _VERBS.values() for verb in verbs]
    )
    return list(dict.fromkeys(said.split()))
