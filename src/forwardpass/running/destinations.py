"""What OUT means: the sink that takes it, and the journal of what is written there."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from forwardpass.errors import DataError, OutputExistsError, UsageError
from forwardpass.nouns.folders import plugins
from forwardpass.running import sinks
from forwardpass.running.journals import Journal
from forwardpass.running.options import Options
from forwardpass.running.sinks import Sink, SinkKind
from forwardpass.running.stores import Store

SPLIT = "split-{}-of-{}"
"""The folder of one of several drivers."""
_FILES = {".parquet", ".jsonl", ".json", ".csv", ".tsv", ".npz", ".safetensors", ".txt", ".arrow"}
"""Names that nobody gives to a folder."""


def opened(
    out: str | os.PathLike[str] | None, options: Options, resume: bool
) -> tuple[Sink, Journal | None]:
    """The sink that `out` means, and its journal where it has one.

    Raises UsageError for what is no destination, OutputExistsError for what is there already.
    """
    text = None if out is None else os.fspath(out)
    if options.split is not None:
        text = _split(text, *options.split)
    sink = _meant(text).opened(text, options)
    store, path = sink.store, sink.path
    if store is None:
        if resume:
            raise UsageError("--resume needs a folder or a .npy file: a stream keeps no manifest")
        return sink, None
    if path is not None and path.exists() and not (resume and store.is_there()):
        raise OutputExistsError(f"{path} is there already; give another file, or remove it")
    try:
        journal = Journal.opened(store, resume)
    except OSError as error:
        raise UsageError(f"cannot write to {text}: {error.strerror or error}") from error
    if journal.finished is not None and path is not None and not path.exists():
        journal.close()
        raise UsageError(
            f"{path} was finished and is gone; remove {store.name} to compute it again"
        )
    return sink, journal


@contextmanager
def writing(store: Store | None) -> Generator[None]:
    """What the system refuses while results go into a store is a DataError: a full disk, a folder
    that was removed. A stream that nobody reads any more (None) stays an OSError."""
    try:
        yield
    except OSError as error:
        if store is None:
            raise
        why = f"results cannot be written to {store.name}: {error.strerror or error}"
        raise DataError(
            f"{why}. What is committed stays: mend that, and go on with --resume"
            if store.is_there()
            else f"{why}: the folder was removed while the run wrote into it"
        ) from error


def store_of(out: str, options: Options) -> Store | None:
    """The store that OUT means; None for a stream."""
    place = out if options.split is None else _split(out, *options.split)
    return _meant(place).opened(place, options).store


def _split(out: str | None, number: int, count: int) -> str:
    """Where one of several drivers writes."""
    if out is None or out == "-" or Path(out).suffix == ".npy":
        raise UsageError(
            f"--part {number}/{count} writes to a folder of its own in OUT, and {out or 'no OUT'} "
            "is none; give a folder, which `fwd run --join` completes"
        )
    return f"{out.rstrip('/')}/{SPLIT.format(number, count)}"


def _meant(out: str | None) -> SinkKind:
    """The kind of sink that takes `out`."""
    kinds = cast("dict[str, SinkKind]", plugins(sinks))
    takers = {taken: kind for kind in kinds.values() for taken in kind.TAKES}
    suffix = out if out is None or out == "-" else Path(out).suffix
    if suffix in takers:
        return takers[suffix]
    if suffix in _FILES:
        raise UsageError(
            f"{Path(str(out))}: results go to a folder of Parquet shards (a name without "
            f"{suffix}), to NAME.npy, or to - (JSON lines on standard output)"
        )
    return takers[""]
