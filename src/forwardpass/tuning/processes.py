"""Worker: a process of its own that is asked to do things, and may die of them."""

from __future__ import annotations

import math
import os
import re
import select
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from forwardpass.measuring.clocks import WALL
from forwardpass.starting import start
from forwardpass.tuning.messages import Answer, Beat, FailureAnswer, Line, Request
from forwardpass.tuning.workshops import PassingTrialError, RefusedTrialError, TrialError

_LOOK_SECONDS: Final = 0.2
"""How often it is asked whether a silent process is alive: what it started may hold its pipe."""
_TAIL: Final = 4096
"""Bytes of what it printed in which its last words are looked for."""
_READ: Final = 1 << 16
_WORDS: Final = re.compile(r"[A-Za-z]{3}")
_NO_MEMORY: Final = ("bad_alloc", "out of memory", "Cannot allocate memory", "MemoryError")
_ERRORS: Final[dict[str, type[TrialError]]] = {
    kind.__name__: kind for kind in (TrialError, RefusedTrialError, PassingTrialError)
}
Kind = TypeVar("Kind", bound=Answer)


class Worker:
    """A process that answers one request after the other.

    Args:
        log: a file for what it prints to standard error.

    Attributes:
        dead: whether it was ended, or ended itself; another one is needed.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._rest = b""
        self.dead = False
        with log.open("ab") as printed:
            theirs_in, self._requests = os.pipe()
            self._answers, theirs_out = os.pipe()
            try:
                self._process, self._life = start(
                    "forwardpass.tuning.worker:main",
                    [theirs_in, theirs_out],
                    stdout=subprocess.DEVNULL,
                    stderr=printed,
                    start_new_session=True,  # Ctrl-C is for this process, which ends the others
                )
            except BaseException:
                os.close(self._requests)
                os.close(self._answers)
                raise

    def ask(
        self, request: Request, kind: type[Kind], *, until: float = math.inf,
        silent_seconds: float = math.inf,
    ) -> Kind:  # fmt: skip
        """What it answers.

        Args:
            kind: of the answer.
            until: the instant, by `WALL.now()`, at which it is killed.
            silent_seconds: how long it may say nothing before it is killed.

        Raises TrialError where it could not do it, and where it died or was killed over it.
        """
        if self.dead:
            raise TrialError("its process had ended before")
        try:
            self._send(request)
            while True:
                line = self._line(until, silent_seconds)
                if not isinstance(line, Beat):
                    break
        except BaseException:
            self.close()
            raise
        if isinstance(line, FailureAnswer):
            error = _ERRORS[line.kind]
            if error is not RefusedTrialError:
                self.close()  # who knows what it left behind
            raise error(line.why)
        assert isinstance(line, kind)
        return line

    def close(self) -> None:
        """End it, whatever it is at, and what it started. Closing again does nothing."""
        if self.dead:
            return
        self.dead = True
        self._close_ends()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _close_ends(self) -> None:
        for end in (self._requests, self._answers, self._life):
            os.close(end)

    def _send(self, request: Request) -> None:
        text = msgspec.json.encode(request) + b"\n"
        try:
            while text:
                text = text[os.write(self._requests, text) :]
        except BrokenPipeError:
            raise self._died() from None

    def _line(self, until: float, silent_seconds: float) -> Line:
        quiet = WALL.now() + silent_seconds
        while b"\n" not in self._rest:
            left = min(until, quiet) - WALL.now()
            if left <= 0:
                raise TrialError(
                    "its process was killed: the time was up"
                    if until < quiet
                    else f"its process was killed: it did nothing for {silent_seconds:.0f} s"
                )
            there, _, _ = select.select([self._answers], [], [], min(left, _LOOK_SECONDS))
            if there:
                read = os.read(self._answers, _READ)
                if not read:
                    raise self._died()
                self._rest += read
            elif self._process.poll() is not None:
                raise self._died()
        text, _, self._rest = self._rest.partition(b"\n")
        return msgspec.json.decode(text, type=Line)

    def _died(self) -> TrialError:
        """What became of it, in a sentence."""
        try:
            code = self._process.wait(timeout=_LOOK_SECONDS)
        except subprocess.TimeoutExpired:  # it closed its pipe, and goes on
            return TrialError("its process closed the pipe of its answers")
        words = self._last_words()
        said = f": {words}" if words else ""
        if code >= 0:
            return TrialError(f"its process ended with exit code {code}{said}")
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        if any(word in words for word in _NO_MEMORY):
            said = f" when memory ran out{said}"
        elif name == "SIGKILL":
            said = ", as the system does where memory runs out"
        elif name == "SIGILL":
            said = f": this processor lacks an instruction{said}"
        return TrialError(f"its process died of {name}{said}")

    def _last_words(self) -> str:
        """The last line that was printed and says something."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, self._log.stat().st_size - _TAIL))
                tail = file.read().decode(errors="replace")
        except OSError:
            return ""
        lines = [line.strip() for line in tail.splitlines() if _WORDS.search(line)]
        return lines[-1][:200] if lines else ""
