"""NVML and torch mean the same GPU by one name, and NVML reads it."""

from pathlib import Path

import pytest

from shared.jobs.groups import Reading
from shared.vocabulary.states import GroupState
from worker.engine.contract import Seat
from worker.engine.engine import Engine
from worker.gpus import Gpus

pytestmark = pytest.mark.gpu


def test_the_gpu_of_an_engine_is_read(tmp_path: Path, eventually):
    engine = Engine(Seat(0, 1, tmp_path / "rendezvous", "cuda:0", 1))
    told = Reading(GroupState.IDLE, devices=[{"rank": 0, "uuid": engine.device_uuid}])
    gpus = Gpus()

    gpus.start()
    eventually(lambda: "power_w" in gpus.seen_in(told).devices[0])
    (device,) = gpus.seen_in(told).devices
    gpus.stop()
    engine.close()

    assert 0 <= device["utilization_ratio"] <= 1
    assert 10 < device["temperature_c"] < 110
    assert 10 < device["power_w"] < 2000
