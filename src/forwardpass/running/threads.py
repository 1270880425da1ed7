"""Stages that overlap: an iterator that runs ahead in a thread of its own, and a writer behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

Item = TypeVar("Item")
_END = object()


class Busy:
    """Adds up the seconds spent inside `with busy:`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items, adding up the time that making them takes."""
        iterator = iter(items)
        while True:
            with self:
                item = next(iterator, _END)
            if item is _END:
                return
            yield item  # type: ignore[misc]


class Ahead(Generic[Item]):
    """Iterates over `items` in another thread, at most `depth` items ahead.

    An exception of `items` is raised where the items are taken. `close` stops the thread; it
    ends with the item in hand.
    """

    def __init__(self, items: Iterable[Item], depth: int, name: str) -> None:
        self._queue: Queue[object] = Queue(depth)
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._make, args=(iter(items),), name=f"forwardpass-{name}", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        while True:
            item = self._queue.get()
            if item is _END:
                if self._error is not None:
                    raise self._error
                return
            yield item  # type: ignore[misc]

    def close(self) -> None:
        """Stop making items and wait for the thread."""
        self._stopped.set()
        self._thread.join()

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
        self._thread = threading.Thread(target=self._run, name=f"forwardpass-{name}", daemon=True)
        self._thread.start()

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
        if self._thread.is_alive():
            self._queue.put(_END)
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
