"""What NVML tells of GPUs is added to their ranks, and to nothing else."""

from shared.jobs.groups import Reading
from shared.vocabulary.states import GroupState
from worker.gpus import Gpus


def test_a_rank_on_the_cpu_is_told_of_without_a_gpu():
    reading = Reading(GroupState.IDLE, devices=[{"rank": 0, "device": "cpu", "uuid": None}])
    gpus = Gpus()

    gpus.start()
    gpus.stop()
    gpus.join(30)

    assert gpus.seen_in(reading).devices == reading.devices
