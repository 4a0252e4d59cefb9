"""The life of a video and of a GPU group, as data that code, pages and docs all read."""

from enum import StrEnum
from types import MappingProxyType
from typing import Final


class VideoState(StrEnum):
    """Where a video stands; the comment says who moves it on."""

    QUEUED = "queued"  # a worker parent claims it, a caller or a deadline cancels it
    IN_PROGRESS = "in_progress"  # the parent holding its lease ends it; tick puts a lost one back
    COMPLETED = "completed"  # final
    FAILED = "failed"  # final
    CANCELLED = "cancelled"  # final

    @property
    def is_final(self) -> bool:
        """Tell whether nothing moves this state any more."""
        return not MOVES[self]

    @property
    def word(self) -> str:
        """The state as people read it."""
        return self.value.replace("_", " ")

    @property
    def glyph(self) -> str:
        """One character that tells the state without colour."""
        return _GLYPHS[self]


MOVES: Final = MappingProxyType(
    {
        VideoState.QUEUED: frozenset({VideoState.IN_PROGRESS, VideoState.CANCELLED}),
        VideoState.IN_PROGRESS: frozenset(
            {VideoState.COMPLETED, VideoState.FAILED, VideoState.CANCELLED, VideoState.QUEUED}
        ),
        VideoState.COMPLETED: frozenset[VideoState](),
        VideoState.FAILED: frozenset[VideoState](),
        VideoState.CANCELLED: frozenset[VideoState](),
    }
)

_GLYPHS: Final = MappingProxyType(
    {
        VideoState.QUEUED: "○",
        VideoState.IN_PROGRESS: "●",
        VideoState.COMPLETED: "✓",
        VideoState.FAILED: "✕",
        VideoState.CANCELLED: "⊘",
    }
)


class GroupState(StrEnum):
    """What a GPU group is doing; `down` is read off a heartbeat that stopped."""

    STARTING = "starting"  # its ranks have not all said hello
    LOADING = "loading"  # weights on their way to the devices
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"  # finishes its job, takes no other
    DRAINED = "drained"  # has no job and takes none, until it is resumed
    DOWN = "down"

    @property
    def glyph(self) -> str:
        """One character that tells the state without colour."""
        return _GROUP_GLYPHS[self]


_GROUP_GLYPHS: Final = MappingProxyType(
    {
        GroupState.STARTING: "◔",
        GroupState.LOADING: "◔",
        GroupState.IDLE: "○",
        GroupState.BUSY: "●",
        GroupState.DRAINING: "◐",
        GroupState.DRAINED: "◌",
        GroupState.DOWN: "!",
    }
)


class Phase(StrEnum):
    """What an attempt is busy with, in this order; detail, never state."""

    LOAD = "load"
    TEXT_ENCODE = "text_encode"
    IMAGE_ENCODE = "image_encode"
    DENOISE = "denoise"
    DECODE = "decode"
    ENCODE = "encode"
    STORE = "store"
