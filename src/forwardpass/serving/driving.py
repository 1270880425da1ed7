"""Drive: a coroutine in an event loop without a Task: many end, or refuse, before they wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class Drive(Generic[Result]):
    """A coroutine that may await futures, and is never cancelled; what it raises is not caught.

    Attributes:
        then: is called with what it returns, which may be before `step` returns; None: nobody is.
    """

    __slots__ = ("_coroutine", "then")

    def __init__(
        self, coroutine: Coroutine[Any, None, Result], then: Callable[[Result], None] | None
    ) -> None:
        self._coroutine, self.then = coroutine, then

    def step(self, waited: object = None) -> None:
        """Run until it waits for a future, and go on when that is there, as a Task does."""
        try:
            future: Any = self._coroutine.send(None)
        except StopIteration as done:
            if self.then is not None:
                self.then(done.value)
        else:
            if future is None:  # asyncio.sleep(0)
                asyncio.get_running_loop().call_soon(self.step)
            else:
                future._asyncio_future_blocking = False
                future.add_done_callback(self.step)
