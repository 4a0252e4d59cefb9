"""Spans of API and worker, as a collector receives them."""

import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shared.jobs import keys
from shared.vocabulary.ids import number_of
from tests.farm.conftest import CAMERA
from tests.farm.test_openai import answers

OURS = "4bf92f3577b34da6a3ce929d0e0e4736"
SENT = '{"prompt": "a ball", "model": "wan-tiny-t2v", "size": "64x64", "frames": 5, "steps": 2}'


class Collector(BaseHTTPRequestHandler):
    """Takes OTLP over HTTP."""

    heard: list

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        body = self.rfile.read(int(self.headers["Content-Length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            (service,) = (
                one.value.string_value
                for one in resource.resource.attributes
                if one.key == "service.name"
            )
            for scope in resource.scope_spans:
                type(self).heard.extend((service, span) for span in scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[tuple[str, list]]:
    heard: list = []
    served = type("Served", (Collector,), {"heard": heard})
    server = ThreadingHTTPServer(("127.0.0.1", 0), served)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", heard
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_a_video_has_one_trace_from_request_to_file(house, collector, eventually):
    url, heard = collector
    _, key = keys.create(house.farm, "traced", "submit")
    farm = house.serve(traces_url=url)
    house.start(engine=CAMERA, traces_url=url)
    eventually(lambda: answers(farm), within=60)
    request = urllib.request.Request(
        f"{farm}/v1/videos?wait=60",
        SENT.encode(),
        {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "traceparent": f"00-{OURS}-00f067aa0ba902b7-01",
        },
    )

    with urllib.request.urlopen(request, timeout=90) as answer:
        video_id = answer.headers["Location"].rpartition("/")[2]
    for process in house.workers:
        process.leave()

    spans = {span.name: (service, span) for service, span in heard}
    service, video = spans["video"]
    assert (service, video.parent_span_id) == ("wanfarm-worker", b"")
    assert int.from_bytes(video.trace_id, "big") == number_of(video_id)
    _, attempt = spans["attempt 1"]
    assert (attempt.trace_id, attempt.parent_span_id) == (video.trace_id, video.span_id)
    for phase in ("encode", "store"):
        _, span = spans[phase]
        assert (span.trace_id, span.parent_span_id) == (video.trace_id, attempt.span_id)
        assert attempt.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= attempt.end_time_unix_nano
    service, asked = spans["POST /v1/videos"]
    assert (service, asked.trace_id.hex()) == ("wanfarm-api", OURS)
    assert [link.span_id for link in asked.links] == [video.span_id]
