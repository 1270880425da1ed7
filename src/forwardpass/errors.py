"""Everything forwardpass raises, as one tree.

    ForwardpassError
    ├── UsageError           the call itself is wrong                         exit 2, HTTP 400
    │   ├── GrammarError     a signature, a plan or a reference does not parse
    │   ├── OutputExistsError OUT is there already and --resume was not given
    │   └── ResumeError      OUT belongs to another Forward, machine or data
    ├── LoadError            the model cannot be loaded                       exit 3, HTTP 500
    │   └── MissingExtraError an optional library is not installed
    ├── BuildError           a step or a backend cannot make it of this model  exit 3, HTTP 500
    ├── DataError            the data cannot be read or do not fit            exit 3, HTTP 400
    ├── PassError            the forward pass raised                          exit 4, HTTP 500
    └── LeftOutError         a row was left out and `strict` forbids it       exit 5, HTTP 422

Each class carries its exit code and its HTTP status. A message says what was called, what
came, what was expected, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from types import TracebackType
from typing import Any, ClassVar


class ForwardpassError(Exception):
    """Base of every error that forwardpass raises on purpose."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500


class UsageError(ForwardpassError):
    """The call is wrong: an unknown name, a bad argument, options that do not go together."""

    exit_code = 2
    http_status = 400


class GrammarError(UsageError):
    """A signature, a plan or a reference does not follow its grammar."""


class OutputExistsError(UsageError):
    """The output is there already, and nobody said `resume`."""


class ResumeError(UsageError):
    """The output was begun by another Forward, calibration, machine or data."""


class LoadError(ForwardpassError):
    """A reference cannot be turned into a model."""

    exit_code = 3


class MissingExtraError(LoadError):
    """An optional library is needed and not installed."""


class BuildError(ForwardpassError):
    """A model cannot be changed or lowered so: every way of it failed, or computes otherwise."""

    exit_code = 3


class DataError(ForwardpassError):
    """The data cannot be read, or do not fit the model's signature."""

    exit_code = 3
    http_status = 400


class PassError(ForwardpassError):
    """The forward pass itself raised.

    `record` is the Record of the calls before that, where the pass was being recorded.
    """

    exit_code = 4
    record: Any = None


class LeftOutError(ForwardpassError):
    """A row was quarantined, cut or came out as NaN under `strict`."""

    exit_code = 5
    http_status = 422


class Escaped(Exception):
    """Stands for what user code raised to end the process, or what a library of it panicked with:
    its cause, a SystemExit or another BaseException. It ends an operation, as any error does."""


class Reported(Exception):
    """Stands for an exception of another process, whose class may not be known here: what is said
    of it, on one line."""


class contained:
    """Within, user code runs: all that leaves is an Exception, or the KeyboardInterrupt of who
    stops it. Raises Escaped in place of the rest.

    `sys.exit()` in a forward would else end a run in its middle with exit code 0, and a panic of a
    library written in Rust would end it for one row.
    """

    __slots__ = ()

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and not isinstance(
            error, Exception | KeyboardInterrupt | GeneratorExit
        ):
            raise Escaped(said(error)) from error


def said(error: BaseException) -> str:
    """An exception as one line: its class and the first line of its message."""
    if isinstance(error, Escaped) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, Reported):
        return str(error)
    name = type(error).__name__
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # noqa: BLE001 - the user's own class, whose __str__ is wrong
        return name
    return f"{name}: {lines[0][:500]}" if lines else name


def missing_extra(library: str, extra: str, purpose: str) -> MissingExtraError:
    """The error for an optional `library` that `purpose` needs and that is not installed."""
    return MissingExtraError(
        f"{purpose} needs the library {library!r}, which is not installed. "
        f"Install it with: pip install 'forwardpass[{extra}]'"
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown `name`: what is known, the nearest first.

    A name may have millions of characters, and each that is compared is a step of Python here.
    One that is three times as long as all that is known is close to none of it, so that no more
    has to be looked at.
    """
    names = sorted(known)
    most = 3 * max(map(len, names), default=0)
    close = difflib.get_close_matches(name[:most], names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names) or 'none'}"
