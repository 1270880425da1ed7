"""Files that are damaged, or not what their names say: told as what they are, never a traceback."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from forwardpass.errors import DataError, LoadError

_HEAD = 256
_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head")


@contextmanager
def loading(what: str) -> Generator[None]:
    """Whatever reading `what` raises is a LoadError: it is the file that is wrong.

    Libraries raise errors of any kind over a damaged file, some written in Rust even outside of
    Exception. No code of the user may run within.
    """
    try:
        yield
    except (LoadError, DataError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = f": {lines[0][:300]}" if lines else ""
        raise LoadError(f"{what} cannot be loaded: {type(error).__name__}{said}") from error


def require_content(path: Path) -> None:
    """Raise LoadError for a file that is empty, a pointer of Git LFS, or a web page."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror or error}") from error
    if not head:
        raise LoadError(f"{path} is empty; download or save it again")
    if head.startswith(_POINTER):
        raise LoadError(
            f"{path} is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`"
        )
    if head.lstrip().lower().startswith(_PAGES):
        raise LoadError(
            f"{path} is a web page, not a file of a model: a download was answered with a page. "
            "Download it again"
        )
