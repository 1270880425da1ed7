"""GET /metrics, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client.exposition import choose_encoder

from forwardpass.serving.asking import Service
from forwardpass.serving.exchanges import Exchange, Reply, Route
from forwardpass.serving.gauges import REGISTRY
from forwardpass.serving.options import ServeOptions


def routes(services: Mapping[str, Service], options: ServeOptions) -> Sequence[Route]:
    """The one route; it shows all models of the process."""
    del services, options

    async def metrics(exchange: Exchange) -> Reply:
        accept = exchange.headers.get(b"accept", b"").decode("latin-1")
        encoder, content_type = choose_encoder(accept)
        return Reply(200, encoder(REGISTRY), content_type.encode())

    return [Route("GET", "/metrics", metrics)]
