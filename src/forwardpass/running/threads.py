"""Stages that overlap: an iterator that runs ahead in a thread of its own, and a writer behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

from forwardpass.measuring.clocks import WALL
from forwardpass.tensors.threads import operator_threads, set_operator_threads

Item = TypeVar("Item")
_END = object()
_PATIENCE_SECONDS = 5.0


def alone(run: Callable[[], None], name: str) -> threading.Thread:
    """A thread that runs `run` with one operator thread.

    What it computes beside the model is little, and a second team of operator threads on the same
    cores would slow the model down. The count for threads that begin later is put back at the end.
    """
    before = operator_threads()

    def limited() -> None:
        set_operator_threads(1 if before else None)
        try:
            run()
        finally:
            set_operator_threads(before)

    thread = threading.Thread(target=limited, name=f"forwardpass-{name}", daemon=True)
    thread.start()
    return thread


class Ahead(Generic[Item]):
    """Iterates over `items` in another thread, at most `depth` items ahead.

    An exception of `items` is raised where the items are taken. After `stop` the thread ends
    with the item in hand.
    """

    def __init__(self, items: Iterable[Item], depth: int, name: str) -> None:
        self._queue: Queue[object] = Queue(depth)
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        items = iter(items)
        self._thread = alone(lambda: self._make(items), name)

    def __iter__(self) -> Iterator[Item]:
        while not self._stopped.is_set():
            try:
                item = self._queue.get(timeout=0.1)
            except Empty:
                continue
            if item is _END:
                if self._error is not None:
                    raise self._error
                return
            yield item  # type: ignore[misc]

    def over(self, seconds: float) -> bool:
        """Whether nothing is to come, as far as can be told within `seconds`."""
        ends = WALL.now() + seconds
        while WALL.now() < ends:
            with self._queue.mutex:
                if self._queue.queue:
                    return self._queue.queue[0] is _END
            time.sleep(0.01)
        return False

    def stop(self) -> None:
        """Make no further items. What takes them from here ends, too."""
        self._stopped.set()

    def join(self) -> None:
        """Wait for the thread, but not for input that may never come."""
        self._thread.join(_PATIENCE_SECONDS)

    def _make(self, items: Iterator[Item]) -> None:
        try:
            while not self._stopped.is_set():
                item = next(items, _END)
                if item is _END:
                    break
                self._put(item)
        except BaseException as error:  # noqa: BLE001 - raised where the items are taken
            self._error = error
        self._put(_END)

    def _put(self, item: object) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except Full:
                continue
            return


class Behind(Generic[Item]):
    """Calls `take(item)` for every item put, in order, in another thread, at most `depth` behind.

    An exception of `take` is raised by the next `put`, or by `finish`.
    """

    def __init__(self, take: Callable[[Item], None], depth: int, name: str) -> None:
        self._take = take
        self._queue: Queue[object] = Queue(depth)
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._thread = alone(self._run, name)

    def put(self, item: Item) -> None:
        """Hand an item over; waits while too many are under way."""
        while True:
            if self._error is not None:
                raise self._error
            try:
                self._queue.put(item, timeout=0.1)
            except Full:
                continue
            return

    def finish(self) -> None:
        """Wait until everything that was put is taken."""
        while self._thread.is_alive():
            try:
                self._queue.put(_END, timeout=0.1)
            except Full:
                continue
            break
        self._thread.join()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Stop after the item in hand: what waits in the queue is dropped."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                item = self._queue.get(timeout=0.1)
            except Empty:
                continue
            if item is _END:
                return
            try:
                self._take(item)  # type: ignore[arg-type]
            except BaseException as error:  # noqa: BLE001 - raised where the items are put
                self._error = error
                return
