"""Ray: the workers of a run are actors of a Ray cluster, of this machine or of many."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from typing import Any, Final

from forwardpass.errors import PassError, UsageError, missing_extra
from forwardpass.executing.encoding import EncodedRows, Encodings
from forwardpass.measuring.clocks import WALL, Stopwatch
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.machines import Machine
from forwardpass.nouns.reports import WorkerReport
from forwardpass.nouns.rows import Rows
from forwardpass.preparing.limit_shares import MacTable
from forwardpass.preparing.preparing import Prepared
from forwardpass.preparing.recipes import Ready
from forwardpass.preparing.trials import NOTHING
from forwardpass.running.venues import Assignment, Computing, EngineReport, LocalVenue, Venue
from forwardpass.scaling.actors import Actor, Cluster, connected
from forwardpass.scaling.deployments import RayServer
from forwardpass.scaling.pools import WorkerPool
from forwardpass.scaling.seats import AHEAD, Job, LostError, WorkerLoad
from forwardpass.scaling.sent import COMPUTE, ENCODE, Encoded
from forwardpass.scaling.spreading import Spread
from forwardpass.scaling.workers import FirstLook, Recipe, WorkerPlace
from forwardpass.serving.options import ServeOptions

LOCAL: Final = "local"
_TRIES: Final = 2
"""Workers that may end while they learn from the first rows."""
_LOOK_SECONDS: Final = 0.5
_BUSY_SECONDS: Final = 15.0
"""After which it is said that one waits for a place: a worker is begun in a few."""
_SILENT_SECONDS: Final = 2.0
"""Without an answer, after which another worker is asked, too."""
_PATIENCE_SECONDS: Final = 30.0
"""That a worker has to answer what takes no time, behind what it computes."""


@dataclass(frozen=True)
class Ray:
    """A Ray cluster as what computes a run, or answers requests.

    Args:
        address: of a cluster, as `ray.init` takes it ("auto", "HOST:6379"); "local" begins one on
            this machine, which ends with the run. A process that is connected stays so.
        workers: processes that compute; None: as many as the cluster has cores for. Of a server its
            replicas, and (1, 4) from one to four of them, as load says; None: one.
        threads: cores of each, which compute one operator together.

    Raises UsageError for what makes no sense.
    """

    address: str = LOCAL
    workers: int | tuple[int, int] | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        one = 1 if self.workers is None else self.workers
        both = one if isinstance(one, tuple) else (one, one)
        for name, value in (("workers", both[0]), ("workers", both[1]), ("threads", self.threads)):
            if type(value) is not int or value < 1:
                raise UsageError(f"{name}={value!r}: expected a whole number from 1")
        if both[0] > both[1]:
            raise UsageError(f"workers={self.workers}: the first is the least, the second the most")
        if not self.address:
            raise UsageError("address='': expected 'local', 'auto' or HOST:PORT of a Ray cluster")

    def venue(self, assignment: Assignment) -> Venue:
        """Workers of the cluster; the caller closes it."""
        model = assignment.forward.model
        if isinstance(self.workers, tuple):
            raise UsageError(f"workers={self.workers}: a run has as many from its begin to its end")
        if assignment.options.stateful:
            raise UsageError(
                "--stateful does not go with --ray: what a pass keeps for the rows that follow "
                "stays in one process; run it without --ray"
            )
        if model.origin is None:
            raise UsageError(
                f"{model.program.name} is a live module, which no other process can load: give a "
                "reference such as model.py:net, or an artefact: fwd.export(model, 'model.fwd')"
            )
        _require_ray()
        gpus = int(_on_gpu(assignment.forward))
        cluster = Cluster(self._address, self.workers, self.threads, gpus)
        return ClusterVenue(cluster, assignment, self.threads)

    def host(self, options: ServeOptions) -> RayServer:
        """Replicas of a server, which the caller closes. Raises UsageError for what cannot be
        served, LoadError where no replica can be had."""
        _require_ray()
        least, most = self.workers if isinstance(self.workers, tuple) else (self.workers or 1,) * 2
        gpus = int(any("cuda" in model.forward for model in options.models))
        begun = connected(self._address, most, self.threads)
        return RayServer(options, (least, most), self.threads, gpus, begun=begun)

    @property
    def _address(self) -> str | None:
        return None if self.address == LOCAL else self.address


def _require_ray() -> None:
    try:
        import_module("ray")
    except ImportError as error:
        raise missing_extra("ray", "ray", "--ray") from error


def _on_gpu(forward: Forward) -> bool:
    """Whether a plan says that it computes on CUDA."""
    return any("cuda" in str(one.value) for one in forward.plan.backend.arguments)


class _Member:
    """A worker, and what it is begun with, as far as that is known."""

    def __init__(self, actor: Actor) -> None:
        self.name, self.actor = actor.name, actor
        self.recipe: Recipe | None = None
        self.block: Encodings | None = None
        self.early_rows, self.early_seconds = 0, 0.0
        self.ends = 0
        self.place: Future[WorkerPlace] = actor.call("place", waits=True)
        self._last: WorkerPlace | None = None

    def call(self, method: str, given: Sequence[Any]) -> Future[list[Any]]:
        """As a Hand."""
        return self.actor.call(method, given)

    def ask(self) -> None:
        """Where another one is that stands in its place; where it began, the pool asks that."""
        self.ends += 1
        self.place = self.actor.call("place", waits=True)

    def renew(self) -> Future[WorkerPlace]:
        """Load, and build where it is known by which example."""
        self._last = self.last_place
        self.place = self.actor.call("begin", self.recipe, self.block, waits=True)
        return self.place

    @property
    def standing(self) -> WorkerPlace | None:
        """Where it is; None while it is being begun."""
        known = self.place.done() and self.place.exception() is None
        return self.place.result() if known else None

    @property
    def last_place(self) -> WorkerPlace | None:
        """Where it is, or was when it ended; None where it never began."""
        return self.standing or self._last


class ClusterVenue:
    """The workers of a cluster, each with an engine of its own.

    The first one that is there learns what must be known before the first row; the others follow
    it. Rows are encoded by workers where that is code of the user's, and by the driver where they
    are only looked at.
    """

    def __init__(self, cluster: Cluster, assignment: Assignment, threads: int) -> None:
        self.encoding, self.build_seconds = Stopwatch(), 0.0
        self._assignment, self._threads = assignment, threads
        self._cluster, self._here = cluster, LocalVenue(assignment)
        self._members = [
            _Member(cluster.actor(f"worker {number}")) for number in range(1, cluster.size + 1)
        ]
        self._pool = WorkerPool(self._show)

    def machine(self) -> Machine:
        """That of the first worker."""
        return self._first().place.result().machine

    def encoded(self, forward: Forward, blocks: Iterator[Rows]) -> Iterator[EncodedRows]:
        """The blocks, in order, as many under way as the workers can have."""
        self._begin(forward, None, ENCODE)
        model = forward.model
        if model.encode is None and model.collate is None:
            self.encoding = self._here.encoding
            yield from self._here.encoded(forward, blocks)
            return
        under_way: deque[Future[Encoded]] = deque()
        for rows in blocks:
            under_way.append(self._pool.submit(ENCODE, rows))
            while under_way and (
                len(under_way) > AHEAD * len(self._members) or under_way[0].done()
            ):
                yield self._encoded(under_way.popleft())
        while under_way:
            yield self._encoded(under_way.popleft())

    def _show(self) -> None:
        self._assignment.progress.workers = tuple(
            f"{one.name}: {one.rows:,} rows" + f", ended {one.deaths} times" * bool(one.deaths)
            for one in self._loads()
        )

    def _loads(self) -> list[WorkerLoad]:
        """What each worker has computed, while it learned, too."""
        early = {member.name: (member.early_rows, member.early_seconds) for member in self._members}
        loads: list[WorkerLoad] = []
        for load in self._pool.loads(COMPUTE):
            rows, seconds = early[load.name]
            loads.append(load._replace(rows=load.rows + rows, seconds=load.seconds + seconds))
        return loads

    def _encoded(self, done: Future[Encoded]) -> EncodedRows:
        encoded, seconds = done.result()
        self.encoding.seconds += seconds
        return encoded

    def prepared(
        self, forward: Forward, blocks: Iterator[EncodedRows], expected: int | None
    ) -> Prepared | None:
        """What is learned by the first worker; by another one where that ends over it."""
        seen: list[EncodedRows] = []
        learned = self._tried(blocks, seen, expected)
        if learned is None:
            return None
        self.build_seconds = learned.build_seconds
        block = next(done.block for done in seen if len(done.block))
        signature = learned.ready.signature
        model = forward.model.with_signature(signature) if signature else forward.model
        self._begin(Forward(model, forward.plan), block, COMPUTE)
        spread = Spread(self._pool, len(self._members))
        return Prepared(
            spread, learned.ready, learned.early, learned.seconds, NOTHING, learned.costs
        )

    def _tried(
        self, blocks: Iterator[EncodedRows], seen: list[EncodedRows], expected: int | None
    ) -> FirstLook | None:
        """What a worker learned; another one is asked where it ends meanwhile."""
        lost: Exception = AssertionError()
        for _ in range(_TRIES):
            member = self._first()
            try:
                return self._learned(member, chain([*seen], _seen(blocks, seen)), expected)
            except LostError as error:
                lost = error
                self._pool.begin(member, ENCODE)
        raise PassError(
            f"{_TRIES} workers ended while they tried the first rows: {lost}. A row that ends the "
            "process is found where this runs without --ray, and goes on with --resume"
        )

    def _learned(
        self, member: _Member, blocks: Iterator[EncodedRows], expected: int | None
    ) -> FirstLook | None:
        self._assignment.progress.stage = "calibrating"
        learned: Future[FirstLook | None] = member.actor.call("prepare", expected)
        while member.actor.call("wants").result():
            member.actor.call("feed", next(blocks, None)).result()
        found = learned.result()
        if found is not None:
            kept = [len(one.positions) for one in found.early if one.result is not None]
            member.early_rows, member.early_seconds = sum(kept), found.seconds
        return found

    def computing(self, forward: Forward, block: Encodings) -> Computing:
        """All workers; the machine and device of the first that can compute."""
        self._begin(forward, block, COMPUTE)
        place = self._first(_computes).place.result()
        self.build_seconds = place.build_seconds
        return Computing(Spread(self._pool, len(self._members)), place.machine, place.device)

    def mac_table(self, block: Encodings, ready: Ready) -> MacTable:
        """Recorded by one worker."""
        self._first(_computes)
        return self._asked("mac_table", block, ready) or MacTable((), ())

    def told(self, macs: float, seconds: float) -> EngineReport:
        """What one worker says, a line each of all, and whether their machines are equal."""
        loads = {load.name: load for load in self._loads()}
        if not loads:  # no row was left to be computed
            return EngineReport()
        told: EngineReport = (
            self._asked("told", macs, seconds, within=_PATIENCE_SECONDS) or EngineReport()
        )
        workers, machines = list[WorkerReport](), set[str]()
        for member in self._members:
            load, place = loads.get(member.name), member.last_place
            if load is None:
                continue
            if place is None:
                workers.append(WorkerReport(member.name, "", "it had not begun", 0, 0.0, 0))
                continue
            workers.append(
                WorkerReport(
                    member.name, place.node, str(place.machine), load.rows, load.seconds,
                    load.deaths,
                )
            )  # fmt: skip
            if load.rows:
                machines.add(place.machine.digest)
        return told._replace(workers=tuple(workers), notes=_said_of(machines))

    def close(self) -> None:
        """End the workers."""
        self._pool.close()
        self._cluster.close()

    def _begin(self, forward: Forward, block: Encodings | None, job: Job[Any, Any]) -> None:
        """Begin all workers: each is given work of this job as soon as it is there."""
        of, options = self._assignment, self._assignment.options
        model = of.forward.model
        assert model.origin is not None
        recipe = Recipe(
            model.origin, str(of.forward.plan), model.trust, of.sha256, model.signature,
            forward.model.signature, options, tuple(sys.path), os.getcwd(), self._threads,
        )  # fmt: skip
        for member in self._members:
            member.recipe, member.block = recipe, block
            self._pool.begin(member, job)

    def _first(self, fits: Callable[[WorkerPlace], bool] = lambda _: True) -> _Member:
        """The first worker that has begun, or come as far as to fit; raises what one raises, and
        PassError where all have ended while they were begun."""
        progress, began = self._assignment.progress, WALL.now()
        stage = progress.stage
        while True:
            self._pool.require()
            places = {member.place: member for member in self._members}
            done = [*wait(places, _LOOK_SECONDS, FIRST_COMPLETED).done]
            for one in done:
                error, member = one.exception(), places[one]
                if error is None and fits(one.result()):
                    progress.stage = stage
                    return member
                if error is not None and not isinstance(error, LostError):
                    raise error
                if error is not None and member.recipe is None:  # the pool does not know it yet
                    if member.ends < _TRIES:
                        member.ask()
                    elif all(one.ends >= _TRIES for one in self._members):
                        raise PassError(f"no worker could be begun: {error}") from error
            if done:
                time.sleep(_LOOK_SECONDS / 10)
            elif WALL.now() - began > _BUSY_SECONDS:
                progress.stage = "waiting for free cores of the cluster"

    def _asked(self, method: str, *given: Any, within: float = math.inf) -> Any:
        """What a worker that can compute answers, within so many seconds; None where none does.
        While nobody does, another one is asked, too: one may have come to stand still."""
        silent = [member for member in self._members if member.block is not None]
        asked, until, latest = set[Future[Any]](), WALL.now() + within, -math.inf
        while (now := WALL.now()) < until:
            able = next((m for m in silent if m.standing and _computes(m.standing)), None)
            if able is not None and (not asked or now - latest >= _SILENT_SECONDS):
                silent.remove(able)
                asked.add(able.actor.call(method, *given))
                latest = now
            coming = {member.place for member in silent if not member.place.done()}
            if not asked and not coming:
                return None
            done = wait(asked or coming, _SILENT_SECONDS, FIRST_COMPLETED).done
            for one in done & asked:
                asked.discard(one)
                with suppress(LostError):
                    return one.result()
        return None


def _computes(place: WorkerPlace) -> bool:
    return bool(place.device)


def _seen(blocks: Iterator[EncodedRows], seen: list[EncodedRows]) -> Iterator[EncodedRows]:
    for block in blocks:
        seen.append(block)
        yield block


def _said_of(machines: set[str]) -> tuple[str, ...]:
    """Whether equal rows may come out in other bits, as a note."""
    if len(machines) < 2:
        return ()
    return (
        f"{len(machines)} kinds of machines computed: values may differ in their last bits from "
        "those of another run",
    )
