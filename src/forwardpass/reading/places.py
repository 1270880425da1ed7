"""Places: what a path, a folder, a glob or a URL leads to."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal

from forwardpass.errors import DataError, MissingExtraError, nearest
from forwardpass.reading.files import File, file_of


@dataclass(frozen=True)
class Place:
    """The files that a reference leads to, sorted by path; hidden ones are left out."""

    reference: str
    kind: Literal["file", "folder", "glob"]
    files: tuple[File, ...]


def find(reference: str) -> Place:
    """Find what `reference` leads to: a file, a folder with all below it, or a glob.

    Raises DataError where there is nothing, MissingExtraError where a URL needs a driver.
    """
    filesystem, path = _filesystem(reference)
    try:
        info = _info(filesystem, path)
        if info is None:
            if not _is_glob(reference):
                raise _missing(reference, filesystem, path)
            return Place(reference, "glob", tuple(_matches(filesystem, path, reference)))
        if info["type"] != "directory":
            folder = str(info["name"]).rpartition("/")[0]
            return Place(reference, "file", (file_of(filesystem, info, folder),))
        return Place(reference, "folder", tuple(_below(filesystem, str(info["name"]))))
    except DataError:
        raise
    except Exception as error:  # each driver has errors of its own: no rights, no network
        raise DataError(
            f"cannot read {reference}: {type(error).__name__}: {error or 'no reason given'}"
        ) from error


class _Disk:
    """What is asked of a filesystem, for a path of this machine: fsspec, which is asked all else,
    loads more than a run of a few rows does."""

    protocol = "file"

    def info(self, path: str) -> dict[str, Any]:
        """What fsspec says of a file or folder."""
        status = os.stat(path)
        kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
        return {"name": path, "type": kind, "size": status.st_size, "mtime": status.st_mtime}

    def open(self, path: str, mode: str) -> IO[Any]:
        """The file."""
        return open(path, mode)


def _filesystem(reference: str) -> tuple[Any, str]:
    here = os.path.abspath(os.path.expanduser(reference))
    if os.path.exists(here):
        return _Disk(), here.replace(os.sep, "/")
    import fsspec
    from fsspec.registry import known_implementations

    protocol = reference.rpartition("://")[0].rpartition("::")[2] or "file"
    try:
        filesystem, path = fsspec.core.url_to_fs(os.path.expanduser(reference))
    except ImportError as error:
        driver = str(known_implementations.get(protocol, {}).get("class", "")).partition(".")[0]
        extra = protocol.replace("https", "http")
        package = driver if driver and driver != "fsspec" else f"'fsspec[{extra}]'"
        raise MissingExtraError(
            f"reading {reference} needs a driver for {protocol}://, which is not installed "
            f"({error}). Install it with: pip install {package}"
        ) from error
    except ValueError as error:
        raise DataError(
            f"cannot read {reference}: {protocol}:// is no protocol that fsspec knows; "
            f"{nearest(protocol, known_implementations)}"
        ) from error
    return filesystem, str(path)


def _info(filesystem: Any, path: str) -> dict[str, Any] | None:
    try:
        return filesystem.info(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_glob(reference: str) -> bool:
    # The `?` of a web address begins its query, and a web server lists no files.
    return not reference.startswith(("http://", "https://")) and any(c in reference for c in "*?[")


def _matches(filesystem: Any, path: str, reference: str) -> Iterator[File]:
    fixed = path[: min(path.find(c) for c in "*?[" if c in path)]
    folder = fixed.rpartition("/")[0]
    found: dict[str, dict[str, Any]] = filesystem.glob(path, detail=True)
    files = [file_of(filesystem, i, folder) for i in found.values() if i["type"] != "directory"]
    if not files:
        raise DataError(
            f"no file matches {reference}; quote the glob in a shell, and use ** for folders below"
        )
    yield from sorted(files, key=lambda file: file.path)


def _below(filesystem: Any, folder: str) -> list[File]:
    probe = File(filesystem, folder, folder, None, None)
    if probe.is_local:
        files = list(_walk(filesystem, folder, folder, frozenset()))
    else:
        found: dict[str, dict[str, Any]] = filesystem.find(folder, detail=True)
        files = [file_of(filesystem, info, folder) for info in found.values()]
        files = [f for f in files if not any(p.startswith(".") for p in f.relative.split("/"))]
    return sorted(files, key=lambda file: file.path)


def _walk(filesystem: Any, top: str, folder: str, above: frozenset[str]) -> Iterator[File]:
    # fsspec's own listing makes a dict of a dozen entries a file: too much for a million images.
    real = os.path.realpath(folder)
    if real in above:  # a link that leads back up
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(filesystem, top, entry.path, above | {real})
            elif entry.is_file():
                status = entry.stat()
                yield File(filesystem, entry.path, top, status.st_size, status.st_mtime)


def _missing(reference: str, filesystem: Any, path: str) -> DataError:
    folder, _, name = path.rpartition("/")
    hint = ""
    if File(filesystem, path, folder, None, None).is_local and os.path.isdir(folder or "/"):
        close = difflib.get_close_matches(name, os.listdir(folder or "/"), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
    return DataError(f"there is no file or folder {reference}{hint}")
