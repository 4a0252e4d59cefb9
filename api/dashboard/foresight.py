"""The rail beside the form: what its request would come to, as it stands, and how to send it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import repeat
from typing import Final

from api.dashboard.curl import command
from api.dashboard.newform import Read
from api.plumbing.links import base_url
from shared.jobs.forecast import Forecast, forecasts
from shared.machinery.farm import Farm
from shared.vocabulary.spec import ImageRef

# stands for the image that is not chosen yet: only its shape counts, and only for size auto
ANY_IMAGE: Final = ImageRef(sha256="0" * 64, width=1280, height=720)
_BASES: Final = {
    "measured": "from runs of this very shape",
    "interpolated": "from runs of other shapes",
    "prior": "from published figures, until this farm has runs of its own",
}


@dataclass(frozen=True, slots=True)
class Rail:
    """One video, or the last of so many; None is unknown."""

    count: int
    first: Forecast
    gpu_seconds: float | None  # of all
    ready_at: datetime | None  # the last of them
    warnings: list[str]
    curl: str

    @property
    def basis(self) -> str | None:
        """What the run's time rests on, in words."""
        return _BASES[self.first.run.basis] if self.first.run else None


def foresee(farm: Farm, read: Read) -> Rail:
    """Look ahead for what the form asks for.

    Raises:
        WanfarmError: `does_not_fit`.
    """
    resolved = read.resolved
    ahead = list(forecasts(farm, repeat((resolved.spec, resolved.delivery), read.count)))
    last, costs = ahead[-1], [one.gpu_seconds for one in ahead]
    ends = last.starts_at + last.run.p50_s if last.starts_at and last.run else None
    return Rail(
        count=read.count,
        first=ahead[0],
        gpu_seconds=sum(cost or 0 for cost in costs) if all(costs) else None,
        ready_at=datetime.fromtimestamp(ends, UTC) if ends else None,
        warnings=[one["message"] for one in resolved.warnings],
        curl=_curl(read),
    )


def _curl(read: Read) -> str:
    """Say the same to the API."""
    body = read.request.model_dump(mode="json", exclude_unset=True, exclude={"input_reference"})
    image = "input.png" if read.resolved.spec.image else None
    if read.count > 1:
        body = {"request": body, "variations": read.count}
        return command(base_url(), "/v1/batches", body, image=image)
    return command(base_url(), "/v1/videos", body, image=image)
