"""The handles of one process on the farm, built at its edge and passed down."""

from dataclasses import dataclass, field

from sqlalchemy import Engine

from shared.machinery.database import connect
from shared.machinery.doorbell import Doorbell
from shared.machinery.feed import Feed
from shared.machinery.loras import Loras
from shared.machinery.settings import Settings
from shared.machinery.storage import LocalStorage


@dataclass(frozen=True, slots=True)
class Farm:
    """Settings, Postgres, Redis twice (doorbell and feed), the result store, the adapters."""

    settings: Settings
    db: Engine
    doorbell: Doorbell
    feed: Feed
    storage: LocalStorage
    loras: Loras
    room: dict[str | None, range] = field(default_factory=dict[str | None, range])  # by intake

    def close(self) -> None:
        """Give the connections back."""
        self.db.dispose()
        self.feed.close()
        self.doorbell.close()


def open_farm(settings: Settings) -> Farm:
    """Build all handles; nothing connects yet."""
    return Farm(
        settings=settings,
        db=connect(settings),
        doorbell=Doorbell(settings),
        feed=Feed(settings),
        storage=LocalStorage(settings.data_dir),
        loras=Loras(settings.lora_dir),
    )
