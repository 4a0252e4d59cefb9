"""What a request would come to, before it is sent."""

from typing import Final

from flask import Response

from api.plumbing import asking
from api.plumbing.registry import Call, NoQuery, Route, endpoint
from api.plumbing.runtime import farm
from api.plumbing.schemas import RunRange, VideoEstimate
from api.plumbing.wire import json_response
from shared.jobs.forecast import Forecast, forecast
from shared.vocabulary.request import VideoRequest
from shared.vocabulary.resolve import Resolved
from shared.vocabulary.video import Warned


@endpoint(
    Route(
        method="POST",
        path="/v1/videos/estimate",
        scope="submit",
        summary="Foresee a video: its time, its memory, its place.",
        query=NoQuery,
        body=VideoRequest,
        returns=VideoEstimate,
        errors=("invalid_value", "image_too_large", "priority_not_allowed", "does_not_fit"),
    )
)
def estimate(call: Call[NoQuery]) -> Response:
    """Check a request as if it were sent, and tell what would become of it; nothing is stored."""
    sent = asking.read_sent(farm(), VideoRequest, call.caller)
    resolved = asking.settle(farm(), sent.fields, sent.image.ref if sent.image else None)
    foreseen = forecast(farm(), resolved.spec, resolved.delivery)
    return json_response(show(resolved, foreseen))


def show(resolved: Resolved, foreseen: Forecast) -> VideoEstimate:
    """Put a forecast into words of the wire."""
    run, starts = foreseen.run, foreseen.starts_at
    spec = resolved.spec.model_dump(mode="json")
    return VideoEstimate(
        model=spec["model"],
        prompt=spec.pop("prompt"),
        spec=spec,
        warnings=[Warned.model_validate(one) for one in resolved.warnings],
        fits=foreseen.fits,
        queue_position=foreseen.place,
        starts_at=None if starts is None else int(starts),
        completes_at=int(starts + run.p50_s) if starts is not None and run else None,
        run_s=RunRange(p10=run.p10_s, p50=run.p50_s, p90=run.p90_s) if run else None,
        gpu_seconds=foreseen.gpu_seconds,
        peak_memory_mb=foreseen.peak_bytes // 2**20 if foreseen.peak_bytes else None,
        cache_gain=foreseen.gain,
        basis=run.basis if run else None,
    )


ENDPOINTS: Final = (estimate,)
