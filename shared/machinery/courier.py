"""Sends what nobody should wait for: a thread that takes along all that has come meanwhile."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

Parcel = TypeVar("Parcel")

_MOST: Final = 10_000  # that wait; the oldest are lost beyond it, as on a broken line
_LAST_S: Final = 2.0  # to send what waits at the end


class Courier(Generic[Parcel]):
    """Delivers parcels in order, many at a time when they come faster than they can be sent."""

    def __init__(self, name: str, deliver: Callable[[list[Parcel]], None]) -> None:
        """Prepare; the thread starts with the first parcel.

        Args:
            name: of the thread.
            deliver: sends; deals with its own faults.
        """
        self._name = name
        self._deliver = deliver
        self._parcels: deque[Parcel] = deque(maxlen=_MOST)
        self._word = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def send(self, parcel: Parcel) -> None:
        """Hand a parcel over; returns at once."""
        with self._word:
            self._parcels.append(parcel)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
            self._word.notify()

    def close(self, within_s: float = _LAST_S) -> bool:
        """End the thread after what waits, if that can be sent soon.

        Returns:
            Whether it ended; else it is still sending, and its line is not to be closed under it.
        """
        with self._word:
            self._closed = True
            self._word.notify()
        if self._thread is None:
            return True
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while parcels := self._all():
            self._deliver(parcels)

    def _all(self) -> list[Parcel]:
        """Wait for parcels and take them; none at the end."""
        with self._word:
            self._word.wait_for(lambda: self._parcels or self._closed)
            parcels = list(self._parcels)
            self._parcels.clear()
        return parcels
