"""What a farm should do, on one page and without a database: the model of the random walks."""

from dataclasses import dataclass, field

from shared.vocabulary.retry import MAX_LOSSES
from shared.vocabulary.spec import FailureKind

COARSE_S = 30  # shares are told apart no finer
FINAL = frozenset({"completed", "failed", "cancelled"})


@dataclass
class Expected:
    """What a video should be."""

    video_id: str
    tenant: str
    model: str
    priority: int = 0
    group: str | None = None  # the only one that may take it
    state: str = "queued"
    attempt: int = 0
    left: int = 2
    failures: list[FailureKind] = field(default_factory=list)
    holder: str | None = None
    asked: bool = False
    deleted: bool = False
    backs_off: bool = False
    late: bool = False  # its deadline is over
    silent: bool = False  # its lease is over
    old: bool = False  # it has waited for so long that no warm model goes before it
    stored: set[int] = field(default_factory=set)  # the attempts that have stored files

    @property
    def is_due(self) -> bool:
        return self.state == "queued" and not (self.backs_off or self.late)

    def holds(self, attempt: int) -> bool:
        return (self.state, self.attempt) == ("in_progress", attempt)

    def taken(self, group: str) -> None:
        self.state, self.holder, self.silent = "in_progress", group, False
        self.attempt, self.left = self.attempt + 1, self.left - 1

    def ends(self, state: str) -> str:
        self.state, self.holder, self.silent = state, None, False
        return state

    def drained(self) -> str:
        self.left += not self.asked
        return self.ends("cancelled" if self.asked else "queued")

    def broke(self, kind: FailureKind) -> str:
        """End an attempt that went wrong; a cancel goes before everything else."""
        if self.asked:
            return self.ends("cancelled")
        before = self.failures.count(kind)
        self.failures.append(kind)
        if kind is FailureKind.LOST:
            over = before + 1 >= MAX_LOSSES
            self.left += not over
        else:
            hopeless = kind is FailureKind.OUT_OF_MEMORY and before > 0
            over = not kind.retryable or self.left <= 0 or hopeless
            self.backs_off = not over
        return self.ends("failed" if over else "queued")


class Expectation(dict[str, Expected]):
    """All videos that there should be, and what stands above them."""

    def __init__(self) -> None:
        super().__init__()
        self.keys_of: dict[tuple[str, str], tuple[str, str]] = {}  # -> fingerprint, video
        self.closed: set[str] = set()
        self.drains: dict[str, str] = {}
        self.shares: dict[str, int] = {}

    def accepts(self, one: Expected) -> None:
        """Take a video in; a tenant that comes back is level with the least of the others."""
        busy = {other.tenant for other in self.values() if other.state not in FINAL}
        if busy and one.tenant not in busy:
            least = min(self.shares.get(tenant, 0) for tenant in busy)
            self.shares[one.tenant] = max(self.shares.get(one.tenant, 0), least)
        self[one.video_id] = one

    def next_for(self, group: str, models: tuple[str, ...], warm: str | None) -> Expected | None:
        """The one that a group gets: priority, the tenant's share, warmth, age."""
        if "dispatch" in self.closed:
            return None
        due = [
            one
            for one in self.values()
            if one.is_due and one.model in models and one.group in {None, group}
        ]
        return min(due, key=lambda one: self._place(one, warm), default=None)

    def _place(self, one: Expected, warm: str | None) -> tuple[object, ...]:
        share = self.shares.get(one.tenant, 0) // COARSE_S
        return -one.priority, share, one.model != (warm or "") and not one.old, one.video_id

    @property
    def due(self) -> int:
        """How many could start, in some group."""
        return 0 if "dispatch" in self.closed else sum(one.is_due for one in self.values())

    @property
    def waiting(self) -> int:
        return sum(one.state == "queued" for one in self.values())

    def purged(self, *which: str) -> None:
        """What was deleted and is over is gone; all of it, or those."""
        for one in [*self.values()]:
            if one.deleted and one.state in FINAL and (not which or one.video_id in which):
                del self[one.video_id]

    def rescued(self, **which: object) -> None:
        """Whatever is running and fits is taken back as lost."""
        for one in self.values():
            if one.state == "in_progress" and all(getattr(one, k) == v for k, v in which.items()):
                one.broke(FailureKind.LOST)

    def expired(self) -> None:
        """What waits and is too late ends."""
        for one in self.values():
            if one.state == "queued" and one.late:
                one.ends("cancelled")

    def forget_keys(self) -> None:
        """A key of a video that is gone may be used again."""
        self.keys_of = {key: made for key, made in self.keys_of.items() if made[1] in self}
