"""Files that are whole or not there, whatever happens to the process or the machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

ASIDE = ".aside"


def written(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file aside, sync it, and rename it into place."""
    aside = path.with_name(f".{path.name}{ASIDE}")
    with aside.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    synced(path.parent)


def appended(path: Path, data: bytes) -> int:
    """Append to a file and sync it; the length of the file after that, in bytes."""
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def truncated(path: Path, length: int) -> None:
    """Cut what was appended after `length` bytes and never committed."""
    if path.exists() and path.stat().st_size > length:
        with path.open("r+b") as file:
            file.truncate(length)
            os.fsync(file.fileno())


def synced(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder; a no-op where folders cannot be opened
    (Windows)."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
