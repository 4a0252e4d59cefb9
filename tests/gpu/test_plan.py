"""On a GPU: its driver tells a plan what torch finds."""

import pytest
import torch

from cli.planning.nvml import machine_here

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
]


def test_the_machine_has_the_memory_and_the_names_that_torch_tells():
    machine = machine_here()

    seen = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
    assert machine.memory_bytes == min(gpu.total_memory for gpu in seen)
    assert {f"GPU-{gpu.uuid}" for gpu in seen} <= set(machine.uuids)
    assert sorted(gpu for island in machine.islands for gpu in island) == [*range(machine.count)]
