"""WatchedServer: what a server on this machine says of its batches and its queue, as it is now."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from forwardpass.errors import UsageError
from forwardpass.serving.gates import is_loopback

_PATIENCE_SECONDS: Final = 1.0
_MOST_BYTES: Final = 1 << 22
_MODEL: Final = "model"


class BatchCount(msgspec.Struct, frozen=True):
    """How many batches had at most `rows` rows and more than the size before; None: no bound."""

    rows: int | None
    batches: int


class ModelNow(msgspec.Struct, frozen=True):
    """One model of a server.

    Attributes:
        ready: whether it has an engine that computes.
        queue_rows, queue_bytes: that wait now.
        requests: answered. request_seconds: from arrival to answer, the mean of all; None of none.
        batches: by their rows. rows: that were computed.
        padding: share of the cells that was padding, 0 to 1; None where nothing was computed.
        misses: deadlines that were missed. refused: requests that were, by reason.
        deaths: of its engine processes.
    """

    name: str
    ready: bool
    queue_rows: int
    queue_bytes: int
    requests: int
    request_seconds: float | None
    batches: tuple[BatchCount, ...]
    rows: int
    padding: float | None
    misses: int
    refused: dict[str, int]
    deaths: int


class ServerNow(msgspec.Struct, frozen=True):
    """What a server said; `failed` is why it said nothing."""

    url: str
    models: tuple[ModelNow, ...]
    failed: str = ""


@dataclass(frozen=True)
class WatchedServer:
    """A server of `fwd serve` on this machine.

    Attributes:
        url: as it was given. host, port: of it. token: that its requests bear, if it wants one.
    """

    url: str
    host: str
    port: int
    token: str | None = None

    @classmethod
    def at(cls, url: str, token: str | None = None) -> Self:
        """Raises UsageError for what is no http address of this machine."""
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            host, port = parts.hostname or "", parts.port or 80
        except ValueError as error:
            raise UsageError(f"--server {url}: {error}") from None
        if parts.scheme != "http" or not is_loopback(host):
            raise UsageError(
                f"--server {url}: it takes the address of a server on this machine, such as "
                "http://127.0.0.1:8000"
            )
        return cls(url, host, port, token)

    def now(self) -> ServerNow:
        """Ask it once."""
        link = http.client.HTTPConnection(self.host, self.port, timeout=_PATIENCE_SECONDS)
        headers = {} if self.token is None else {"authorization": f"Bearer {self.token}"}
        try:
            link.request("GET", "/metrics", headers=headers)
            reply = link.getresponse()
            body = reply.read(_MOST_BYTES)
            if reply.status != 200:
                wanted = ": it wants its token, in FORWARDPASS_TOKEN" * (reply.status == 401)
                return ServerNow(self.url, (), f"it answered /metrics with {reply.status}{wanted}")
            families = text_string_to_metric_families(body.decode())
            samples = [sample for family in families for sample in family.samples]
            return ServerNow(self.url, tuple(_models(samples)))
        except (OSError, http.client.HTTPException) as error:
            return ServerNow(self.url, (), f"no server answers there: {error}")
        except ValueError as error:
            return ServerNow(self.url, (), f"what it says is no page of metrics: {error}")
        finally:
            link.close()


class _Numbers:
    """The samples of one model."""

    def __init__(self, samples: Sequence[Sample], model: str) -> None:
        self._samples = [one for one in samples if one.labels.get(_MODEL) == model]

    def samples(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """Those of one name, with their labels."""
        for one in self._samples:
            if one.name == f"forwardpass_{name}":
                yield one.labels, one.value

    def total(self, name: str, **labels: str) -> float:
        """Their sum, of those with these labels."""
        found = self.samples(name)
        return sum(value for said, value in found if labels.items() <= said.items())


def _models(samples: Sequence[Sample]) -> Iterator[ModelNow]:
    for sample in samples:
        if sample.name != "forwardpass_ready":
            continue
        name = sample.labels.get(_MODEL, "")
        numbers = _Numbers(samples, name)
        requests = numbers.total("request_seconds_count")
        spent = numbers.total("request_seconds_sum")
        real = numbers.total("cells_total", kind="real")
        padding = numbers.total("cells_total", kind="padding")
        yield ModelNow(
            name=name,
            ready=bool(sample.value),
            queue_rows=int(numbers.total("queue_rows")),
            queue_bytes=int(numbers.total("queue_bytes")),
            requests=int(requests),
            request_seconds=spent / requests if requests else None,
            batches=tuple(_batches(numbers)),
            rows=int(numbers.total("rows_total", fate="executed")),
            padding=padding / (real + padding) if real + padding else None,
            misses=int(numbers.total("deadline_misses_total")),
            refused={
                labels["reason"]: int(value)
                for labels, value in numbers.samples("refused_total") if value
            },
            deaths=int(numbers.total("engine_deaths_total")),
        )  # fmt: skip


def _batches(numbers: _Numbers) -> Iterator[BatchCount]:
    """The buckets, which count what is at most so large, taken apart."""
    before = 0
    buckets = [(float(labels["le"]), int(value))
               for labels, value in numbers.samples("batch_rows_bucket")]  # fmt: skip
    for rows, value in sorted(buckets):
        if value > before:
            yield BatchCount(None if rows == float("inf") else int(rows), value - before)
        before = value
