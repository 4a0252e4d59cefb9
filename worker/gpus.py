"""What NVML says of the GPUs: load, heat and power, read where a driver that hangs harms nobody."""

import contextlib
import threading
import time
from dataclasses import replace
from typing import Any, Final

import pynvml

from shared.jobs.groups import Reading
from shared.jobs.ledger import Values
from shared.machinery.logs import logger

_NVML: Final[Any] = pynvml  # it has no types
_EVERY_S: Final = 2.0
_FRESH_S: Final = 10.0  # what was read earlier is not told any more


class Gpus(threading.Thread):
    """Reads all GPUs of this host again and again; knows nothing without their driver."""

    def __init__(self) -> None:
        """Prepare; `start()` begins."""
        super().__init__(name="gpus", daemon=True)
        self._read: tuple[float, dict[str, Values]] = (0.0, {})  # when (monotonic), and by UUID
        self._stop_asked = threading.Event()

    def seen_in(self, reading: Reading) -> Reading:
        """Add to a group's reading what is known of its devices."""
        read_at, known = self._read
        if time.monotonic() - read_at > _FRESH_S:
            return reading
        devices = [one | known.get(one["uuid"] or "", {}) for one in reading.devices]
        return replace(reading, devices=devices)

    def run(self) -> None:
        """Read until stopped, or until the driver fails."""
        try:
            _NVML.nvmlInit()
            while not self._stop_asked.is_set():
                self._read = (time.monotonic(), _read_all())
                self._stop_asked.wait(_EVERY_S)
        except _NVML.NVMLError as err:
            logger().warning("gpus.unreadable", error=str(err))

    def stop(self) -> None:
        """End the thread, soon."""
        self._stop_asked.set()


def _read_all() -> dict[str, Values]:
    handles = [_NVML.nvmlDeviceGetHandleByIndex(i) for i in range(_NVML.nvmlDeviceGetCount())]
    return {str(_NVML.nvmlDeviceGetUUID(handle)): _read_one(handle) for handle in handles}


def _read_one(handle: Any) -> Values:  # noqa: ANN401 - a pointer of the driver's
    """Read what this GPU tells; few tell everything."""
    heat = _NVML.NVML_TEMPERATURE_GPU
    asked = {
        "utilization_ratio": lambda: _NVML.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        "temperature_c": lambda: _NVML.nvmlDeviceGetTemperature(handle, heat),
        "power_w": lambda: _NVML.nvmlDeviceGetPowerUsage(handle) / 1000,
    }
    told: Values = {}
    for name, ask in asked.items():
        with contextlib.suppress(_NVML.NVMLError):
            told[name] = ask()
    return told
