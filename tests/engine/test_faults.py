"""Exceptions of others under our own kinds."""

import errno

import pytest
import torch
import torch.distributed

from shared.vocabulary.spec import FailureKind
from worker.engine.faults import EngineFault, fault_of


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), FailureKind.OUT_OF_MEMORY),
        (MemoryError(), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed"), FailureKind.COLLECTIVE),
        (torch.distributed.DistBackendError("NCCL error"), FailureKind.COLLECTIVE),
        (RuntimeError("CUDA error: an illegal memory access"), FailureKind.CUDA_ERROR),
        (OSError(errno.ENOSPC, "No space left on device"), FailureKind.STORAGE),
        (OSError(errno.EPERM, "Not permitted"), FailureKind.INTERNAL),
        (ZeroDivisionError(), FailureKind.INTERNAL),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, Exception) else str(given),
)
def test_an_exception_has_a_kind_and_a_sentence(error, kind):
    fault = fault_of(error)

    assert fault.kind is kind
    assert fault.message.endswith(".")
    assert len(fault.message) <= 300


def test_a_fault_of_ours_is_kept():
    fault = EngineFault(FailureKind.BAD_LORA, "No.")

    assert fault_of(fault) is fault
