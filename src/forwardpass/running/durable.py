"""Files that are whole or not there, whatever happens to the process or the machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from forwardpass.errors import DataError

ASIDE = ".aside"


@contextmanager
def writing(folder: Path | None) -> Generator[None]:
    """What the operating system refuses while results go into `folder` is a DataError: a full disk,
    a folder that was removed. A stream that nobody reads any more (None) stays an OSError."""
    try:
        yield
    except OSError as error:
        if folder is None:
            raise
        why = f"results cannot be written to {folder}: {error.strerror or error}"
        raise DataError(
            f"{why}. What is committed stays: mend that, and go on with --resume"
            if folder.is_dir()
            else f"{why}: the folder was removed while the run wrote into it"
        ) from error


def written(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file aside, sync it, and rename it into place."""
    aside = path.with_name(f".{path.name}{ASIDE}")
    with aside.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync_folder(path.parent)


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


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable; a no-op where folders cannot be opened (Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
