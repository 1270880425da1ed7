"""A folder that is whole or not there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from forwardpass.errors import DataError, OutputExistsError
from forwardpass.loading.artefacts import digest_of
from forwardpass.nouns.artefacts import MANIFEST, Sum


@contextmanager
def whole_or_not_there(folder: Path) -> Generator[Path]:
    """A folder beside `folder`, which takes its name in the end; removed if anything raises.

    Raises OutputExistsError where `folder` is there, DataError for what the system refuses.
    """
    if folder.exists():
        raise OutputExistsError(f"{folder} is there already; give another name, or remove it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise _refused(folder, error) from error
    try:
        yield staging
        for place in sorted(staging.rglob("*"), reverse=True):
            _synced(place)
        _synced(staging)
        staging.chmod(0o755)  # mkdtemp makes folders that nobody else may read
        os.rename(staging, folder)
        _synced(folder.parent)
    except OSError as error:
        raise _refused(folder, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def sums(folder: Path) -> dict[str, Sum]:
    """What each file of the folder is, by its path in it; without the manifest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): Sum(path.stat().st_size, digest_of(path))
        for path in files
        if path.name != MANIFEST
    }


def _synced(path: Path) -> None:
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refused(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"{folder} cannot be written: {error.strerror or error}; nothing was left there"
    )
