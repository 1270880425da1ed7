"""Seat: a worker of a pool, what it may be given, and what it has."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")

AHEAD: Final = 2
"""Calls of a job that a worker has: one that it works on, one on its way to it."""


class LostError(Exception):
    """A worker ended, or its machine did, and with it what it had."""


class NotBegunError(LostError):
    """A worker had ended, while it had nothing, and its cluster put another one in its place, which
    knows of nothing yet. No row is to blame."""


class Hand(Protocol):
    """A worker, as one calls it. Its name is for people."""

    @property
    def name(self) -> str: ...
    def call(self, method: str, given: Sequence[Any]) -> Future[list[Any]]:
        """What a method makes of each of several; LostError where the worker ends meanwhile."""
        ...

    def renew(self) -> Future[Any]:
        """Where the worker ended: done once another one stands in its place, as far as this one
        did. LostError where that ended, too."""
        ...


@dataclass(frozen=True, eq=False)
class Job(Generic[Given, Made]):
    """A thing that workers do with rows. A worker does those of one job in turn.

    Attributes:
        method: of the worker.
        part: of what is given, rows start … stop - 1.
        joined: what was made of the parts, each with its start, as what is made of the whole.
        dead: what stands for one row over which workers ended.
        weight: how long it takes, in any unit, as far as can be told beforehand.
    """

    method: str
    part: Callable[[Given, int, int], Given]
    joined: Callable[[Given, Sequence[tuple[int, Made]]], Made]
    dead: Callable[[Given], Made]
    weight: Callable[[Given], float]


class WorkerLoad(NamedTuple):
    """What a worker has done of a job.

    Attributes:
        name: of the worker.
        rows: that it did. seconds: that it took for them. deaths: times that it ended at all.
    """

    name: str
    rows: int
    seconds: float
    deaths: int


@dataclass(eq=False)
class Task:
    job: Job[Any, Any]
    given: Any
    future: Future[Any] = field(default_factory=Future[Any])
    deaths: int = 0
    """Workers that ended while they had it: with others the first time, alone from then on."""

    def __len__(self) -> int:
        return len(self.given)


@dataclass(eq=False)
class WorkerCall:
    tasks: list[Task]
    began: float
    is_late: bool = False
    """Whether it is tried elsewhere, too."""
    is_again: bool = False
    """Whether it is that other try."""

    @property
    def job(self) -> Job[Any, Any]:
        return self.tasks[0].job

    @property
    def is_suspect(self) -> bool:
        return any(task.deaths for task in self.tasks)

    @property
    def weight(self) -> float:
        return sum(self.job.weight(task.given) for task in self.tasks)


@dataclass(eq=False)
class Seat:
    """A worker, what it may be given, and what it has."""

    hand: Hand
    jobs: set[Job[Any, Any]] = field(default_factory=set[Job[Any, Any]])
    calls: list[WorkerCall] = field(default_factory=list[WorkerCall])
    renewing: bool = False
    again: bool = False
    """Whether it is to be begun once more, since more is known than when that began."""
    ends: int = 0
    """Times in a row that it ended while it was begun."""
    rows: Counter[Job[Any, Any]] = field(default_factory=Counter[Job[Any, Any]])
    seconds: defaultdict[Job[Any, Any], float] = field(default_factory=lambda: defaultdict(float))
    deaths: int = 0
    free: dict[Job[Any, Any], float] = field(default_factory=dict[Job[Any, Any], float])
    """Since when it does nothing of a job."""

    def of(self, job: Job[Any, Any]) -> list[WorkerCall]:
        return [call for call in self.calls if call.job is job]

    def has_room(self, job: Job[Any, Any]) -> bool:
        """Whether it may have one more call of a job; who has what a worker ended over has nothing
        else, so that it is known what ends the next."""
        if self.renewing or self.is_late or any(call.is_suspect for call in self.calls):
            return False
        return job in self.jobs and len(self.of(job)) < AHEAD

    @property
    def is_late(self) -> bool:
        """Whether it has what is tried elsewhere, too."""
        return any(call.is_late for call in self.calls)

    @property
    def load(self) -> tuple[int, float]:
        return len(self.calls), sum(call.weight for call in self.calls)


class Openings:
    """Seats with room for one more call of a job, so that nobody has to look at all of them."""

    def __init__(self) -> None:
        self._levels: defaultdict[Job[Any, Any], dict[int, dict[Seat, None]]] = defaultdict(dict)
        """Of each job, by how many calls a seat has."""
        self._listed: dict[Seat, list[dict[Seat, None]]] = {}

    def look_at(self, seat: Seat) -> None:
        """List it anew, after anything of it changed."""
        for level in self._listed.pop(seat, ()):
            del level[seat]
        for job in seat.jobs:
            if seat.has_room(job):
                level = self._levels[job].setdefault(len(seat.calls), {})
                level[seat] = None
                self._listed.setdefault(seat, []).append(level)

    def first(self, task: Task, but: Collection[Seat] = ()) -> Seat | None:
        """Who has the fewest calls; of several, whoever was not given or brought anything for
        longest. One over which a worker ended is given to a worker that has nothing."""
        levels = self._levels[task.job]
        for calls in (0,) if task.deaths else sorted(levels):
            for seat in levels.get(calls, ()):
                if seat not in but and seat.has_room(task.job):
                    return seat
        return None
