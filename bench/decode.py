"""The VAE's decode beside diffusers': `python -m bench.decode`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
import torch

from bench import real_size
from bench.timing import interleaved, record, row
from shared.vocabulary.plan import ParallelPlan
from worker.engine.contract import Seat
from worker.engine.parallel.ranks import Ranks
from worker.engine.video import decode

_VIDEOS: Final = ("a14b-832x480x81", "5b-1280x704x121")


@click.command()
@click.option("--rounds", default=3, show_default=True, help="Timed rounds of each comparison.")
@click.option("--to", type=click.Path(path_type=Path), default=Path("bench/measured/decode.json"))
@torch.no_grad()
def main(rounds: int, to: Path) -> None:
    """Time whole decodes in bf16; ours ends with bytes in CPU memory, diffusers' with a tensor."""
    rows: list[dict[str, Any]] = []
    for name in _VIDEOS:
        family, shape = real_size.SHAPES[name]
        vae = real_size.vae(family)
        latents = torch.randn(1, *shape, device="cuda")
        strips = _alone().mesh(ParallelPlan(ranks=1)).strips(shape[2])

        def ours(vae: Any = vae, latents: Any = latents, strips: Any = strips) -> None:  # noqa: ANN401
            for _ in decode.frames(vae, latents, strips):
                pass

        def theirs(vae: Any = vae, latents: Any = latents) -> None:  # noqa: ANN401
            vae.decode(latents.to(torch.bfloat16), return_dict=False)

        ways: dict[str, Callable[[], None]] = {"diffusers": theirs, "ours": ours}
        samples = interleaved(ways, rounds=rounds, warm=1)
        rows.append(row(f"decode {name}", "diffusers", samples, peak_bytes=_peaks(ways)))
        record(to, rows)


def _alone() -> Ranks:
    return Ranks(Seat(0, 1, Path("none"), "cuda:0", 8))


def _peaks(ways: dict[str, Callable[[], None]]) -> dict[str, int]:
    peaks: dict[str, int] = {}
    for way, work in ways.items():
        torch.cuda.reset_peak_memory_stats()
        work()
        peaks[way] = torch.cuda.max_memory_allocated()
    return peaks


if __name__ == "__main__":
    main()
