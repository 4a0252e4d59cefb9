"""Tells a process's figures on a port of its own, and what a group knows of its GPUs."""

from collections.abc import Callable, Iterator
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import Metric as Family

from shared.jobs.groups import Reading
from shared.machinery.farm import Farm
from shared.machinery.meters import Told, build, disks, family
from shared.machinery.settings import variable_of
from shared.vocabulary.metrics import (
    GPU_MEMORY,
    GPU_MEMORY_SIZE,
    GPU_POWER,
    GPU_TEMPERATURE,
    GPU_UTILIZATION,
)

# What a device's reading calls it; a GPU without a sensor, or a host without NVML, says less.
_SENSED: Final = (
    (GPU_MEMORY, "memory_bytes"),
    (GPU_MEMORY_SIZE, "memory_total_bytes"),
    (GPU_UTILIZATION, "utilization_ratio"),
    (GPU_POWER, "power_w"),
    (GPU_TEMPERATURE, "temperature_c"),
)


def serve(farm: Farm, *read: Callable[[], Iterator[Family]]) -> WSGIServer | None:
    """Serve `/metrics` beside the work, if the settings name a port.

    Args:
        farm: the handles; its meters are told.
        read: what else is read when somebody asks.

    Raises:
        SystemExit: when the port is taken.
    """
    port, host = farm.settings.metrics_port, farm.settings.host
    if not port:
        return None
    told = CollectorRegistry()
    told.register(farm.meters.registry)
    told.register(Told(build, lambda: disks(farm.settings), *read))
    try:
        return start_http_server(port, host, told)[0]
    except OSError as err:
        raise SystemExit(
            f"wanfarm: {variable_of('metrics_port')} is {port}. It cannot be bound on {host} "
            f"({err.strerror}). Choose another port, or 0 to tell no metrics."
        ) from err


def gpus_of(group: str, reading: Callable[[], Reading]) -> Callable[[], Iterator[Family]]:
    """Read a group's GPUs as its heartbeat has them; a group on the CPU has none."""

    def read() -> Iterator[Family]:
        gpus = [one for one in reading().devices if one["memory_total_bytes"]]
        for metric, name in _SENSED:
            yield family(
                metric,
                (
                    (one[name], (group, str(one["rank"]), one.get("uuid") or "unknown"))
                    for one in gpus
                    if one.get(name) is not None
                ),
            )

    return read
