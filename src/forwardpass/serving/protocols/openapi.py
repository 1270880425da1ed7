"""`/openapi.json`, from the signatures of the models; `/docs`, a page to read and to try."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import msgspec

from forwardpass.nouns.folders import plugins
from forwardpass.serving import protocols
from forwardpass.serving.asking import Service
from forwardpass.serving.exchanges import Exchange, Reply, Route
from forwardpass.serving.options import ServeOptions

_REFERENCE = "#/components/schemas/{name}"


def routes(services: Mapping[str, Service], options: ServeOptions) -> Sequence[Route]:
    """The document, the page, and the way to it."""

    async def document(exchange: Exchange) -> Reply:
        return Reply(200, msgspec.json.encode(described(services, options)))

    async def page(exchange: Exchange) -> Reply:
        html, policy = _page()
        told = {
            b"content-security-policy": policy,
            b"x-content-type-options": b"nosniff",
            b"referrer-policy": b"no-referrer",
        }
        return Reply(200, html, b"text/html; charset=utf-8", list(told.items()))

    async def home(exchange: Exchange) -> Reply:
        return Reply(303, b"", b"text/plain", [(b"location", b"/docs")])

    return [
        Route("GET", "/openapi.json", document),
        Route("GET", "/docs", page, open=True),  # it holds nothing, and asks for the token
        Route("GET", "/", home, open=True),
    ]


def described(services: Mapping[str, Service], options: ServeOptions) -> dict[str, Any]:
    """The OpenAPI 3.1 document: what each protocol says of its paths."""
    paths: dict[str, Any] = {}
    for protocol in plugins(protocols).values():
        if hasattr(protocol, "paths"):
            paths |= protocol.paths(services, options)
    types = list(dict.fromkeys(_types(paths)))
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    whole: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": ", ".join(services), "version": version("forwardpass")},
        "paths": _filled(paths, dict(zip(types, schemas, strict=True))),
        "components": {"schemas": components},
    }
    if options.token is not None:
        whole["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        whole["security"] = [{"token": []}]
    return whole


def _types(value: Any) -> Iterator[Any]:
    """The types that stand where a schema does."""
    if isinstance(value, list):
        for one in cast("list[Any]", value):
            yield from _types(one)
    elif isinstance(value, dict):
        for name, one in cast("dict[str, Any]", value).items():
            if name == "schema" and not isinstance(one, dict):
                yield one
            else:
                yield from _types(one)


def _filled(value: Any, schemas: Mapping[Any, Any]) -> Any:
    """The same with schemas in place of types."""
    if isinstance(value, list):
        return [_filled(one, schemas) for one in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    return {
        name: schemas[one]
        if name == "schema" and not isinstance(one, dict)
        else _filled(one, schemas)
        for name, one in cast("dict[str, Any]", value).items()
    }


@cache
def _page() -> tuple[bytes, bytes]:
    """The page, and a policy by which it runs its own script and style, and nothing else."""
    html = (Path(__file__).parent / "docs.html").read_text(encoding="utf-8")
    sums = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in re.findall(r"<(style|script)>(.*?)</\1>", html, re.DOTALL)
    }
    policy = (
        f"default-src 'none'; style-src 'sha256-{sums['style']}'; "
        f"script-src 'sha256-{sums['script']}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html.encode(), policy.encode()
