"""WorkerPool: rows go to whichever worker has least to do; what ends workers is halved."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Final

from forwardpass.errors import PassError
from forwardpass.measuring.clocks import WALL
from forwardpass.scaling.seats import (
    Given,
    Hand,
    Job,
    LostError,
    Made,
    NotBegunError,
    Openings,
    Seat,
    Task,
    WorkerCall,
    WorkerLoad,
)

CALL_ROWS: Final = 256
"""Rows of a call where several are given at once: a call costs about a millisecond."""
_HALVED, _LEFT_OUT = 2, 3
"""Workers that end over the same rows before these are halved; over one row before it is left out:
the first with others, and whoever killed a worker may kill another one."""
_ENDS: Final = 3
"""Times in a row that a worker ends while it is begun, before it is given up."""
_LATE: Final = 3.0
"""Times what it was expected to take, after which a call is tried elsewhere, too."""
_LATE_SECONDS: Final = 5.0
"""How long a call may take at least: what is shorter is no straggler."""
_LOOK_SECONDS: Final = 0.5


class WorkerPool:
    """Gives tasks to workers.

    What a worker lost goes to another. That over which a second one ends, alone, is halved until
    the row is found, which is left out. What takes far longer than it should is tried elsewhere,
    too: the first answer counts.

    Thread-safe; futures are completed in the threads that complete the calls.

    Args:
        tell: is called twice a second, that what was done may be shown.
    """

    def __init__(self, tell: Callable[[], object] = int) -> None:
        self._tell = tell
        self._seats: list[Seat] = []
        self._openings = Openings()
        self._queue: deque[Task] = deque()
        self._lock = threading.RLock()
        self._failed: BaseException | None = None
        self._closed = threading.Event()
        self._rates: dict[Job[Any, Any], tuple[float, float]] = {}
        self._watch = threading.Thread(target=self._watched, name="forwardpass-late", daemon=True)
        self._watch.start()

    def begin(self, hand: Hand, job: Job[Any, Any]) -> None:
        """Begin a worker, by its `renew`: then it is given tasks of this job, too."""
        with self._lock:
            seat = next((seat for seat in self._seats if seat.hand is hand), None)
            if seat is None:
                seat = Seat(hand)
                self._seats.append(seat)
            seat.jobs.add(job)
            seat.again = seat.renewing
            if not seat.renewing:
                self._renew(seat)

    def submit(self, job: Job[Given, Made], given: Given) -> Future[Made]:
        """Have some worker do it. Errors that no row is to blame for are the future's."""
        task = Task(job, given)
        with self._lock:
            self._queue.append(task)
            self._give()
        return task.future

    def loads(self, job: Job[Any, Any]) -> list[WorkerLoad]:
        """What each worker has done of a job so far."""
        with self._lock:
            return [
                WorkerLoad(seat.hand.name, seat.rows[job], seat.seconds[job], seat.deaths)
                for seat in self._seats
            ]

    def fail(self, error: BaseException) -> None:
        """Nothing can be done any more: so say all futures."""
        with self._lock:
            self._failed = self._failed or error
            calls = [call for seat in self._seats for call in seat.calls]
            lost = [*self._queue, *(task for call in calls for task in call.tasks)]
            self._queue.clear()
        for task in lost:
            _end(task, error=self._failed)

    def require(self) -> None:
        """Raise why nothing can be done any more, where that is so."""
        if self._failed is not None:
            raise self._failed

    def close(self) -> None:
        """Give no more work."""
        self._closed.set()
        self.fail(RuntimeError("the workers are gone"))
        self._watch.join()

    def _give(self) -> None:
        """Under the lock: work for whoever may have some."""
        if self._failed is not None:
            self.fail(self._failed)
            return
        waiting, self._queue = self._queue, deque()
        kept_free: list[Seat] = []
        full = set[Job[Any, Any]]()
        """Of which nobody may have one more."""
        while waiting:
            task = waiting.popleft()
            if task.future.done():
                continue
            seat = None
            if task.deaths or task.job not in full:
                seat = self._openings.first(task, kept_free)
            if seat is None:
                self._queue.append(task)
                if task.deaths:
                    self._keep_free(task, kept_free)
                else:
                    full.add(task.job)
                continue
            tasks, rows = [task], len(task)
            while waiting and _together(task, waiting[0]) and rows + len(waiting[0]) <= CALL_ROWS:
                rows += len(waiting[0])
                tasks.append(waiting.popleft())
            self._call(seat, WorkerCall(tasks, WALL.now()))

    def _keep_free(self, task: Task, kept_free: list[Seat]) -> None:
        """A suspect waits for a worker that has nothing: one is given nothing more until then."""
        others = [
            d for d in self._seats
            if d not in kept_free and not d.renewing and task.job in d.jobs and not d.is_late
        ]  # fmt: skip
        if others:
            kept_free.append(min(others, key=lambda seat: seat.load))

    def _call(self, seat: Seat, call: WorkerCall) -> None:
        seat.calls.append(call)
        self._openings.look_at(seat)
        future = seat.hand.call(call.job.method, [task.given for task in call.tasks])
        future.add_done_callback(lambda done: self._done(seat, call, done))

    def _done(self, seat: Seat, call: WorkerCall, done: Future[list[Any]]) -> None:
        try:
            made = done.result()
        except LostError as error:
            self._lost(seat, call, suspects=not isinstance(error, NotBegunError))
            return
        except BaseException as error:  # noqa: BLE001 - no row is to blame: it is for who waits
            self.fail(error)
            return
        with self._lock:
            if call in seat.calls:
                seat.calls.remove(call)
                self._openings.look_at(seat)
            now = WALL.now()
            spent = now - max(call.began, seat.free.get(call.job, 0.0))
            seat.free[call.job] = now
            seconds, weight = self._rates.get(call.job, (0.0, 0.0))
            self._rates[call.job] = (seconds + spent, weight + call.weight)
            seat.seconds[call.job] += spent
            seat.rows[call.job] += sum(len(task) for task in call.tasks if not task.future.done())
        for task, one in zip(call.tasks, made, strict=True):
            _end(task, one)
        with self._lock:
            self._give()

    def _lost(self, seat: Seat, call: WorkerCall, *, suspects: bool) -> None:
        """The worker ended. Of each job the first call is suspect: the others had not begun. None
        is where it ended before."""
        with self._lock:
            if call not in seat.calls:
                return  # one that was known to be lost
            calls, seat.calls = seat.calls, []
            seat.deaths += 1
            firsts = {one.job: one for one in reversed(calls)}.values() if suspects else ()
            for first in firsts:
                for task in first.tasks:
                    task.deaths += 1
            again = [task for one in calls for task in one.tasks if not task.future.done()]
            deadly = [task for task in again if task.deaths >= _most_deaths(task)]
            self._queue.extendleft(task for task in reversed(again) if task not in deadly)
            self._renew(seat)
        for task in deadly:
            self._take_apart(task)
        with self._lock:
            self._give()

    def _renew(self, seat: Seat) -> None:
        seat.renewing, seat.again = True, False
        self._openings.look_at(seat)
        seat.hand.renew().add_done_callback(lambda done: self._renewed(seat, done))

    def _renewed(self, seat: Seat, done: Future[Any]) -> None:
        error = done.exception()
        with self._lock:
            if self._closed.is_set() or seat not in self._seats:
                return
            seat.ends = seat.ends + 1 if error is not None else 0
            if error is None and not seat.again:
                seat.renewing = False
                self._openings.look_at(seat)
                seat.free = dict.fromkeys(seat.jobs, WALL.now())
                self._give()
            elif error is None or (isinstance(error, LostError) and seat.ends < _ENDS):
                self._renew(seat)
            elif not isinstance(error, LostError):
                self.fail(error)
            else:
                self._seats.remove(seat)
                if not self._seats:
                    self.fail(
                        PassError(
                            f"no worker is left: {seat.hand.name}, the last one, ended "
                            f"{seat.ends} times while it was begun: {error}"
                        )
                    )

    def _take_apart(self, task: Task) -> None:
        """Halve that over which workers end; a row alone is left out."""
        job, half, rows = task.job, len(task) // 2, len(task)
        if rows == 1:
            _end(task, job.dead(task.given))
            return
        spans = ((0, half), (half, rows))
        parts = [Task(job, job.part(task.given, start, stop), deaths=1) for start, stop in spans]
        waiting = len(parts)

        def part_is_done(_: Future[Any]) -> None:
            nonlocal waiting
            with self._lock:
                waiting -= 1
                if waiting:
                    return
            try:
                made = [part.future.result() for part in parts]
                _end(task, job.joined(task.given, [*zip((0, half), made, strict=True)]))
            except BaseException as error:  # noqa: BLE001 - of a part: it is the whole's
                _end(task, error=error)

        for part in parts:
            part.future.add_done_callback(part_is_done)
        with self._lock:
            self._queue.extendleft(reversed(parts))

    def _watched(self) -> None:
        while not self._closed.wait(_LOOK_SECONDS):
            self._tell()
            with self._lock:
                if not self._queue:
                    self._try_elsewhere()

    def _try_elsewhere(self) -> None:
        """Where somebody is idle, give him what another is late with."""
        now = WALL.now()
        for seat in self._seats:
            for call in seat.calls:
                seconds, weight = self._rates.get(call.job, (0.0, 0.0))
                due = max(_LATE_SECONDS, _LATE * call.weight * seconds / weight) if weight else None
                tried = call.is_late or call.is_again or call.is_suspect
                if due is None or tried or now - call.began < due:
                    continue
                other = self._openings.first(call.tasks[0])
                if other is not None and not other.calls:
                    call.is_late = True
                    self._openings.look_at(seat)
                    self._call(other, WorkerCall(call.tasks, now, is_again=True))


def _most_deaths(task: Task) -> int:
    return _LEFT_OUT if len(task) == 1 else _HALVED


def _together(task: Task, other: Task) -> bool:
    """Whether two tasks may go with one call."""
    return task.job is other.job and not task.deaths and not other.deaths


def _end(task: Task, made: Any = None, error: BaseException | None = None) -> None:
    """Once: who comes late is not heard, nor who brings what was cancelled."""
    with suppress(InvalidStateError):
        if error is not None:
            task.future.set_exception(error)
        else:
            task.future.set_result(made)
