"""`/healthz`: this process lives. `/readyz`: every model answers now. Both are told to anyone, so
neither names a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from forwardpass.serving.asking import Service
from forwardpass.serving.exchanges import Exchange, Reply, Route
from forwardpass.serving.options import ServeOptions
from forwardpass.serving.schemas import operation


def routes(services: Mapping[str, Service], options: ServeOptions) -> Sequence[Route]:
    """Both, for the probes of Kubernetes and the like."""

    async def live(exchange: Exchange) -> Reply:
        return Reply(200, b'{"live":true}')

    async def ready(exchange: Exchange) -> Reply:
        every = all(service.ready for service in services.values())
        return Reply(200 if every else 503, msgspec.json.encode({"ready": every}))

    return [
        Route("GET", "/healthz", live, open=True),
        Route("GET", "/readyz", ready, open=True),
    ]


def paths(services: Mapping[str, Service], options: ServeOptions) -> Mapping[str, Any]:
    """Both."""
    told = dict[str, Any]
    return {
        "/healthz": {"get": operation("Whether this process lives", told)},
        "/readyz": {"get": operation("Whether every model answers", told, refusal=told)},
    }
