"""The handles of one process on the farm, built at its edge and passed down."""

from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Engine

from shared.machinery.database import connect
from shared.machinery.doorbell import Doorbell
from shared.machinery.feed import Feed
from shared.machinery.loras import Loras
from shared.machinery.meters import Meters
from shared.machinery.settings import ConfigurationError, Settings
from shared.machinery.storage import LocalStorage, Storage
from shared.machinery.together import Together
from shared.machinery.traces import Traces, open_traces

MOST_TOGETHER: Final = 16  # orders that share their statements


@dataclass(frozen=True, slots=True)
class Farm:
    """Settings, Postgres, Redis twice (doorbell, feed), files, adapters, figures, spans."""

    settings: Settings
    db: Engine
    doorbell: Doorbell
    feed: Feed
    storage: Storage
    saved: LocalStorage  # ranks write there themselves: the same as storage, or beside a bucket
    loras: Loras
    meters: Meters
    traces: Traces
    # intake's: since which transaction so many videos more may wait, by key (or all) and limit
    room: dict[tuple[str | None, int], tuple[int, int]] = field(default_factory=dict[Any, Any])
    submits: Together[Any, Any] = field(default_factory=lambda: Together(MOST_TOGETHER))
    # rows of living keys by id, and until when each is trusted
    keys: dict[str, tuple[float, Any]] = field(default_factory=dict[str, tuple[float, Any]])

    def close(self) -> None:
        """Give the connections back."""
        self.db.dispose()
        self.feed.close()
        self.doorbell.close()
        self.traces.close()


def open_farm(settings: Settings, service: str = "wanfarm") -> Farm:
    """Build all handles; nothing connects yet.

    Args:
        settings: of this process.
        service: what it is, for its traces.

    Raises:
        ConfigurationError: when the result store is a bucket, or spans go somewhere, and what that
            needs is lacking.
    """
    meters = Meters()
    return Farm(
        settings=settings,
        db=connect(settings),
        doorbell=Doorbell(settings, meters),
        feed=Feed(settings),
        storage=open_storage(settings),
        saved=LocalStorage(settings.data_dir),
        loras=Loras(settings.lora_dir),
        meters=meters,
        traces=open_traces(settings, service),
    )


def open_storage(settings: Settings) -> Storage:
    """Choose where results go.

    Raises:
        ConfigurationError: without the package or the credentials that a bucket needs.
    """
    if settings.s3_bucket is None:
        return LocalStorage(settings.data_dir)
    try:
        from shared.machinery.storage_s3 import S3Storage
    except ImportError as err:
        raise ConfigurationError(
            "WANFARM_S3_BUCKET is set and boto3 is not installed. Install wanfarm[s3]."
        ) from err
    return S3Storage(settings)
