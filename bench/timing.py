"""Times several ways of one thing beside each other and keeps every sample."""

import importlib.metadata
import json
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

Work = Callable[[], object]

_SOFTWARE: Final = ("torch", "diffusers", "triton", "fa3-fwd", "cache-dit")
_STEADY: Final = 0.01  # relative spread of samples that is not worth a word


def interleaved(ways: Mapping[str, Work], *, rounds: int, warm: int = 1) -> dict[str, list[float]]:
    """Time each way once a round, so that a GPU that slows as it heats slows them all alike.

    Returns:
        Milliseconds of every timed round, by way.
    """
    for work in ways.values():
        for _ in range(warm):
            work()
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            samples[name].append(once(work))
    return samples


def once(work: Work) -> float:
    """Time one call on the GPU, in milliseconds."""
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    began.record()
    work()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended)


def row(name: str, base: str, samples: dict[str, list[float]], **facts: object) -> dict[str, Any]:
    """Sum up one comparison: medians and ratios to the way called `base`; prints a line each."""
    medians = {way: statistics.median(given) for way, given in samples.items()}
    ratios = {way: medians[base] / median for way, median in medians.items()}
    for way, given in samples.items():
        spread = (max(given) - min(given)) / medians[way]
        flag = f"  spread {spread:.1%}" if spread > _STEADY else ""
        print(f"{name:34} {way:24} {medians[way]:10.1f} ms {ratios[way]:6.3f}x{flag}", flush=True)
    kept = {"median_ms": medians, "ratio": ratios, "samples_ms": samples}
    return {"row": name, "base": base, **kept, **facts}


def environment() -> dict[str, Any]:
    """Say where this is measured: GPU, driver, clocks, versions."""
    query = "name,driver_version,power.limit,clocks.max.sm,clocks.max.memory"
    cards = [platform.processor() or platform.machine()]
    if torch.cuda.is_available():
        seen = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        ids = ",".join(f"GPU-{gpu.uuid}" for gpu in seen)
        argv = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", f"--id={ids}"]
        told = subprocess.run(argv, capture_output=True, text=True, check=True)
        cards = told.stdout.splitlines()
    versions: dict[str, str | None] = {}
    for package in _SOFTWARE:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {"gpus": cards, "gpu_query": query, "versions": versions, "cuda": torch.version.cuda}


def record(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows of a run and its surroundings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"environment": environment(), "rows": rows}, indent=1) + "\n")
