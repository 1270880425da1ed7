"""A process of ours: how it is started, and that it ends with the one that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Final, NamedTuple

_ROOT: Final = Path(__file__).parent.parent
_PROGRAM: Final = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from forwardpass.starting import begin; begin(*sys.argv[1:])"
)
"""It finds forwardpass where this process did, and nothing of the user's before it is asked to."""
_OF_THE_TERMINAL: Final = ("SIGINT", "SIGHUP")


class Started(NamedTuple):
    """A process, and the end of a pipe that keeps it alive: when it is closed, the process ends."""

    process: subprocess.Popen[bytes]
    life: int


def start(
    main: str,
    descriptors: Sequence[int] = (),
    *,
    stdout: int | None = None,
    stderr: int | IO[bytes] | None = None,
    start_new_session: bool = False,
) -> Started:
    """Start a Python process that calls `main`, as "package.module:function", with `descriptors`.

    These are closed here. It has no standard input, and does not heed the terminal's Ctrl-C: who
    started it ends it. All else is as Popen takes it.
    """
    life, mine = os.pipe()
    theirs = (life, *descriptors)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, str(_ROOT), main, *map(str, theirs)],
            stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, pass_fds=theirs,
            start_new_session=start_new_session,
        )  # fmt: skip
    except BaseException:
        os.close(mine)
        raise
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    return Started(process, mine)


def begin(main: str, *ends: str) -> None:
    """The process that was started: what is to be called, the end of a pipe, and descriptors."""
    for name in _OF_THE_TERMINAL:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    life, *descriptors = (int(end) for end in ends)
    for descriptor in (life, *descriptors):
        os.set_inheritable(descriptor, False)  # what user code starts must not hold them open
    end_with(life)
    module, _, function = main.partition(":")
    getattr(import_module(module), function)(*descriptors)


def end_with(life: int) -> None:
    """End this process when the other end of a pipe is closed. On Linux the kernel does it, though
    code that never returns to Python be at work."""
    import fcntl

    if not hasattr(fcntl, "F_SETSIG"):

        def wait() -> None:
            os.read(life, 1)
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()
        return
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(life, fcntl.F_GETFL)
    fcntl.fcntl(life, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    try:
        if os.read(life, 1) == b"":
            os._exit(1)  # it was closed before anyone listened
    except BlockingIOError:
        pass  # open, and silent
