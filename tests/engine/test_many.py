"""Two hundred different jobs on one rank: its memory stays, and each video is what it would be."""

import statistics
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from shared.vocabulary.cache import CachePolicies, CachePolicy
from shared.vocabulary.spec import LoraRef
from tests.engine.ranks import Rank, job, load
from tests.engine.rendering import ALONE, small
from worker.ranks.messages import Done, Hello, Loaded, Lora

MODEL = "wan-tiny-t2v"
EAGER = CachePolicy(warmup=1, rdt=0.3, min_steps=0)
POLICIES = CachePolicies(high=EAGER, low=EAGER.model_copy(update={"taylorseer": True}))
KINDS = [
    ({"steps": 4}, None, False),
    ({"steps": 8}, POLICIES, False),
    ({"frames": 5, "guidance_high": 1.0}, None, True),
    ({"width": 96, "steps": 6}, POLICIES, True),
    ({"height": 96, "frames": 13, "steps": 3}, None, False),
    ({"sampler": "euler", "steps": 6}, POLICIES, False),
    ({"seed": 7, "prompt": "a cube"}, None, True),
    ({"steps": 7, "guidance_low": 1.0}, POLICIES, True),
    ({"frames": 1, "steps": 2}, None, False),
    ({"width": 96, "height": 96, "frames": 9, "steps": 2}, None, False),
]
WARM, JOBS = 20, 200  # an allocator settles once it has met each shape twice, up or down


@pytest.fixture
def lora(tmp_path) -> Lora:
    dice = torch.Generator().manual_seed(0)
    keys = {
        f"transformer.blocks.{n}.attn1.to_q.lora_{ab}.weight": torch.randn(*size, generator=dice)
        for n in range(6)
        for ab, size in (("A", (2, 48)), ("B", (48, 2)))
    }
    save_file(keys, tmp_path / "high.safetensors")
    path = str(tmp_path / "high.safetensors")
    return Lora(ref=LoraRef(name="style", strength=0.2), high=path, low=path)


@pytest.fixture
def start(models, tmp_path):
    """Start ranks with the model loaded."""
    ranks: list[Rank] = []

    def begin() -> Rank:
        scratch = tmp_path / f"rank{len(ranks)}"
        scratch.mkdir()
        ranks.append(Rank(0, 1, scratch))
        ranks[-1].hear(Hello)
        ranks[-1].say(load(MODEL, models / MODEL))
        ranks[-1].hear(Loaded)
        return ranks[-1]

    yield begin
    for rank in ranks:
        rank.end()


def rendered(rank: Rank, number: int, lora: Lora, out: Path) -> str:
    changes, cache, styled = KINDS[number % len(KINDS)]
    adapters = (lora,) if styled else ()
    spec = small(MODEL, **changes, loras=tuple(one.ref for one in adapters))
    order = job(spec, ALONE, out, attempt=number + 1)
    rank.say(order.model_copy(update={"cache": cache, "loras": adapters}))
    return rank.hear(Done).report.latents_sha256


def resident_bytes(rank: Rank) -> int:
    return int(Path(f"/proc/{rank.pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.long
@pytest.mark.timeout(300)
def test_two_hundred_mixed_jobs_leave_the_memory_flat_and_no_trace_in_each_other(
    start, lora, tmp_path
):
    worker = start()
    hashes: list[str] = []
    memory: list[int] = []

    for number in range(WARM + JOBS):
        hashes.append(rendered(worker, number, lora, tmp_path / "video.mp4"))
        memory.append(resident_bytes(worker))

    fresh = [rendered(start(), kind, lora, tmp_path / "v.mp4") for kind in range(len(KINDS))]
    assert hashes == fresh * ((WARM + JOBS) // len(KINDS))
    assert len(set(fresh)) == len(KINDS)
    first, last = (statistics.median(part) for part in (memory[WARM : WARM + 20], memory[-20:]))
    assert abs(last - first) / first < 0.02
