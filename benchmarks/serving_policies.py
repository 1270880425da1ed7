"""What does the policy of serving win? Simulated against others, on measured costs.

One engine whose batches cost what was measured of a sentence encoder (serving_costs.json), times
an error, and one request a real text; open loop, Poisson and bursty. Goodput is the highest rate
offered at which at least 99 % of all requests are answered within the SLO. The others hold batches
in order of arrival, each at the best of its parameters.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import statistics
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from benchmarks.open_loop import moments
from benchmarks.results import publish, quick, table
from benchmarks.serving_costs import Measured, known
from forwardpass.batching.packing import Sizes
from forwardpass.batching.queues import Dispatch, Queue
from forwardpass.batching.waiting import WaitingRow
from forwardpass.nouns.costs import CostTable

SLO = 0.25
GOOD = 0.99
TRIP = 150e-6
"""Between the sending of a batch and its results, beside computing."""
SLOWER = 1.5
SPREAD, SELDOM, FAR = 0.05, 0.005, 3.0
"""Standard deviation of the logarithm of a batch's seconds by its prediction; and one in 200 takes
three times as long."""


class Asked(NamedTuple):
    """A request of one text."""

    at: float
    bytes: int
    tokens: int


class Sent(NamedTuple):
    """Requests that are computed together, by number."""

    requests: list[int]
    tokens: int
    token: Any = None


class Server(Protocol):
    """A policy. It is asked after whatever happened; `wakes` says when it wants to be, too."""

    def came(self, number: int, asked: Asked) -> None: ...
    def next(self, now: float) -> Sent | None: ...
    def done(self, sent: Sent, now: float, seconds: float) -> None: ...
    def wakes(self) -> float: ...


@dataclass
class InArrivalOrder:
    """Up to `most` requests in the order of arrival.

    Attributes:
        patience: seconds for which a batch that is not full waits for more.
        costs: where given, requests leave that would be late, or would keep the batch from being
            full and in time (early drop).
    """

    most: int
    patience: float = 0.0
    costs: CostTable | None = None
    waiting: deque[tuple[int, Asked]] = field(default_factory=deque)
    busy: bool = False

    def came(self, number: int, asked: Asked) -> None:
        self.waiting.append((number, asked))

    def next(self, now: float) -> Sent | None:
        if self.busy:
            return None
        while self.costs and self.waiting:
            first = list(itertools.islice(self.waiting, self.most))
            longest = max(asked.tokens for _, asked in first)
            takes = float(self.costs.seconds(len(first), longest)) + TRIP
            if now + takes <= first[0][1].at + SLO:
                break
            self.waiting.popleft()
        if not self.waiting:
            return None
        if len(self.waiting) < self.most and now < self.waiting[0][1].at + self.patience:
            return None
        taken = [self.waiting.popleft() for _ in range(min(self.most, len(self.waiting)))]
        self.busy = True
        return Sent([number for number, _ in taken], max(asked.tokens for _, asked in taken))

    def done(self, sent: Sent, now: float, seconds: float) -> None:
        self.busy = False

    def wakes(self) -> float:
        if self.busy or not self.waiting or not self.patience:
            return math.inf
        return self.waiting[0][1].at + self.patience


class Ours:
    """`batching.queues.Queue`, with admission, as the HTTP process uses it."""

    def __init__(self, costs: CostTable) -> None:
        def cells(sizes: Sizes) -> Any:
            return sizes[..., 0]

        self.queue = Queue(costs, (True,), cells, most_rows=100_000, most_bytes=1 << 40)

    def came(self, number: int, asked: Asked) -> None:
        deadline = asked.at + SLO
        if self.queue.admits(asked.at, (asked.bytes,), deadline=deadline) is None:
            self.queue.add(WaitingRow(number, number, asked.bytes, asked.at, deadline, sizes=None))
            self.queue.sized(number, (asked.tokens,))

    def next(self, now: float) -> Sent | None:
        self.queue.late(now)
        dispatch = self.queue.next(now)
        if dispatch is None:
            return None
        return Sent([row.id for row in dispatch.rows], dispatch.cells, dispatch)

    def done(self, sent: Sent, now: float, seconds: float) -> None:
        assert isinstance(sent.token, Dispatch)
        self.queue.done(sent.token, now, seconds)

    def wakes(self) -> float:
        return math.inf  # a late row that is answered earlier is late all the same


class Truth:
    """What batches really cost: the table, `slower`, with errors."""

    def __init__(self, costs: CostTable, seed: int, slower: float) -> None:
        self.costs, self.random, self.slower = costs, random.Random(seed), slower
        self.known: dict[tuple[int, int], float] = {}

    def seconds(self, rows: int, tokens: int) -> float:
        key = (rows, tokens)
        if key not in self.known:
            self.known[key] = float(self.costs.seconds(rows, tokens))
        error = math.exp(self.random.gauss(0.0, SPREAD))
        far = FAR if self.random.random() < SELDOM else 1.0
        return self.known[key] * self.slower * error * far


def arrivals(
    rate: float, number: int, bursty: bool, texts: list[tuple[int, int]], seed: int
) -> Iterator[Asked]:
    """A text drawn at random at each moment."""
    chance = random.Random(seed)
    for moment in moments(rate, number, bursty, seed):
        yield Asked(moment, *chance.choice(texts))


def answered(server: Server, asked: list[Asked], truth: Truth) -> int:
    """How many requests are answered within the SLO."""
    good = 0
    engine_free = 0.0
    events: list[tuple[float, int, Sent, float]] = []
    order = itertools.count()
    at = 0
    while at < len(asked) or events:
        now = min(
            asked[at].at if at < len(asked) else math.inf,
            events[0][0] if events else math.inf,
            server.wakes(),
        )
        while events and events[0][0] <= now:
            done, _, sent, seconds = heapq.heappop(events)
            good += sum(done <= asked[number].at + SLO for number in sent.requests)
            server.done(sent, done, seconds)
        while at < len(asked) and asked[at].at <= now:
            server.came(at, asked[at])
            at += 1
        while (sent := server.next(now)) is not None:
            seconds = truth.seconds(len(sent.requests), sent.tokens)
            engine_free = max(engine_free, now + TRIP / 2) + seconds
            heapq.heappush(events, (engine_free + TRIP / 2, next(order), sent, seconds))
    return good


def goodput(
    make: Callable[[], Server], found: Measured, bursty: bool, number: int, slower: float
) -> float:
    """The highest rate at which GOOD of all requests are answered in time; texts a second."""

    def holds(rate: float) -> bool:
        good = 0
        for seed in range(3):
            asked = list(arrivals(rate, number, bursty, found.texts, seed))
            good += answered(make(), asked, Truth(found.costs, seed, slower))
        return good >= GOOD * 3 * number

    low, high = 0.0, 1.0
    while holds(high):
        low, high = high, 2 * high
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def contenders(costs: CostTable) -> dict[str, list[tuple[str, Callable[[], Server]]]]:
    """By name: the parameters to choose from, in words, and how it is made."""
    sizes = (1, 2, 4, 8, 16)
    return {
        "first come, up to n": [(f"n = {n}", lambda n=n: InArrivalOrder(n)) for n in sizes],
        "greedy: all that wait, up to 64": [("", lambda: InArrivalOrder(64))],
        "timer: n, or t after the first": [
            (f"n = {n}, t = {t} ms", lambda n=n, t=t: InArrivalOrder(n, t / 1e3))
            for n in sizes[1:]
            for t in (5, 20, 50)
        ],
        "early drop, up to n": [
            (f"n = {n}", lambda n=n: InArrivalOrder(n, costs=costs)) for n in sizes
        ],
        "**forwardpass**": [("", lambda: Ours(costs))],
    }


def overloaded(make: Callable[[], Server], found: Measured, rate: float, number: int) -> float:
    """Texts a second that are answered in time, of three times as many as `rate`."""
    good = seconds = 0.0
    for seed in range(3):
        asked = list(arrivals(3 * rate, number, False, found.texts, seed))
        good += answered(make(), asked, Truth(found.costs, seed, 1.0))
        seconds += asked[-1].at
    return good / seconds


def main() -> None:
    small = quick(__doc__)
    found = known()
    number = 300 if small else 4_000
    lines: list[list[str]] = []
    for name, choices in contenders(found.costs).items():
        line, overload = [name], ""
        makes = dict(choices)
        for bursty, slower in ((False, 1.0), (True, 1.0), (False, SLOWER)):
            rates = {said: goodput(make, found, bursty, number, slower) for said, make in choices}
            best = max(rates, key=rates.__getitem__)
            line.append(f"{rates[best]:.1f}" + (f" ({best})" if best else ""))
            if len(line) == 2:
                over = overloaded(makes[best], found, rates[best], number)
                overload = f"{over / rates[best]:.0%}"
        print(line, overload, flush=True)
        lines.append([*line, overload])
    tokens = [tokens for _, tokens in found.texts]
    about = (
        f"One request a text: {len(tokens):,} docstrings of {statistics.mean(tokens):.0f} tokens "
        f"on average (median {statistics.median(tokens):.0f}, longest {max(tokens)}), drawn at "
        f"random; {3 * number:,} requests a rate. A batch takes what the table says, times an "
        f"error ({SPREAD:.0%}; one in {1 / SELDOM:.0f} takes {FAR:.0f} times as long), and "
        f"{1e6 * TRIP:.0f} µs beside. Goodput in texts/s: the highest rate of which {GOOD:.0%} are "
        f"answered within {1e3 * SLO:.0f} ms; in brackets the best parameters, of batches of up "
        "to n = 1, 2, 4, 8, 16. Bursty: in turns of a second on average 1.75 and 0.25 times the "
        f"rate. Slower: all batches take {SLOWER} times what the table says. Overload: answered in "
        "time at three times its own Poisson goodput, as a share of that."
    )
    head = ["", "Poisson", "bursty", "slower engine", "overload"]
    publish(
        "serving_policies",
        "Policies of serving, simulated on measured costs",
        [about, table(head, lines), f"Costs: all-MiniLM-L6-v2, fp32. {found.machine}"],
        write=not small,
    )


if __name__ == "__main__":
    main()
