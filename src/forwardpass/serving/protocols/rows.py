"""`POST /models/{name}`: rows as JSON; `GET /models`, `GET /models/{name}`: what is served."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from forwardpass.errors import nearest
from forwardpass.serving.asking import Inquiry, Service
from forwardpass.serving.exchanges import Exchange, RefusedError, Reply, Route
from forwardpass.serving.json_rows import AskedRows, JsonRows
from forwardpass.serving.large_bodies import envelopes, read_rows
from forwardpass.serving.messages import About
from forwardpass.serving.options import ServeOptions
from forwardpass.serving.schemas import answer, operation
from forwardpass.serving.wording import for_clients

Served = TypeVar("Served")


def routes(services: Mapping[str, Service], options: ServeOptions) -> Sequence[Route]:
    """The three of them."""
    readers = {name: _Readable(service) for name, service in services.items()}
    most = options.limits.request_rows
    envelopes(most)

    async def ask(exchange: Exchange) -> Reply:
        reader = chosen(readers, exchange.parts["name"])
        asked = await read_rows(reader.rows(), exchange, most)
        if not asked.count:
            return Reply(200, b'{"rows":[]}')
        answered = await reader.service.ask(inquiry(asked, exchange))
        told = b'{"rows":[%b]' % b",".join(answered.rows)
        if answered.truncated:
            told += b',"truncated":' + msgspec.json.encode(answered.truncated)
        return Reply(200, told + b"}")

    async def listed(exchange: Exchange) -> Reply:
        told = [_told(service) for service in services.values()]
        return Reply(200, msgspec.json.encode({"models": told}))

    async def described(exchange: Exchange) -> Reply:
        service = chosen(services, exchange.parts["name"])
        return Reply(200, msgspec.json.encode(_told(service)))

    return [
        Route("POST", "/models/{name}", ask),
        Route("GET", "/models", listed),
        Route("GET", "/models/{name}", described),
    ]


def paths(services: Mapping[str, Service], options: ServeOptions) -> Mapping[str, Any]:
    """A path for each model, whose schema is its signature."""
    found: dict[str, Any] = {"/models": {"get": operation("What is served", dict[str, Any])}}
    for place, service in enumerate(services.values()):
        about, summary = service.about, f"Rows through {service.name}"
        title = re.sub(r"[^\w.-]", "_", service.name, flags=re.ASCII) + f".{place}"
        body: Any = msgspec.defstruct(title, [("rows", list[Any])])
        row: Any = dict[str, Any]
        example = None
        if about is not None:
            summary += f": {for_clients(about.forward)}"
            body, row = JsonRows(about, title).body, answer(about, f"{title}.answer")
            example = {"rows": [msgspec.Raw(about.example.encode())]} if about.example else None
        answers = msgspec.defstruct(
            f"{title}.answers", [("rows", list[row]), ("truncated", list[int], [])]
        )
        found[f"/models/{quote(service.name, safe='')}"] = {
            "post": operation(summary, answers, body, example),
            "get": operation(f"What {service.name} is", dict[str, Any]),
        }
    return found


def chosen(services: Mapping[str, Served], name: str) -> Served:
    """What is served under a name. Raises RefusedError, 404."""
    found = services.get(name)
    if found is None:
        raise RefusedError(404, f"no model {name[:80]!r} is served; {nearest(name, services)}")
    return found


def ready(service: Service) -> About:
    """What the engine of a service says of itself. Raises RefusedError, 503, until it has."""
    if service.about is None:
        said = f"{service.name} is not ready yet: it is loaded and warmed up"
        raise RefusedError(503, said, reason="loading", retry_after=1.0)
    return service.about


def inquiry(asked: AskedRows, exchange: Exchange) -> Inquiry:
    """Rows that are answered as JSON."""
    return Inquiry(
        asked.count, asked.values, asked.arrays, True, asked.bytes, exchange,
        asked.timeout_seconds, asked.priority,
    )  # fmt: skip


class _Readable:
    """A service, and how its rows are read, which is made anew when its engine is."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._about: About | None = None
        self._rows: JsonRows | None = None

    def rows(self) -> JsonRows:
        about = ready(self.service)
        if self._rows is None or about is not self._about:
            self._about, self._rows = about, JsonRows(about)
        return self._rows


def _told(service: Service) -> dict[str, Any]:
    """What is said of a model to people."""
    told: dict[str, Any] = {"name": service.name, "ready": service.ready}
    about = service.about
    if about is not None:
        told |= {
            "forward": for_clients(about.forward), "digest": about.digest, "device": about.device,
            "inputs": about.inputs, "outputs": about.outputs, "columns": about.columns,
            "encodes": about.encodes, "decodes": about.decodes,
            "padding": about.padding, "samples": for_clients(about.samples),
            "tolerance": about.tolerance, "mates": about.mates,
            "example": msgspec.Raw(about.example.encode() or b"null"),
        }  # fmt: skip
    return told
