"""Arithmetic that is launched as one: for small models launching takes longer than doing."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Work = Callable[[], dict[str, Tensor]]


def recorded(work: Work, device: torch.device) -> Work:
    """Record what `work` does on a GPU, to be done again by each call; on a CPU it is just called.

    `work` takes nothing from the CPU: it draws its own numbers. What it gives is written over by
    the next call.
    """
    if device.type != "cuda":
        return work
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # what is compiled or allocated at first is not recorded
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(aside)
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        held = work()

    def replay() -> dict[str, Tensor]:
        graph.replay()
        return held

    return replay
