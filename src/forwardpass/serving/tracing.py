"""Tracing: a span of OpenTelemetry for each request, sent to a collector.

What a request waited for is known when it is answered: its spans are made then, with the times that
they had, and a thread of OpenTelemetry's sends them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from threading import Thread
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from forwardpass.measuring.clocks import WALL
from forwardpass.serving.exchanges import Exchange

_CONTEXT: Final = TraceContextTextMapPropagator()


class Tracing:
    """Where traces go.

    Which requests are traced, the caller's `traceparent` says, else OTEL_TRACES_SAMPLER; what this
    service is called, OTEL_SERVICE_NAME.

    Args:
        url: of a collector that speaks OTLP over HTTP; without a path, `/v1/traces` of it.
    """

    def __init__(self, url: str) -> None:
        endpoint = url if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}/v1/traces"
        name = os.environ.get("OTEL_SERVICE_NAME", "forwardpass")
        self._provider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("forwardpass.serving")

    def add(self, exchange: Exchange, status: int) -> None:
        """A request was answered now: a span of it, and of what it did. `queue`: until its last row
        went to the engine, encoding included; `compute`: from then on."""
        now, date = WALL.now(), datetime.now(UTC).timestamp()  # one instant, by both clocks

        def at(moment: float) -> int:
            return int((date - (now - moment)) * 1e9)

        carrier = {"traceparent": exchange.headers.get(b"traceparent", b"").decode("latin-1")}
        attributes: dict[str, Any] = {
            "http.request.method": exchange.method, "url.path": exchange.path,
            "http.response.status_code": status, "http.request.body.size": len(exchange.body),
            "forwardpass.request_id": exchange.id,
        }  # fmt: skip
        if exchange.model:
            attributes["forwardpass.model"] = exchange.model
        span = self._tracer.start_span(
            f"{exchange.method} {exchange.path}", _CONTEXT.extract(carrier),
            trace.SpanKind.SERVER, attributes, start_time=at(exchange.arrived),
        )  # fmt: skip
        if exchange.dispatched is not None:
            inside = trace.set_span_in_context(span)
            spans: Mapping[str, tuple[float, float]] = {
                "queue": (exchange.arrived, exchange.dispatched),
                "compute": (exchange.dispatched, now),
            }
            for name, (began, ended) in spans.items():
                part = self._tracer.start_span(name, inside, start_time=at(began))
                part.end(at(ended))
        if status >= 500:
            span.set_status(trace.StatusCode.ERROR)
        span.end(at(now))

    def close(self, seconds: float = 1.0) -> None:
        """Send what there is, and wait for it no longer than that: a collector that is down, or
        does not answer, is tried for many seconds."""
        closing = Thread(target=self._provider.shutdown, name="tracing", daemon=True)
        closing.start()
        closing.join(seconds)
