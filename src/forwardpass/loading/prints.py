"""What user code prints goes to standard error, where standard output is a document of ours."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Generator
from typing import TextIO

from forwardpass.errors import DataError

_OWN: list[TextIO] = []
"""Standard output as it was, innermost last, while `aside` holds."""


def output() -> TextIO:
    """Standard output, for what forwardpass itself has to write there."""
    return _OWN[-1] if _OWN else sys.stdout


@contextlib.contextmanager
def printing() -> Generator[None]:
    """What the operating system refuses of standard output is a DataError: a full disk behind it.
    A reader that left (`| head`) stays a BrokenPipeError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise DataError(f"standard output cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def aside() -> Generator[None]:
    """Within, only what goes through `output` reaches standard output.

    All else that is printed, in any thread, by Python or by a library's C code, goes to standard
    error. Afterwards all is as before. Nested uses are one.
    """
    if _OWN or sys.stdout is None or sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        yield  # a process without a terminal may lack either
        return
    before = sys.stdout
    before.flush()
    own = _descriptor_aside(before)
    _OWN.append(own or before)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        _OWN.clear()
        if sys.stdout is sys.stderr:
            sys.stdout = before
        if own is not None:
            _flush_c()
            try:
                with printing():
                    own.flush()
            finally:
                os.dup2(own.fileno(), before.fileno())
                with contextlib.suppress(OSError):  # a reader that left: told by the flush
                    own.close()


def _descriptor_aside(stdout: TextIO) -> TextIO | None:
    """A stream of its own on what descriptor 1 is, which is then what 2 is; None where `stdout` is
    not that descriptor (a test's, a notebook's)."""
    try:
        if stdout.fileno() != 1 or sys.stderr.fileno() != 2:
            return None
    except (AttributeError, OSError, ValueError):
        return None
    kept = os.dup(1)
    os.dup2(2, 1)
    return open(kept, "w", encoding=stdout.encoding, errors=stdout.errors, buffering=1)


def _flush_c() -> None:
    """Let C libraries write what they hold back, before descriptor 1 is standard output again."""
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
