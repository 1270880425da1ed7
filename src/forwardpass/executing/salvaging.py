"""When one row spoils a block: halve it until the row stands alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from forwardpass.errors import ForwardpassError

Result = TypeVar("Result")


def salvage(
    compute: Callable[[int, int], Result], start: int, stop: int
) -> Iterator[tuple[int, int, Result | Exception]]:
    """Results of `compute(start, stop)` for all rows that can be computed, in order.

    Where it raises, the rows are halved and tried again; a single row that raises yields its
    exception instead of a result. k bad rows among n cost about 2 k log2(n) calls. A
    ForwardpassError is raised: no row is to blame.
    """
    if start >= stop:
        return
    try:
        result = compute(start, stop)
    except ForwardpassError:  # the call is wrong, or the data as a whole: no row is to blame
        raise
    except Exception as error:  # noqa: BLE001 - it becomes the row's result
        if stop - start == 1:
            yield start, stop, error
            return
    else:
        yield start, stop, result
        return
    middle = (start + stop) // 2
    yield from salvage(compute, start, middle)
    yield from salvage(compute, middle, stop)
