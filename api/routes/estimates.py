"""What a request would come to, before it is sent."""

from collections.abc import Iterable, Iterator
from typing import Final

from flask import Response

from api.plumbing import asking, batching
from api.plumbing.batching import BatchRequest
from api.plumbing.foreseen import BatchEstimate, BatchItemEstimate, RunRange, VideoEstimate
from api.plumbing.registry import Call, NoQuery, Route, endpoint
from api.plumbing.runtime import farm
from api.plumbing.wire import json_response
from shared.jobs.batches import Member, telling_where
from shared.jobs.forecast import Forecast, forecast, forecasts
from shared.jobs.ledger import Values
from shared.vocabulary.request import VideoRequest
from shared.vocabulary.spec import GenerationSpec
from shared.vocabulary.video import Warned

REFUSALS: Final = ("invalid_value", "image_too_large", "priority_not_allowed", "does_not_fit")


@endpoint(
    Route(
        method="POST",
        path="/v1/videos/estimate",
        scope="submit",
        summary="Foresee a video: its time, its memory, its place.",
        query=NoQuery,
        body=VideoRequest,
        returns=VideoEstimate,
        errors=REFUSALS,
    )
)
def estimate(call: Call[NoQuery]) -> Response:
    """Check a request as if it were sent, and tell what would become of it; nothing is stored."""
    sent = asking.read_sent(farm(), VideoRequest, call.caller)
    resolved = asking.settle(farm(), sent.fields, sent.image.ref if sent.image else None)
    foreseen = forecast(farm(), resolved.spec, resolved.delivery)
    return json_response(VideoEstimate(**show(resolved.spec, resolved.warnings, foreseen)))


@endpoint(
    Route(
        method="POST",
        path="/v1/batches/estimate",
        scope="submit",
        summary="Foresee a batch: each of its videos, and their sums.",
        query=NoQuery,
        body=BatchRequest,
        returns=BatchEstimate,
        errors=(*REFUSALS, "unsupported_feature"),
    )
)
def estimate_batch(call: Call[NoQuery]) -> Response:
    """Check a batch as if it were sent, and tell what would become of it; nothing is stored."""
    order, _ = batching.read(farm(), call.caller)
    wanted = [(member.order.spec, member.order.delivery) for member in order.members]
    ahead = forecasts(farm(), wanted)
    data = [_member(member, ahead) for member in order.members]
    costs, ends = [one.gpu_seconds for one in data], [one.completes_at for one in data]
    return json_response(
        BatchEstimate(
            total=len(data),
            gpu_seconds=sum(cost or 0 for cost in costs) if all(costs) else None,
            completes_at=max(end or 0 for end in ends) if all(ends) else None,
            data=data,
        )
    )


def _member(member: Member, ahead: Iterator[Forecast]) -> BatchItemEstimate:
    """Foresee the next video, or say where the batch has what makes it too large."""
    with telling_where(member):
        foreseen = next(ahead)
    order = member.order
    return BatchItemEstimate(set=member.differs, **show(order.spec, order.warnings, foreseen))


def show(spec: GenerationSpec, warnings: Iterable[Values], foreseen: Forecast) -> Values:
    """Put a forecast into the fields of the wire."""
    run, starts = foreseen.run, foreseen.starts_at
    told = spec.model_dump(mode="json")
    return {
        "model": told["model"],
        "prompt": told.pop("prompt"),
        "spec": told,
        "warnings": [Warned.model_validate(one) for one in warnings],
        "fits": foreseen.fits,
        "queue_position": foreseen.place,
        "starts_at": None if starts is None else int(starts),
        "completes_at": int(starts + run.p50_s) if starts is not None and run else None,
        "run_s": RunRange(p10=run.p10_s, p50=run.p50_s, p90=run.p90_s) if run else None,
        "gpu_seconds": foreseen.gpu_seconds,
        "peak_memory_mb": foreseen.peak_bytes // 2**20 if foreseen.peak_bytes else None,
        "cache_gain": foreseen.gain,
        "basis": run.basis if run else None,
    }


ENDPOINTS: Final = (estimate, estimate_batch)
