"""Allocations: what PyTorch's allocator handed out in a pass, and took back, call by call.

The profiler of PyTorch tells of each allocation with its address, scratch inside of operators
included; a Walk puts a mark around each operator, so that one knows of which call it is. What
libraries beneath PyTorch (oneDNN, BLAS) take past its allocator is not seen: only the resident
memory tells of that.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any, NamedTuple

from torch._C._autograd import _profiler_enabled  # pyright: ignore[reportPrivateUsage]
from torch._C._profiler import _RecordFunctionFast  # pyright: ignore[reportPrivateUsage]
from torch.autograd.profiler import profile

from forwardpass.errors import contained
from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.recording.passes import Pass
from forwardpass.recording.schemas import Schema
from forwardpass.recording.walking import Walk

_MARK = "forwardpass call "
_LOG_LEVEL = "KINETO_LOG_LEVEL"
_SILENT = "6"


class Holding(NamedTuple):
    """Memory that was held at a moment: bytes, and the call that took it.

    `scratch`: the call gave it back itself.
    """

    bytes: int
    call: int
    scratch: bool


class Allocations(NamedTuple):
    """What one pass held of the allocator's memory, beyond what was there when it began.

    Attributes:
        live: bytes still held after each call, what Python let go of since included.
        within: the most that was held at once while each call ran, and up to the next.
        peak_call: the first with the most of these.
        held: what was held at that moment.
        parted: whether the pass went another way than its record: then there is one entry.
    """

    live: tuple[int, ...]
    within: tuple[int, ...]
    peak_call: int
    held: tuple[Holding, ...]
    parted: bool

    @property
    def peak(self) -> int:
        """The most bytes that were held at once."""
        return max(self.within, default=0)


class _CallMarks(Walk):
    """Puts a mark around each operator that a profiler sees, and no operator of its own."""

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        with _RecordFunctionFast(f"{_MARK}{call.index}"):
            return func(*args, **kwargs)


class _Event(NamedTuple):
    """Something the profiler saw: a mark with its call, or an allocation (call -1).

    `bytes` are negative where memory was given back.
    """

    start: int
    end: int
    call: int
    address: int
    bytes: int


def is_taken() -> bool:
    """Whether a profiler of the user's is on: PyTorch has one at a time."""
    return _profiler_enabled()


def wake() -> None:
    """Start the profiler for the first time, where nobody did: started first by another thread than
    the one that imported PyTorch, it says an error on stderr."""
    if not is_taken():
        with _quiet(), profile(profile_memory=True):
            pass


def allocations(this: Pass, record: Record, device: str, *, contents: bool) -> Allocations:
    """Make a pass, and see what it takes on `device` ("cpu", "cuda:0").

    Args:
        this: the pass; its rows need not be those of the record.
        contents: whether the pass writes parameters, which then are put back.

    Whatever the module raises comes out as it is.
    """
    walk, seen = _CallMarks(record), profile(profile_memory=True)
    with this.staged(contents=contents) as (_, args, kwargs):
        with _quiet(), seen, walk, contained():
            returned = this.module(*args, **kwargs)
        del returned  # not before the profiler is off: what comes out is held at the end
    assert seen.kineto_results is not None
    kind = device.partition(":")[0]
    tree = seen.kineto_results.experimental_event_tree()
    parted = walk.parted or walk.next is not None
    return _followed(sorted(_events(tree, kind)), 1 if parted else len(record.calls), parted)


class _Life(NamedTuple):
    """Memory from when it was taken to when it was given back, as numbers of events."""

    bytes: int
    call: int
    first: int
    last: float
    scratch: bool


def _followed(events: Sequence[_Event], calls: int, parted: bool) -> Allocations:
    """Go through what happened in order. What is taken before the first call or between two calls
    counts for the one before; calls without a mark (host calls) take nothing."""
    taken: dict[int, tuple[int, int, int]] = {}  # by address: bytes, call, number of the event
    lives: list[_Life] = []
    live: dict[int, int] = {}
    within: dict[int, int] = {}
    held = most = peak_call = call = peak = 0
    ends = -1
    for number, event in enumerate(events):
        if event.call >= 0:
            call, ends = (0 if parted else event.call), event.end
        elif event.bytes > 0:
            taken[event.address] = (event.bytes, call, number)
            held += event.bytes
            if held > most:
                most, peak, peak_call = held, number, call
        elif event.address in taken:  # else it was there before the pass
            size, maker, first = taken.pop(event.address)
            held -= size
            own = maker == call and event.start <= ends
            lives.append(_Life(size, maker, first, number, own))
        live[call] = held
        within[call] = max(within.get(call, 0), held)
    lives += [_Life(size, maker, first, inf, False) for size, maker, first in taken.values()]
    return Allocations(
        live=tuple(_carried(live, live, calls)),
        within=tuple(_carried(within, live, calls)),
        peak_call=peak_call,
        held=tuple(
            Holding(one.bytes, one.call, one.scratch)
            for one in lives
            if one.first <= peak < one.last
        ),
        parted=parted,
    )


def _carried(found: Mapping[int, int], live: Mapping[int, int], calls: int) -> Iterator[int]:
    """By call; where nothing was found, what was held after the call before."""
    before = 0
    for call in range(calls):
        yield found.get(call, before)
        before = live.get(call, before)


def _events(tree: Iterable[Any], kind: str) -> Iterator[_Event]:
    waiting = list(tree)
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.name.startswith(_MARK):
            call = int(event.name.removeprefix(_MARK))
            yield _Event(event.start_time_ns, event.end_time_ns, call, 0, 0)
        elif event.tag.name == "Allocation" and event.extra_fields.device.type == kind:
            fields = event.extra_fields
            yield _Event(event.start_time_ns, 0, -1, fields.ptr, fields.alloc_size)


@contextmanager
def _quiet() -> Generator[None]:
    """The profiler greets on stderr whenever it starts, unless this says otherwise when a process
    starts it first. What the user set stays."""
    if _LOG_LEVEL in os.environ:
        yield
        return
    os.environ[_LOG_LEVEL] = _SILENT
    try:
        yield
    finally:
        del os.environ[_LOG_LEVEL]
