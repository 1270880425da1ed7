"""A Service and Exchanges that need no process: what a protocol asks is kept, and answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import msgspec

from forwardpass.nouns.costs import CostPoint, CostTable
from forwardpass.serving.applications import Application
from forwardpass.serving.asking import Answered, Inquiry
from forwardpass.serving.exchanges import Exchange, Reply
from forwardpass.serving.messages import About
from forwardpass.serving.options import RequestLimits, ServeOptions


def about(*inputs: str, outputs: Sequence[str] = ("output: f32[batch 4]",), **more: Any) -> About:
    """What an engine says of a model with these inputs; `encodes=True` for one that encodes."""
    given: dict[str, Any] = {
        "forward": "here.py | cast(bf16) @ eager", "digest": "0" * 64, "encodes": False,
        "tensors": True, "columns": (), "decodes": False, "axes": (), "paddable": (),
        "padding": "rows have one shape", "costs": CostTable((CostPoint(1, {}, 1, 0.001),)),
        "samples": "64 rows of here.jsonl", "tolerance": 1e-5, "device": "cpu",
    }  # fmt: skip
    return About(inputs=inputs, outputs=tuple(outputs), **{**given, **more})


def zeros(asked: Inquiry) -> Answered:
    """0 for each row."""
    return Answered([b'{"output":0}'] * asked.count, {}, [])


class StandIn:
    """A Service that answers by a function, and keeps what it was asked."""

    def __init__(
        self,
        about: About | None,
        answer: Callable[[Inquiry], Answered] | None = None,
        name: str = "mlp",
    ) -> None:
        self.name, self.about, self.ready = name, about, about is not None
        self.asked: list[Inquiry] = []
        self._answer = answer or zeros

    async def ask(self, inquiry: Inquiry) -> Answered:
        self.asked.append(inquiry)
        return self._answer(inquiry)


def options(**limits: int) -> ServeOptions:
    return ServeOptions(models=(), limits=RequestLimits(**limits))


def exchange(
    method: str, path: str, body: bytes = b"", headers: Mapping[bytes, bytes] | None = None,
    parts: Mapping[str, str] | None = None,
) -> Exchange:  # fmt: skip
    return Exchange(method, path, b"", parts or {}, headers or {}, body, "id", 0.0)


def answered(
    protocol: ModuleType,
    services: Sequence[StandIn],
    method: str,
    path: str,
    body: Any = b"",
    headers: Mapping[bytes, bytes] | None = None,
    **limits: int,
) -> tuple[int, Any]:
    """Status and JSON that a protocol answers; a refusal in its own words, or those of all."""
    sent = body if isinstance(body, bytes) else msgspec.json.encode(body)
    reply = replied(protocol, services, method, path, sent, headers, **limits)
    whole = b"".join(reply.body) if isinstance(reply.body, list) else reply.body
    return reply.status, msgspec.json.decode(whole)


def replied(
    protocol: ModuleType,
    services: Sequence[StandIn],
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[bytes, bytes] | None = None,
    **limits: int,
) -> Reply:
    """The Reply itself."""
    application = Application({s.name: s for s in services}, options(**limits), [protocol])
    given = {b"host": b"localhost", **(headers or {})}
    way = application.admit(method, path.encode("ascii"), given)
    asked = exchange(method, way.path, body, given, way.parts)
    return asyncio.run(application.answer(way, asked))
