"""Child: a process of the supervisor's, what it says, and how it came to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final, Generic

import msgspec

from forwardpass.serving.controls import Control, ControlClosedError, Heard, Theirs, connected
from forwardpass.starting import start

_LOOK_SECONDS: Final = 0.01
"""At whether a process is gone, one after the other."""


class Child(Generic[Theirs]):
    """A process and the connection to it. Closing `life` ends the process.

    Args:
        control: this side's end of the connection.
        life: the end of the pipe that keeps it alive.
        process: where it is a child of this process, and no grandchild.

    Attributes:
        over: whether it was ended here. why: what was said of that.
    """

    def __init__(
        self, control: Control[Theirs], life: int, process: subprocess.Popen[bytes] | None = None
    ) -> None:
        self._control, self._life, self._process = control, life, process
        self._waiting: asyncio.Future[None] | None = None
        self.over = False
        self.why = ""

    @classmethod
    def started(cls, main: str, theirs: Any) -> Child[Any]:
        """A new process that calls `main` with its end of a connection. What it prints goes to
        standard error."""
        mine, others = connected()
        try:
            process, life = start(main, [others], stdout=2)
        except BaseException:
            os.close(mine)
            raise
        return cls(Control(mine, theirs), life, process)

    def say(self, message: msgspec.Struct, *descriptors: int) -> None:
        """Send it; who is gone does not hear it."""
        with suppress(ControlClosedError):
            self._control.send(message, *descriptors)

    async def hear(self) -> AsyncIterator[Heard[Theirs]]:
        """What it says, until it is gone or was ended. One at a time may listen."""
        loop = asyncio.get_running_loop()
        while not self.over:
            self._waiting = loop.create_future()
            loop.add_reader(self._control, self._wake)
            try:
                await self._waiting
            finally:
                if not self.over:
                    loop.remove_reader(self._control)
            if self.over:
                return
            try:
                heard = self._control.receive()
            except ControlClosedError:
                return
            for each in heard:
                yield each

    def _wake(self) -> None:
        asyncio.get_running_loop().remove_reader(self._control)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def end(self, why: str = "") -> None:
        """End the process, whatever it is at. Ending again does nothing.

        Args:
            why: what is said of its end, instead of how it came.
        """
        if self.over:
            return
        self.over, self.why = True, why
        self._wake()
        self._control.close()
        os.close(self._life)

    async def gone(self) -> str:
        """Wait until the process is, which is a child of this one; how it ended."""
        assert self._process is not None
        while self._process.poll() is None:
            await asyncio.sleep(_LOOK_SECONDS)
        return self.why or ended(self._process.returncode)


def ended(code: int | None) -> str:
    """How a process ended, by what Popen says of it, as what follows its name in a sentence."""
    if code is None:
        return "ended"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", as the system does where memory runs out" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"
