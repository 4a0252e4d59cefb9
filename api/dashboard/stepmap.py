"""The map of denoising steps: which expert, which branch, computed or taken from the cache."""

from dataclasses import dataclass
from typing import Final

from shared.jobs.ledger import Values

_EXPERTS: Final = ("high", "single", "low")  # in the order in which they run
_BRANCHES: Final = ("cond", "uncond")
_WORDS: Final = {"X": "computed", "c": "cached"}
_GAP: Final = 3
LANE_HEIGHT: Final = 18
_WIDTH: Final = 620  # what the card offers; few steps get wide cells, many get narrow ones


@dataclass(frozen=True, slots=True)
class Cell:
    """One step of one branch, with its place in the drawing."""

    step: int
    branch: str
    expert: str  # high, low, single; empty when not run
    decision: str  # computed, cached, not-run
    is_last: bool
    x: int
    y: int
    width: int
    height: int

    @property
    def title(self) -> str:
        """The cell in words."""
        said = self.decision.replace("-", " ")
        whose = f", {EXPERT_WORDS[self.expert]}" if self.expert else ""
        return f"step {self.step} {self.branch}: {said}{whose}"


@dataclass(frozen=True, slots=True)
class StepMap:
    """All lanes of a video; `switch_step` is the first low-noise step, where the worker saw it."""

    steps: int
    lanes: list[tuple[str, list[Cell]]]
    pitch: int
    switch_step: int | None
    done: int
    cached: int

    @property
    def width(self) -> int:
        """Width of the drawing in its own units."""
        return self.steps * self.pitch

    @property
    def height(self) -> int:
        """Height of the drawing in its own units."""
        return len(self.lanes) * (LANE_HEIGHT + _GAP) - _GAP

    @property
    def switch_x(self) -> float | None:
        """Where the line between the experts stands."""
        if self.switch_step is None or not 1 < self.switch_step <= self.steps:
            return None
        return (self.switch_step - 1) * self.pitch - _GAP / 2

    @property
    def summary(self) -> str:
        """The drawing in one sentence, for those who do not see it."""
        text = f"{self.done} of {self.steps} steps done, {self.cached} of them cached"
        return f"{text}; low-noise expert from step {self.switch_step}" if self.switch_x else text


EXPERT_WORDS: Final = {"high": "high-noise expert", "low": "low-noise expert", "single": "expert"}


def draw(steps: int, source: Values, *, guided: bool) -> StepMap:
    """Lay the steps out.

    Args:
        steps: how many the video has.
        source: the running attempt's detail, or the report of an ended one: `pattern` has per
            expert and branch one letter a step (X computed, c cached), as far as it got;
            `switch_step` is the worker's word on where the low-noise expert began, 1-based.
        guided: whether the unconditional branch runs.
    """
    pattern: Values = source.get("pattern") or {}
    switch_step: int | None = source.get("switch_step")
    branches = _BRANCHES if guided else _BRANCHES[:1]
    pitch = min(31, max(6, _WIDTH // steps))
    letters = {branch: _letters(pattern, branch) for branch in branches}
    last = max(len(lane) for lane in letters.values())
    lanes = [
        (branch, [_cell(i, branch, letters[branch], row, pitch, last) for i in range(steps)])
        for row, branch in enumerate(branches)
    ]
    return StepMap(steps, lanes, pitch, switch_step, last, _cached(letters))


def _letters(pattern: Values, branch: str) -> list[tuple[str, str]]:
    """One (expert, letter) per step that ran."""
    return [
        (expert, letter)
        for expert in _EXPERTS
        for letter in pattern.get(expert, {}).get(branch, "")
    ]


def _cell(
    index: int, branch: str, lane: list[tuple[str, str]], row: int, pitch: int, last: int
) -> Cell:
    expert, letter = lane[index] if index < len(lane) else ("", "")
    cached = letter == "c"
    top = row * (LANE_HEIGHT + _GAP)
    half = LANE_HEIGHT // 2
    return Cell(
        step=index + 1,
        branch=branch,
        expert=expert,
        decision=_WORDS.get(letter, "not-run"),
        is_last=bool(letter) and index + 1 == last,
        x=index * pitch,
        y=top + half if cached else top,
        width=pitch - _GAP,
        height=half if cached else LANE_HEIGHT,
    )


def _cached(letters: dict[str, list[tuple[str, str]]]) -> int:
    """Count the steps in which a branch was served from the cache."""
    lanes = [[letter for _, letter in lane] for lane in letters.values()]
    return sum("c" in step for step in zip(*lanes, strict=False))
