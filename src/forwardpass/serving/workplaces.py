"""A workplace: a folder of a server, for as long as that lives, however it comes to its end."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Final

_PREFIX: Final = "forwardpass-serve-"


@contextmanager
def workplace() -> Generator[Path]:
    """A new folder that nobody else reads; in the end it is removed.

    A server that was killed removes nothing: the next one that starts does it. Who lives holds a
    lock on his folder, which the system lets go of with the process, and with nothing else.
    """
    for left in Path(gettempdir()).glob(f"{_PREFIX}*"):
        lock = _locked(left)
        if lock is not None:
            shutil.rmtree(left, ignore_errors=True)  # of another user, or one that removes it now
            os.close(lock)
    folder, lock = _made()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _made() -> tuple[Path, int]:
    """A folder and the lock on it. Another server may remove what is not locked yet."""
    while True:
        folder = Path(mkdtemp(prefix=_PREFIX))
        lock = _locked(folder)
        if lock is not None:
            if folder.is_dir():
                return folder, lock
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the lock on a folder; None where another does, or it is gone."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor
    return None
