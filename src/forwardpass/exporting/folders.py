"""Folders and files that are whole or not there."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from forwardpass.durable import synced
from forwardpass.errors import DataError, OutputExistsError
from forwardpass.loading.artefacts import digest_of
from forwardpass.nouns.artefacts import MANIFEST, Sum


@contextmanager
def staged(*places: Path) -> Generator[Path]:
    """A folder beside the first of these places, for what is to take their names; then it is gone.

    Raises OutputExistsError where one of them is there, DataError for what the system refuses.
    """
    for place in places:
        if place.exists():
            raise OutputExistsError(f"{place} is there already; give another name, or remove it")
    parent = places[0].parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{places[0].name}-", dir=parent))
    except OSError as error:
        raise _refused(places[0], error) from error
    try:
        yield staging
    except OSError as error:
        raise _refused(places[0], error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def whole_or_not_there(folder: Path) -> Generator[Path]:
    """A folder beside `folder`, which takes its name in the end; removed if anything raises.

    Raises what `staged` does.
    """
    with staged(folder) as staging:
        yield staging
        for place in sorted(staging.rglob("*"), reverse=True):
            synced(place)
        staging.chmod(0o755)  # mkdtemp makes folders that nobody else may read
        _named(staging, folder)


def moved(files: Mapping[Path, Path]) -> None:
    """Give files their names, all of them or none. Raises what `staged` does."""
    done: list[Path] = []
    try:
        for file, place in files.items():
            file.chmod(0o644)
            _named(file, place)
            done.append(place)
    except BaseException:
        for place in done:
            place.unlink(missing_ok=True)
        raise


def _named(staging: Path, folder: Path) -> None:
    """Give a file or a folder its name, unless something has that by now."""
    synced(staging)
    try:
        if folder.exists():
            raise FileExistsError(errno.EEXIST, "")
        os.rename(staging, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise
        raise OutputExistsError(
            f"{folder} came to be there while it was exported, and stays as it is; give another "
            "name"
        ) from error
    synced(folder.parent)


def sums(folder: Path) -> dict[str, Sum]:
    """What each file of the folder is, by its path in it; without the manifest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): Sum(path.stat().st_size, digest_of(path))
        for path in files
        if path.name != MANIFEST
    }


def _refused(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"{folder} cannot be written: {error.strerror or error}; nothing was left there"
    )
