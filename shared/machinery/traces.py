"""Spans for OpenTelemetry, where WANFARM_TRACES_URL names a collector; else nothing is kept.

The trace of a video has the number that its id spells: no process has to hand it to another, and
whoever knows the id finds the trace. Spans that others are below have numbers made from names.
"""

import hashlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shared.machinery.settings import ConfigurationError, Settings
from shared.vocabulary.ids import number_of

Attributes = Mapping[str, str | int | float]
_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of a video's life, in unix seconds."""

    name: str
    began: float
    ended: float
    video_id: str
    own: str | None = None  # the name that others know it by
    parent: str | None = None  # such a name
    fault: str | None = None
    attributes: Attributes = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that was answered, in unix seconds."""

    name: str
    began: float
    ended: float
    headers: Iterable[tuple[str, str]]  # a client's own trace goes on by its `traceparent`
    video_id: str | None  # whose trace it leads to
    attributes: Attributes


class Traces:
    """Where a process leaves its spans; this one forgets them."""

    def add(self, span: Span) -> None:
        """Take a part of a video's life."""

    def asked(self, asked: Asked) -> None:
        """Take a request."""

    def close(self) -> None:
        """Send what has not been sent."""


def open_traces(settings: Settings, service: str) -> Traces:
    """Choose where spans go; sends them from a thread of its own.

    Args:
        settings: name the collector.
        service: what this process is.

    Raises:
        ConfigurationError: when there is a collector and OpenTelemetry is not installed.
    """
    if settings.traces_url is None:
        return Traces()
    try:
        return _Sent(settings.traces_url, service)
    except ModuleNotFoundError as err:
        raise ConfigurationError(
            f"WANFARM_TRACES_URL is set and {err.name} is not installed. Install wanfarm[otel]."
        ) from err


class _Sent(Traces):
    """Sends spans to a collector by OTLP over HTTP, many at a time."""

    def __init__(self, url: str, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._numbers = _numbers()
        self._provider = TracerProvider(
            resource=Resource({"service.name": f"wanfarm-{service}"}), id_generator=self._numbers
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
        self._tracer = self._provider.get_tracer("wanfarm")

    def add(self, span: Span) -> None:
        from opentelemetry.trace import StatusCode

        context = None if span.parent is None else _below(span.video_id, span.parent)
        trace, own = number_of(span.video_id), span.own and _number(span.own)
        with self._numbers.next_are(trace, own):
            made = self._tracer.start_span(
                span.name,
                context=context,
                start_time=_ns(span.began),
                attributes={"video.id": span.video_id, **span.attributes},
            )
        if span.fault:
            made.set_status(StatusCode.ERROR, span.fault)
        made.end(_ns(span.ended))

    def asked(self, asked: Asked) -> None:
        from opentelemetry.trace import Link, SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        headers = {name.lower(): value for name, value in asked.headers}
        led = [] if asked.video_id is None else [Link(_place(asked.video_id, asked.video_id))]
        made = self._tracer.start_span(
            asked.name,
            context=TraceContextTextMapPropagator().extract(headers),
            kind=SpanKind.SERVER,
            links=led,
            start_time=_ns(asked.began),
            attributes=dict(asked.attributes),
        )
        made.end(_ns(asked.ended))

    def close(self) -> None:
        self._provider.shutdown()


def _numbers() -> Any:  # noqa: ANN401 - its base is imported when there is a collector
    from contextlib import contextmanager

    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Numbers(RandomIdGenerator):
        """Random numbers, except where the next are said."""

        def __init__(self) -> None:
            self._next = threading.local()

        @contextmanager
        def next_are(self, trace: int, span: int | None):  # noqa: ANN202
            self._next.trace, self._next.span = trace, span
            try:
                yield
            finally:
                self._next.trace = self._next.span = None

        def generate_trace_id(self) -> int:
            return getattr(self._next, "trace", None) or super().generate_trace_id()

        def generate_span_id(self) -> int:
            return getattr(self._next, "span", None) or super().generate_span_id()

    return Numbers()


def _place(video_id: str, name: str) -> Any:  # noqa: ANN401
    from opentelemetry.trace import SpanContext, TraceFlags

    sampled = TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(number_of(video_id), _number(name), is_remote=True, trace_flags=sampled)


def _below(video_id: str, parent: str) -> Any:  # noqa: ANN401
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    return set_span_in_context(NonRecordingSpan(_place(video_id, parent)))


def _number(name: str) -> int:
    """Make a span's number from its name, 64 bits of which none but 0 is refused."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") or 1


def _ns(seconds: float) -> int:
    return int(seconds * _PER_S)
