"""Turns what torch, its collectives and the file system raise into one kind of fault."""

import errno
from typing import Final

from shared.vocabulary.spec import FailureKind

# Told by name, so that a rank with another engine does not import torch to report a fault.
_BY_TYPE: Final = {
    "OutOfMemoryError": FailureKind.OUT_OF_MEMORY,
    "MemoryError": FailureKind.OUT_OF_MEMORY,
    "DistError": FailureKind.COLLECTIVE,
    "AcceleratorError": FailureKind.CUDA_ERROR,
}
_BY_WORD: Final = (
    ("out of memory", FailureKind.OUT_OF_MEMORY),
    ("can't allocate memory", FailureKind.OUT_OF_MEMORY),
    ("gloo", FailureKind.COLLECTIVE),
    ("NCCL", FailureKind.COLLECTIVE),
    ("CUDA error", FailureKind.CUDA_ERROR),
    ("CUDNN", FailureKind.CUDA_ERROR),
    ("CUBLAS", FailureKind.CUDA_ERROR),
)
_SENTENCES: Final = {
    FailureKind.OUT_OF_MEMORY: "The device ran out of memory. Try a smaller size or fewer frames.",
    FailureKind.COLLECTIVE: "A rank lost touch with the others of its group. The group restarts.",
    FailureKind.CUDA_ERROR: "The GPU reported an error. The group restarts.",
    FailureKind.STORAGE: "The disk is full. Free some space, then try again.",
}


class EngineFault(Exception):
    """A command that the engine cannot carry out.

    Args:
        kind: decides retry, restart and the public code.
        message: at most three short sentences without paths, hosts or traces.
    """

    def __init__(self, kind: FailureKind, message: str) -> None:
        """Keep both for the report."""
        super().__init__(message)
        self.kind = kind
        self.message = message


def fault_of(error: BaseException) -> EngineFault:
    """Name the fault behind any exception; one of ours is returned as it is."""
    if isinstance(error, EngineFault):
        return error
    kind = _kind_of(error)
    sentence = _SENTENCES.get(kind, f"The engine failed with {type(error).__name__}.")
    return EngineFault(kind, sentence)


def _kind_of(error: BaseException) -> FailureKind:
    for ancestor in type(error).__mro__:
        if ancestor.__name__ in _BY_TYPE:
            return _BY_TYPE[ancestor.__name__]
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FailureKind.STORAGE
    if isinstance(error, RuntimeError):  # torch reports most of its troubles as this
        text = str(error).lower()
        for word, kind in _BY_WORD:
            if word.lower() in text:
                return kind
    return FailureKind.INTERNAL
