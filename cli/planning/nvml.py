"""Asks the driver, through NVML, which GPUs this machine has and how they are joined."""

import importlib
import os
from typing import Any, Final

from cli.client import Exit, FarmError
from cli.planning.gpus import Machine, one_kind

_INSTEAD: Final = "Name the GPUs instead: --gpus 8xH100-80G."


def machine_here() -> Machine:
    """Read this machine's GPUs; what its driver keeps for itself is not counted as memory.

    Raises:
        FarmError: without a driver, or when its GPUs cannot be planned for.
    """
    nvml = _nvml()
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        if not handles:
            raise FarmError(Exit.BLOCKED, f"The driver here has no GPU. {_INSTEAD}")
        return Machine(
            kind=one_kind(nvml.nvmlDeviceGetName(handle) for handle in handles),
            count=len(handles),
            memory_bytes=min(_usable_bytes(nvml, handle) for handle in handles),
            uuids=tuple(nvml.nvmlDeviceGetUUID(handle) for handle in handles),
            islands=_islands(nvml, handles),
            host_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        )
    finally:
        nvml.nvmlShutdown()


def _nvml() -> Any:  # noqa: ANN401 - the package has no types
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ModuleNotFoundError as err:
        raise FarmError(
            Exit.BLOCKED, f"The package nvidia-ml-py, which reads GPUs, is missing. {_INSTEAD}"
        ) from err
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as err:
        raise FarmError(
            Exit.BLOCKED, f"No NVIDIA driver answers on this machine ({err}). {_INSTEAD}"
        ) from err
    return nvml


def _usable_bytes(nvml: Any, handle: object) -> int:  # noqa: ANN401
    memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    return int(memory.total - memory.reserved)


def _islands(nvml: Any, handles: list[Any]) -> tuple[tuple[int, ...], ...]:  # noqa: ANN401
    """Sort the indices into sets that NVLink joins, directly or through others."""
    islands: list[list[int]] = []
    for index, handle in enumerate(handles):
        mine = [i for i in islands if any(_joined(nvml, handle, handles[other]) for other in i)]
        islands = [island for island in islands if island not in mine]
        islands.append(sorted([index, *(other for island in mine for other in island)]))
    return tuple(tuple(island) for island in sorted(islands))


def _joined(nvml: Any, one: object, other: object) -> bool:  # noqa: ANN401
    way = nvml.NVML_P2P_CAPS_INDEX_NVLINK
    return nvml.nvmlDeviceGetP2PStatus(one, other, way) == nvml.NVML_P2P_STATUS_OK
