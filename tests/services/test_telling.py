"""A worker's own port: what an attempt adds, and what the heartbeat knows of the GPUs."""

import socket
from contextlib import contextmanager

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared.jobs.groups import Reading
from shared.machinery.farm import open_farm
from shared.vocabulary.states import GroupState
from tests.farm.conftest import free_port
from tests.services.jobs import MODEL, submit
from worker import telling

GPU = {"rank": 0, "memory_bytes": 3 << 30, "memory_total_bytes": 80 << 30, "uuid": "GPU-1"}
SENSED = {"utilization_ratio": 0.93, "temperature_c": 61, "power_w": 640.5}


@pytest.fixture
def farm(settings):
    handles = open_farm(settings.model_copy(update={"metrics_port": free_port()}))
    yield handles
    handles.close()


@contextmanager
def told(farm, *read):
    server = telling.serve(farm, *read)
    try:
        yield f"http://127.0.0.1:{farm.settings.metrics_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()


def scrape(url: str) -> dict[tuple[str, ...], float]:
    """Samples by name and labels' values, without histograms' buckets."""
    return {
        (one.name.removeprefix("wanfarm_"), *one.labels.values()): one.value
        for family in text_string_to_metric_families(httpx.get(url).text)
        for one in family.samples
        if "le" not in one.labels
    }


def test_an_attempt_adds_its_phases_steps_and_files(farm, start):
    submit(farm, steps=3)

    start("Filmmaker", farm).work()
    with told(farm) as url:
        samples = scrape(url)

    assert samples["step_seconds_count", "none", "high", MODEL, "mini"] == 3
    phases = {key[-1] for key in samples if key[0] == "phase_seconds_count"}
    assert {"load", "denoise", "encode", "store"} <= phases
    assert samples["storage_seconds_count", "put"] == 3
    assert samples["job_run_seconds_count", MODEL, "mini"] == 1
    assert samples["storage_size_bytes", "data"] >= samples["storage_free_bytes", "data"] > 0
    assert ("build_info", "0.1.0") in samples


def test_ranks_that_a_fault_ends_are_counted_by_its_kind(farm, start):
    submit(farm, prompt="die", max_attempts=1)

    start("Filmmaker", farm).work()
    with told(farm) as url:
        samples = scrape(url)

    assert samples["group_restarts_total", "g0", "rank_died"] == 1
    assert samples["job_attempts_total", MODEL, "failed"] == 1


def test_gpus_are_told_as_far_as_they_are_known(farm):
    blind = {"rank": 1, "memory_bytes": 0, "memory_total_bytes": 80 << 30}
    cpu = {"rank": 2, "memory_bytes": 7, "memory_total_bytes": None}
    reading = Reading(GroupState.BUSY, devices=[GPU | SENSED, blind, cpu])

    with told(farm, telling.gpus_of("g0", lambda: reading)) as url:
        samples = scrape(url)

    gpus = {key: shown for key, shown in samples.items() if key[0].startswith("gpu_")}
    assert gpus == {
        ("gpu_memory_used_bytes", "GPU-1", "g0", "0"): 3 << 30,
        ("gpu_memory_size_bytes", "GPU-1", "g0", "0"): 80 << 30,
        ("gpu_utilization_ratio", "GPU-1", "g0", "0"): 0.93,
        ("gpu_power_watts", "GPU-1", "g0", "0"): 640.5,
        ("gpu_temperature_celsius", "GPU-1", "g0", "0"): 61,
        ("gpu_memory_used_bytes", "unknown", "g0", "1"): 0,
        ("gpu_memory_size_bytes", "unknown", "g0", "1"): 80 << 30,
    }


def test_a_taken_port_is_refused_by_name(farm):
    squatter = socket.create_server(("127.0.0.1", farm.settings.metrics_port))
    with squatter, pytest.raises(SystemExit, match=r"WANFARM_METRICS_PORT is \d+\. It cannot be"):
        telling.serve(farm)


def test_without_a_port_nothing_is_told(settings):
    assert telling.serve(open_farm(settings)) is None
