"""When one row spoils a block: halve it until the row stands alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from forwardpass.errors import ForwardpassError
from forwardpass.executing.deaths import Seam

Result = TypeVar("Result")


def salvage(
    compute: Callable[[int, int], Result], start: int, stop: int, seam: Seam | None = None
) -> Iterator[tuple[int, int, Result | Exception]]:
    """Results of `compute(start, stop)` for all rows that can be computed, in order.

    Where it raises, the rows are halved and tried again; a single row that raises yields its
    exception instead of a result. k bad rows among n cost about 2 k log2(n) calls. A
    ForwardpassError is raised: no row is to blame. Through `seam` it is known which rows user code
    has, and over which processes died: these are tried one by one first, and those that end
    processes left out. The others are computed as ever, so that their bits are the same.
    """
    if start >= stop:
        return
    alone = stop - start == 1
    try:
        if seam is None:
            result = compute(start, stop)
        else:
            if not alone and seam.is_suspect(start, stop):
                _try_alone(compute, start, stop, seam)
            seam.require_harmless(start, stop)
            with seam.at(start, stop):
                result = compute(start, stop)
    except ForwardpassError:  # the call is wrong, or the data as a whole: no row is to blame
        raise
    except Exception as error:  # noqa: BLE001 - it becomes the row's result
        if alone:
            yield start, stop, error
            return
    else:
        yield start, stop, result
        return
    middle = (start + stop) // 2
    yield from salvage(compute, start, middle, seam)
    yield from salvage(compute, middle, stop, seam)


def _try_alone(compute: Callable[[int, int], object], start: int, stop: int, seam: Seam) -> None:
    """Let each row have its chance to end the process by itself."""
    for row in range(start, stop):
        if not seam.is_deadly(row):
            with seam.at(row, row + 1), suppress(Exception):
                compute(row, row + 1)
