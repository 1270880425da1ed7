"""Requests at given moments, whether or not the ones before are answered: what users do.

Latency counts from the moment at which a request was to be sent, so that neither a slow server nor
a busy client makes it look better.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop
from hdrh.histogram import HdrHistogram

from forwardpass.measuring.clocks import WALL

PATIENCE = 10.0
"""Seconds after the last request, by which all must be answered."""


def moments(rate: float, number: int, bursty: bool, seed: int) -> Iterator[float]:
    """Seconds of arrivals, Poisson; bursty: at 1.75 and 0.25 times the rate, in turns of a second
    on average."""
    chance = random.Random(seed)
    now, until, high = 0.0, math.inf, False
    if bursty:
        until = chance.expovariate(1.0)
    for _ in range(number):
        pace = rate * ((1.75 if high else 0.25) if bursty else 1.0)
        now += chance.expovariate(pace)
        while now > until:
            # What is left of the wait goes on at the other rate.
            left = (now - until) * pace
            high = not high
            pace = rate * (1.75 if high else 0.25)
            now = until + left / pace
            until += chance.expovariate(1.0)
        yield now


@dataclass
class Heard:
    """What came of a load.

    Attributes:
        offered, sent: requests; fewer are sent where too many were late to go on.
        good: of these answered with 200 within the SLO.
        statuses: how often each came; 0: no answer.
        latencies: of answers with 200, in microseconds.
        behind: seconds by which requests were sent late, at most: the client kept up if small.
        seconds: from the first to the last.
    """

    offered: int
    sent: int = 0
    good: int = 0
    statuses: dict[int, int] = field(default_factory=dict[int, int])
    latencies: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, 600_000_000, 3))
    behind: float = 0.0
    seconds: float = 0.0

    def milliseconds(self, percentile: float) -> float:
        """Of answers with 200."""
        return self.latencies.get_value_at_percentile(percentile) / 1e3


class _Connection(asyncio.Protocol):
    """One request at a time; the answer is its status."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[int] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._kept_alive = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes) -> asyncio.Future[int]:
        assert self.transport is not None
        self.answer = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self.transport.write(request)
        return self.answer

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._kept_alive = self._parser.should_keep_alive()  # which says so only now
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(self._parser.get_status_code())

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(0)

    @property
    def usable(self) -> bool:
        return self.transport is not None and not self.transport.is_closing() and self._kept_alive

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


def request(url: str, body: bytes) -> bytes:
    """An HTTP/1.1 POST of JSON."""
    to = urlsplit(url)
    head = (
        f"POST {to.path} HTTP/1.1\r\nHost: {to.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _address(url: str) -> tuple[str, int]:
    to = urlsplit(url)
    return to.hostname or "127.0.0.1", to.port or 80


def fire(
    url: str, bodies: Sequence[bytes], at: Sequence[float], slo: float, *,
    bad_share: float = math.inf,
) -> Heard:  # fmt: skip
    """Send a request at each moment.

    Args:
        at: seconds from now.
        bad_share: once so many of all are not answered well, the others are not sent.
    """
    return uvloop.run(_fire(url, [request(url, body) for body in bodies], at, slo, bad_share))


async def _fire(
    url: str, requests: Sequence[bytes], at: Sequence[float], slo: float, bad_share: float
) -> Heard:
    loop, (host, port) = asyncio.get_running_loop(), _address(url)
    heard, idle, bad = Heard(len(at)), list[_Connection](), 0
    began = WALL.now() + 0.05

    async def one(sends: bytes, due: float) -> None:
        nonlocal bad
        while idle and not idle[-1].usable:
            idle.pop()
        try:
            if idle:
                connection = idle.pop()
            else:
                _, connection = await loop.create_connection(_Connection, host, port)
            heard.behind = max(heard.behind, WALL.now() - due)
            status = await connection.ask(sends)
            if connection.usable:
                idle.append(connection)
            else:
                connection.close()
        except OSError:
            status = 0
        took = WALL.now() - due
        heard.statuses[status] = heard.statuses.get(status, 0) + 1
        if status == 200:
            heard.latencies.record_value(max(1, round(took * 1e6)))
        if status == 200 and took <= slo:
            heard.good += 1
        else:
            bad += 1

    gc.collect()
    gc.disable()
    tasks: list[asyncio.Task[None]] = []
    try:
        for sends, moment in zip(requests, at, strict=True):
            wait = began + moment - WALL.now()
            if wait > 0:
                await asyncio.sleep(wait)
            if bad > bad_share * len(at):
                break
            heard.sent += 1
            tasks.append(asyncio.create_task(one(sends, began + moment)))
        _, left = await asyncio.wait(tasks, timeout=PATIENCE)
        for task in left:
            task.cancel()
            heard.statuses[0] = heard.statuses.get(0, 0) + 1
    finally:
        gc.enable()
    heard.seconds = WALL.now() - began
    return heard


def in_turns(url: str, bodies: Sequence[bytes], connections: int, seconds: float) -> Heard:
    """Closed loop: each connection asks again once it is answered; to warm up, and for overhead."""
    return uvloop.run(_in_turns(url, [request(url, b) for b in bodies], connections, seconds))


async def _in_turns(url: str, requests: Sequence[bytes], connections: int, seconds: float) -> Heard:
    loop, (host, port) = asyncio.get_running_loop(), _address(url)
    heard = Heard(0)
    began = WALL.now()

    async def one(number: int) -> None:
        _, connection = await loop.create_connection(_Connection, host, port)
        place = number
        while (now := WALL.now()) < began + seconds:
            status = await asyncio.wait_for(
                connection.ask(requests[place % len(requests)]), PATIENCE
            )
            place += connections
            heard.sent += 1
            heard.statuses[status] = heard.statuses.get(status, 0) + 1
            if status == 200:
                heard.good += 1
                heard.latencies.record_value(max(1, round((WALL.now() - now) * 1e6)))
            if not connection.usable:
                connection.close()
                _, connection = await loop.create_connection(_Connection, host, port)

    await asyncio.gather(*(one(number) for number in range(connections)))
    heard.seconds = WALL.now() - began
    return heard
