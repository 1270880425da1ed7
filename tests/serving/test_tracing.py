"""Traces, as a collector of OpenTelemetry receives them."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import forwardpass as fwd

MODEL = """
import time

from torch import nn

import forwardpass as fwd


class Slow(nn.Module):
    def forward(self, x):
        time.sleep(0.05)
        return 2 * x


model = fwd.Model(Slow(), "x: f64[batch]")
"""

pytestmark = pytest.mark.timeout(180)


class Collector(ThreadingHTTPServer):
    """Keeps the spans that come."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        super().__init__(("127.0.0.1", 0), Collecting)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Collecting(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.path == "/v1/traces"
        server: Any = self.server
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for attribute in resource.resource.attributes:
                if attribute.key == "service.name":
                    server.services.add(attribute.value.string_value)
            for scope in resource.scope_spans:
                server.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_request_is_a_span_of_its_callers_trace_with_what_it_waited_for(
    tmp_path: Path, collector: Collector
) -> None:
    file = tmp_path / "slow.py"
    file.write_text(MODEL)
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    before = time.time()
    with fwd.serve(str(file), port=0, otlp=collector.url, access_log=False) as server:
        url = f"{server.url}/models/slow"
        headers = {"traceparent": f"00-{trace}-{parent}-01", "x-request-id": "mine"}
        assert httpx.post(url, json={"rows": [1.5]}, headers=headers, timeout=30).status_code == 200
        assert httpx.post(url, json={"rows": "none"}, timeout=30).status_code == 400
    after = time.time()
    spans = {span.name: span for span in collector.spans if span.trace_id.hex() == trace}
    assert set(spans) == {"POST /models/slow", "queue", "compute"}
    request, queue, compute = (spans[name] for name in ("POST /models/slow", "queue", "compute"))
    assert request.parent_span_id.hex() == parent
    assert queue.parent_span_id == compute.parent_span_id == request.span_id
    assert compute.end_time_unix_nano - compute.start_time_unix_nano >= 0.05e9
    times = [request.start_time_unix_nano, queue.end_time_unix_nano, compute.end_time_unix_nano]
    assert before * 1e9 - 1e6 <= times[0] <= times[1] <= times[2] <= after * 1e9 + 1e6
    said = {one.key: one.value for one in request.attributes}
    assert said["forwardpass.request_id"].string_value == "mine"
    assert said["forwardpass.model"].string_value == "slow"
    assert said["http.response.status_code"].int_value == 200
    (refused,) = [span for span in collector.spans if not span.parent_span_id]
    status = next(a for a in refused.attributes if a.key == "http.response.status_code")
    assert status.value.int_value == 400
    assert collector.services == {"forwardpass"}


def test_where_no_collector_answers_requests_are_answered(tmp_path: Path) -> None:
    file = tmp_path / "slow.py"
    file.write_text(MODEL)
    with fwd.serve(str(file), port=0, otlp="http://127.0.0.1:9", access_log=False) as server:
        url = f"{server.url}/models/slow"
        assert httpx.post(url, json={"rows": [1.5]}, timeout=30).json()["rows"]


@pytest.mark.parametrize("listens", [False, True])
def test_a_collector_that_does_not_answer_does_not_keep_a_server_from_its_end(
    tmp_path: Path, listens: bool
) -> None:
    file = tmp_path / "slow.py"
    file.write_text(MODEL)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1] if listens else 9}"
        with fwd.serve(str(file), port=0, otlp=url, access_log=False) as server:
            asked = httpx.post(f"{server.url}/models/slow", json={"rows": [1.5]}, timeout=30)
            assert asked.status_code == 200
            before = time.monotonic()
        assert time.monotonic() - before < 4


def test_a_url_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "slow.py"
    file.write_text(MODEL)
    with pytest.raises(fwd.errors.UsageError, match="--otlp localhost"):
        fwd.serve(str(file), port=0, otlp="localhost:4318")
