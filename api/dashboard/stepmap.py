"""The map of denoising steps: which expert, which branch, computed or taken from the cache."""

from dataclasses import dataclass
from typing import Any, Final

from shared.jobs.ledger import Values

_EXPERTS: Final = ("high", "single", "low")  # in the order in which they run
_BRANCHES: Final = ("cond", "uncond")
_WORDS: Final = {"X": "computed", "c": "cached"}
_REASONS: Final = {
    "w": "warm-up",
    "s": "mask",
    "L": "last step",
    "n": "nothing to reuse yet",
    "S": "mask",
    "M": "total limit",
    "m": "run limit",
    "a": "differences add up",
    "A": "always",
    "d": "little changed",
    "D": "too different",
}
_GAP: Final = 3
LANE_HEIGHT: Final = 18
_WIDTH: Final = 620  # what the card offers; few steps get wide cells, many get narrow ones


@dataclass(frozen=True, slots=True)
class Mark:
    """What became of one step in one branch, and why."""

    expert: str = ""
    letter: str = ""  # X computed, c cached, empty when not run
    reason: str = ""
    diff: float | None = None
    rdt: float | str | None = None  # what the difference was held against

    @property
    def decision(self) -> str:
        """In one word: computed, cached, not-run."""
        return _WORDS.get(self.letter, "not-run")

    @property
    def why(self) -> str:
        """The reason in words; empty without a cache."""
        if self.reason in {"d", "D"} and self.diff is not None:
            return f"diff {self.diff:.3f} {'<' if self.reason == 'd' else '≥'} {self.rdt}"
        return _REASONS.get(self.reason, "")

    @property
    def words(self) -> str:
        """The decision with its reason."""
        said = self.decision.replace("-", " ")
        return f"{said}, {self.why}" if self.why else said


@dataclass(frozen=True, slots=True)
class Cell:
    """One step of one branch, with its place in the drawing."""

    step: int
    branch: str
    mark: Mark
    is_last: bool
    x: int
    y: int
    width: int
    height: int

    @property
    def title(self) -> str:
        """The cell in words."""
        whose = f", {EXPERT_WORDS[self.mark.expert]}" if self.mark.expert else ""
        return f"step {self.step} {self.branch}: {self.mark.words}{whose}"


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


def draw(steps: int, source: Values, policies: Values, *, guided: bool) -> StepMap:
    """Lay the steps out.

    Args:
        steps: how many the video has.
        source: the running attempt's detail, or the report of an ended one: `pattern` has per
            expert and branch one letter a step (X computed, c cached), as far as it got; `reasons`
            and `diffs` go with it, from the step on that this attempt began with; `switch_step` is
            the worker's word on where the low-noise expert began, 1-based.
        policies: what the attempt told the block cache, per expert; empty without one.
        guided: whether the unconditional branch runs.
    """
    switch_step: int | None = source.get("switch_step")
    branches = _BRANCHES if guided else _BRANCHES[:1]
    pitch = min(31, max(6, _WIDTH // steps))
    marks = {branch: _marks(source, policies, branch) for branch in branches}
    last = max(len(lane) for lane in marks.values())
    lanes = [
        (branch, [_cell(i, branch, marks[branch], row, pitch, last) for i in range(steps)])
        for row, branch in enumerate(branches)
    ]
    return StepMap(steps, lanes, pitch, switch_step, last, _cached(marks))


def _marks(source: Values, policies: Values, branch: str) -> list[Mark]:
    """One mark per step that ran."""
    marks: list[Mark] = []
    for expert in _EXPERTS:
        letters: str = _lane(source, "pattern", expert, branch, "")
        reasons: str = _lane(source, "reasons", expert, branch, "")
        diffs: list[float | None] = _lane(source, "diffs", expert, branch, [])
        policy: Values = policies.get("low" if expert == "low" else "high") or {}
        before = len(letters) - len(reasons)  # steps of an attempt before this one
        marks += [Mark(expert, letter) for letter in letters[:before]]
        marks += [
            Mark(expert, letter, reason, diff, policy.get("rdt"))
            for letter, reason, diff in zip(letters[before:], reasons, diffs, strict=True)
        ]
    return marks


def _lane(source: Values, kind: str, expert: str, branch: str, nothing: Any) -> Any:  # noqa: ANN401 - text or numbers
    experts: Values = source.get(kind) or {}
    return experts.get(expert, {}).get(branch, nothing)


def _cell(index: int, branch: str, lane: list[Mark], row: int, pitch: int, last: int) -> Cell:
    mark = lane[index] if index < len(lane) else Mark()
    cached = mark.decision == "cached"
    top = row * (LANE_HEIGHT + _GAP)
    half = LANE_HEIGHT // 2
    return Cell(
        step=index + 1,
        branch=branch,
        mark=mark,
        is_last=bool(mark.letter) and index + 1 == last,
        x=index * pitch,
        y=top + half if cached else top,
        width=pitch - _GAP,
        height=half if cached else LANE_HEIGHT,
    )


def _cached(marks: dict[str, list[Mark]]) -> int:
    """Count the steps in which a branch was served from the cache."""
    return sum(
        any(mark.decision == "cached" for mark in step)
        for step in zip(*marks.values(), strict=False)
    )
