"""The story of a video in order: the wait, each try, the phases of the last one, the end."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from api.dashboard.views import PHASE_WORDS, detail_of
from api.dashboard.words import now
from shared.jobs.ledger import Values
from shared.vocabulary.states import Phase, VideoState

_AHEAD: Final = (Phase.DENOISE, Phase.DECODE, Phase.ENCODE, Phase.STORE)
_GLYPHS: Final = {"ok": "✓", "bad": "✕", "cancel": "⊘", "run": "●", "queued": "○"}
_OUTCOMES: Final = {"completed": "ok", "cancelled": "cancel", "drained": "queued"}


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the story."""

    tone: str
    what: str
    note: str
    seconds: float | None
    group: str | None = None  # who tried

    @property
    def glyph(self) -> str:
        """The tone without colour."""
        return _GLYPHS[self.tone]


def timeline(row: Values, events: list[Values]) -> list[Moment]:
    """Tell a video's story; `row` has its attempts, `events` are its ledger lines."""
    moments = [_wait(row)]
    for attempt in row["attempts"]:
        is_last = attempt["number"] == row["attempt"]
        if attempt["outcome"] not in {None, "completed"}:
            moments.append(_ended(attempt))
        elif is_last:
            moments += [_claimed(attempt), *_phases(row, attempt, events)]
    return [*moments, *_end(row)]


def _wait(row: Values) -> Moment:
    attempts = row["attempts"]
    until = attempts[0]["claimed_at"] if attempts else row["completed_at"]
    waits = not attempts and row["state"] == VideoState.QUEUED
    note = f"key {row['key_name']}"
    return Moment("queued" if waits else "ok", "queued", note, _between(row["created_at"], until))


def _ended(attempt: Values) -> Moment:
    tone = _OUTCOMES.get(attempt["outcome"], "bad")
    reason = attempt["message"] or attempt["outcome"]
    seconds = _between(attempt["claimed_at"], attempt["ended_at"])
    what, group = f"attempt {attempt['number']}", attempt["group_name"]
    return Moment(tone, what, reason, seconds, group)


def _claimed(attempt: Values) -> Moment:
    plan: Values = attempt["plan"] or {}
    shape = " · one branch each" if plan.get("cfg") == 2 else ""
    note = f"{attempt['ranks']} rank{'s'[: attempt['ranks'] > 1]}{shape}"
    return Moment("ok", f"attempt {attempt['number']}", note, None, attempt["group_name"])


def _phases(row: Values, attempt: Values, events: list[Values]) -> list[Moment]:
    """The phases of the attempt that counts: those it told of, and those still ahead."""
    told = [
        (Phase(one["name"]), float(one["at"]))
        for one in events
        if one["type"] == "phase" and one["attempt"] == attempt["number"]
    ]
    if not told and attempt["report"]:
        seconds: Values = attempt["report"].get("phase_seconds", {})
        return [Moment("ok", PHASE_WORDS[Phase(p)], "", s) for p, s in seconds.items()]
    ended_at = attempt["ended_at"].timestamp() if attempt["ended_at"] else None
    ends = [*(began for _, began in told[1:]), ended_at] if told else []
    moments = [
        Moment(
            "run" if end is None else "ok",
            PHASE_WORDS[phase],
            _phase_note(row, phase),
            (end or now().timestamp()) - began,
        )
        for (phase, began), end in zip(told, ends, strict=True)
    ]
    if ended_at is None:
        seen = {phase for phase, _ in told}
        moments += [Moment("queued", PHASE_WORDS[p], "", None) for p in _AHEAD if p not in seen]
    return moments


def _phase_note(row: Values, phase: Phase) -> str:
    switch = detail_of(row).get("switch_step")
    if phase is Phase.DENOISE and switch and switch <= row["spec"]["steps"]:
        return f"high → low at step {switch}"
    return ""


def _end(row: Values) -> list[Moment]:
    state = VideoState(row["state"])
    total = _between(row["created_at"], row["completed_at"]) if row["completed_at"] else None
    if state is VideoState.COMPLETED:
        return [Moment("ok", "completed", "from submit to stored", total)]
    if state is VideoState.CANCELLED:
        who = row["cancelled_by"] or "the deadline"
        return [Moment("cancel", "cancelled", f"by {who}", total)]
    if state is VideoState.FAILED:
        return [Moment("bad", "failed", row["error"]["code"], total)]
    if state is VideoState.QUEUED and row["attempts"]:
        return [Moment("queued", "waits again", f"attempt {row['attempt'] + 1}", None)]
    return []


def _between(start: datetime, end: datetime | None) -> float:
    return ((end or now()) - start).total_seconds()
