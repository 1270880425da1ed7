"""ServerReplica: a whole server of ours, which Ray Serve starts, places, looks after and ends.

It answers on a port of its own. What comes through Ray's proxy is passed on to it, and costs what
the proxy costs.
"""

from __future__ import annotations

import math
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from forwardpass.errors import ForwardpassError, said
from forwardpass.measuring.clocks import WALL
from forwardpass.serving.gates import is_loopback
from forwardpass.serving.options import ServeOptions
from forwardpass.serving.verb import Server, started
from forwardpass.serving.witnesses import ReadyModel

FULL: Final = 0.7
"""The share of its time that an engine may compute before another replica is wanted: beyond it
requests begin to queue whenever a few come together."""
_LATE: Final = 0.5
"""Of the time that a request may take, what it may wait on average."""
_HOPS: Final = frozenset(
    {"connection", "transfer-encoding", "content-length", "keep-alive", "host"}
)
"""Headers of one connection, which are not passed on."""


class ReplicaRecipe(NamedTuple):
    """What a replica serves, and how it finds it.

    Attributes:
        options: of the server, as JSON. path, folder: where modules are looked for, and references
            begin.
    """

    options: bytes
    path: tuple[str, ...]
    folder: str


class Directory:
    """Where the replicas are, as each has said itself, or why there is none. One actor of a
    deployment."""

    def __init__(self) -> None:
        self._urls: dict[str, str] = {}
        self._models: tuple[ReadyModel, ...] = ()
        self._why_none = ""
        self._owner = ""

    def own(self, owner: str) -> str:
        """Whoever deployed last, in words like no other's, and may end it; who was that before."""
        before, self._owner = self._owner, owner
        return before

    def owner(self) -> str:
        """Whoever deployed last."""
        return self._owner

    def add(self, replica: str, url: str, models: tuple[ReadyModel, ...]) -> None:
        """A replica answers at this URL, for these models."""
        self._urls[replica] = url
        self._models = models

    def remove(self, replica: str) -> None:
        """It does not any more."""
        self._urls.pop(replica, None)

    def fail(self, why: str) -> None:
        """One could not be started."""
        self._why_none = why

    def why_none(self) -> str:
        """Why the last that could not be started could not; empty where none was so. Ray drops what
        it knows of that together with the deployment."""
        return self._why_none

    def models(self) -> tuple[ReadyModel, ...]:
        """As the last replica that answers says."""
        return self._models

    def urls(self) -> dict[str, str]:
        """By replica; of one that was killed nobody has said that it is gone."""
        return dict(self._urls)


class ServerReplica:
    """A deployment of Ray Serve.

    Args:
        directory: an actor, Directory.
    """

    def __init__(self, recipe: ReplicaRecipe, directory: Any) -> None:
        import ray
        from ray import serve

        sys.path.extend(entry for entry in recipe.path if entry not in sys.path)
        if Path(recipe.folder).is_dir():
            os.chdir(recipe.folder)
        options = msgspec.json.decode(recipe.options, type=ServeOptions)
        self._slo_seconds = options.slo_seconds
        try:
            self._server: Server = started(replace(options, port=0))
        except Exception as error:
            own = isinstance(error, ForwardpassError)
            ray.get(directory.fail.remote(str(error) if own else said(error)))
            raise
        self._own = self._server.url
        self._token = options.token
        self._directory, self._name = directory, serve.get_replica_context().replica_id.unique_id
        self._session: Any = None
        self._before: tuple[float, float, float, float] | None = None
        reached = _reached(self._own, options.host)
        ray.get(directory.add.remote(self._name, reached, self._server.models))

    async def __call__(self, request: Any) -> Any:
        """Pass a request of Ray's proxy on to the server, and its reply back as it comes."""
        from starlette.responses import StreamingResponse

        headers = {name: value for name, value in request.headers.items() if name not in _HOPS}
        query = f"?{request.url.query}" if request.url.query else ""
        sent = self._client().request(
            request.method, f"{self._own}{request.url.path}{query}", headers=headers,
            data=await request.body(), allow_redirects=False,
        )  # fmt: skip
        reply = await sent.__aenter__()

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in reply.content.iter_any():
                    yield piece
            finally:
                await sent.__aexit__(None, None, None)

        kept = {name: value for name, value in reply.headers.items() if name.lower() not in _HOPS}
        return StreamingResponse(pieces(), reply.status, kept)

    async def check_health(self) -> None:
        """Raises where its server does not say that every model answers: where that is said
        again and again, Ray starts another replica."""
        async with self._client().get(f"{self._own}/readyz") as reply:
            reply.raise_for_status()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """`busy`: the share of its time that it computed since this was asked before. `late`: how
        long requests waited on average, as a share of the time that they may take."""
        asked = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        async with self._client().get(f"{self._own}/metrics", headers=asked) as reply:
            text = await reply.text()
        told = waited(text)
        now = (WALL.now(), *told)
        before, self._before = self._before or now, now
        seconds, computed, queued, count = (b - a for a, b in zip(before, now, strict=True))
        wait = queued / count if count else 0.0
        return {
            "busy": computed / seconds if seconds else 0.0,
            "late": wait / self._slo_seconds if self._slo_seconds else 0.0,
        }

    def __del__(self) -> None:
        if hasattr(self, "_directory"):
            self._directory.remove.remote(self._name)
        if hasattr(self, "_server"):
            self._server.close()

    def _client(self) -> Any:
        if self._session is None:
            import aiohttp

            # its server has the limits, and the deadlines
            self._session = aiohttp.ClientSession(
                auto_decompress=False, connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(),
            )  # fmt: skip
        return self._session


def waited(metrics: str) -> tuple[float, float, float]:
    """Of what `/metrics` says: seconds that engines computed, seconds that requests waited for
    that, and how many did."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            key = (sample.name, sample.labels.get("stage", ""))
            found[key] = found.get(key, 0.0) + sample.value
    name = "forwardpass_stage_seconds"
    return (
        found.get((f"{name}_sum", "compute"), 0.0),
        found.get((f"{name}_sum", "queue"), 0.0),
        found.get((f"{name}_count", "queue"), 0.0),
    )


def wanted(
    busy: Mapping[Any, float], late: Mapping[Any, float], replicas: int, engines: int
) -> int:
    """How many replicas there should be.

    Args:
        busy: engine-seconds a second, of each replica. late: see `record_autoscaling_stats`.
        engines: of each.
    """
    needed = math.ceil(sum(busy.values()) / (FULL * engines) - 1e-9)
    if max(late.values(), default=0.0) > _LATE:
        needed = max(needed, replicas + 1)
    return max(1, needed)


def scaled(context: Any) -> tuple[int, dict[str, Any]]:
    """The policy by which Ray scales a deployment; it gives all engines of a replica one share."""
    told = context.aggregated_metrics or {}
    count = wanted(
        told.get("busy", {}), told.get("late", {}), context.current_num_replicas, engines=1
    )
    low, high = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
    return min(max(count, low), high), context.policy_state


def _reached(url: str, host: str) -> str:
    """A URL of this machine, as others on its network call it; loopback stays what it is."""
    if is_loopback(host):
        return url
    from ray.util import get_node_ip_address

    address = get_node_ip_address() or socket.gethostname()
    return f"{urlsplit(url).scheme}://{address}:{urlsplit(url).port}"
