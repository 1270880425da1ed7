"""Sources: where rows come from, in blocks of columns, larger than memory.

`open_source(anything) -> Source` takes

- a path or URL (`s3://…`, `memory://…`, whatever fsspec knows), a glob, a folder, or `-`; the
  suffix decides which module of `sources/` reads it, and `.gz`, `.bz2`, `.xz`, `.zst` are undone;
- `file.py:name`: a function that yields rows, or an iterable of them;
- a list of rows, a dict of columns, an array, a tensor, a data frame, Rows, an iterable, or a
  function without arguments that returns one.

A new kind of file is a new module in `sources/`, which states what such a module offers.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

from forwardpass.errors import DataError, UsageError, nearest
from forwardpass.nouns.arrow import pa
from forwardpass.nouns.rows import Rows
from forwardpass.reading import columns, memory
from forwardpass.reading.asked import Asked
from forwardpass.reading.files import COMPRESSIONS, File
from forwardpass.reading.keys import KeyedSource
from forwardpass.reading.lines import lines_of
from forwardpass.reading.places import Place, find
from forwardpass.reading.pyfiles import import_file
from forwardpass.reading.sources import GuessedKind, SourceKind, by_suffix, kinds, text_lines
from forwardpass.reading.typed import TypedSource

__all__ = ["Source", "open_source"]

_PYTHON = re.compile(r"(?P<path>.+\.py):(?P<name>[A-Za-z_]\w*)")
_OWN_RECORDS = ("manifest.jsonl", "quarantine.jsonl")  # what `fwd run` writes beside its shards
_MANY_FILES = 1_000


class Source(Protocol):
    """Rows in order, in blocks, from any position on."""

    @property
    def description(self) -> str:
        """What people call it: `reviews/*.jsonl (3 files)`."""
        ...

    def read(self, start: int = 0) -> Iterator[Rows]:
        """The blocks from the global position `start` on. Positions count rows that cannot be
        read, too. Raises DataError where the source as a whole cannot be read."""
        ...

    def count(self) -> int | None:
        """All rows, those that cannot be read included, where that is cheap to know."""
        ...

    def notes(self) -> tuple[str, ...]:
        """What was found out or left aside on opening, a sentence each, for the report."""
        ...

    def identity(self) -> list[dict[str, Any]]:
        """What the data are known by, for JSON; equal as long as they are the same.

        A file: {path, bytes, mtime, sha256_ends}, the last over its first and last 64 KiB; more
        than a thousand files together: {path, files, bytes, sha256}. Of one of several parts also
        {split_files, sha256}, of the names and bytes of all. In memory: {kind, rows, sha256}. What
        cannot be verified: {kind}.
        """
        ...


def open_source(
    source: object,
    key: str | None = None,
    *,
    keep: Sequence[str] = (),
    types: Mapping[str, str] | None = None,
    wanted: Sequence[str] = (),
    delimiter: str | None = None,
    split: tuple[int, int] | None = None,
) -> Source:
    """The Source that `source` is or refers to; see Asked for what else is asked of it.

    `types` are those of columns, whatever they hold: see typed.KINDS. `split` (k, n) takes each
    n-th of its files, from the k-th on.

    Raises DataError for what is no source, is not there, is of no known kind, or has fewer files
    than it is split into.
    """
    asked = Asked(key, tuple(keep), tuple(types or ()), tuple(wanted), delimiter)
    opened = _opened(source, asked)
    if split is not None:
        opened = _part(opened, *split)
    if delimiter is not None and not (
        isinstance(opened, FileSource) and isinstance(opened.kind, GuessedKind)
    ):
        raise UsageError(f"--delimiter is for CSV, and {opened.description} is none")
    if types:
        opened = TypedSource(opened, types)
    return opened if key is None else KeyedSource(opened, key)


def _opened(source: object, asked: Asked) -> Source:
    if isinstance(source, str | os.PathLike):
        return _referred(os.fspath(cast("str", source)), asked)
    if isinstance(source, Rows):
        return memory.from_rows(source)
    if isinstance(source, list):
        return memory.from_list(cast("list[object]", source))
    if isinstance(source, Mapping):
        return memory.from_columns(cast("Mapping[str, object]", source))
    if columns.is_array(source):
        return memory.from_columns({"array": source})
    if hasattr(source, "__arrow_c_stream__"):  # pandas, polars, Arrow: all offer their columns so
        table = pa.table(cast("Any", source))
        return memory.from_columns(dict(zip(table.column_names, table.columns, strict=True)))
    kind = type(source).__name__
    if not isinstance(source, bytes | bytearray | memoryview):
        if callable(source) and not isinstance(source, Iterable):
            return memory.IterableSource(
                getattr(source, "__name__", kind), cast("Callable[[], Iterable[object]]", source)
            )
        if isinstance(source, Iterable):
            return memory.from_iterable(cast("Iterable[object]", source), f"the rows of a {kind}")
        if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
            return memory.from_indexed(source, f"the rows of a {kind}")
    raise DataError(
        f"rows cannot be read from one value of type {kind}; give a path, a list of rows, a dict "
        "of columns, an array, an iterable, or a function that returns one"
    )


def _part(source: Source, number: int, count: int) -> FileSource:
    """Each `count`-th file of a source, from file `number` on."""
    files = source.files if isinstance(source, FileSource) else ()
    if len(files) < count:
        raise DataError(
            f"--part {number}/{count}: {source.description} has "
            f"{len(files) or 'no'} files, and each part takes files whole; split it into "
            f"{f'at most {len(files)} parts' if files else 'files first'}"
        )
    assert isinstance(source, FileSource)
    told = f"{source.description}, part {number} of {count}"
    return replace(
        source, description=told, files=files[number - 1 :: count], split=_split_identity(files)
    )


def _split_identity(files: Sequence[File]) -> dict[str, Any]:
    """What all parts of a split have in common: their machines may know a file by other paths."""
    named = "".join(f"{file.name}\0{file.bytes}\n" for file in files)
    return {"split_files": len(files), "sha256": hashlib.sha256(named.encode()).hexdigest()}


def _referred(reference: str, asked: Asked) -> Source:
    if reference == "-":
        return StandardInput()
    python = _PYTHON.fullmatch(reference)
    if python:
        return _python(reference, python["path"], python["name"], asked)
    if reference.endswith(".py"):
        raise DataError(f"{reference} is code; name what yields the rows in it: {reference}:rows")
    place = find(reference)
    files = _of_one_kind(place)
    kind = kinds()[by_suffix()[files[0].suffix]]
    packed = next((file for file in files if file.compression and not kind.STREAMED), None)
    if packed is not None:
        raise DataError(
            f"{packed.name}: {packed.suffix} files are not read from the front to the back; "
            f"undo the {packed.compression} first"
        )
    number = f" ({len(files):,} files)" if place.kind != "file" else ""
    notes = kind.notes(files, asked) if isinstance(kind, GuessedKind) else ()
    aside = Counter(file.suffix for file in place.files if not _is_own(file))
    aside.subtract(file.suffix for file in files)
    if aside.total():
        notes = (*notes, f"of {reference} these files are not read: {_told(+aside)}")
    return FileSource(reference + number, reference, kind, files, asked, notes)


def _of_one_kind(place: Place) -> tuple[File, ...]:
    """The files of `place` that are rows. Raises DataError unless these are of one kind."""
    known = by_suffix()
    files = place.files
    if place.kind == "folder":
        files = tuple(file for file in files if not _is_own(file))
        for winner in ("parquet_files", "image_folders"):
            chosen = tuple(file for file in files if known.get(file.suffix) == winner)
            if chosen:
                return chosen
    found = Counter(file.suffix for file in files)
    names = {known.get(suffix) for suffix in found}
    if len(names) == 1 and None not in names:
        return files
    if not names - {None} and place.kind == "folder":
        raise DataError(
            f"the folder {place.reference} holds no rows that can be read: it has "
            f"{_told(found)}; known: {', '.join(sorted(known))}"
        )
    if len(names) > 1:
        suffix = next(suffix for suffix in found if suffix in known)
        raise DataError(
            f"{place.reference} leads to several kinds of files: {_told(found)}; "
            f"give a glob of one kind, such as '*{suffix}'"
        )
    odd = files[0]
    raise DataError(
        f"{odd.name}: no source reads files that end in {odd.suffix or 'no suffix'!r}; "
        f"{nearest(odd.suffix, known)}, also with {', '.join(COMPRESSIONS)}; for anything else "
        "give file.py:name, a function that yields rows"
    )


def _is_own(file: File) -> bool:
    return file.path.rpartition("/")[2] in _OWN_RECORDS


def _told(found: Counter[str]) -> str:
    counts = [f"{count:,} × {suffix or 'no suffix'}" for suffix, count in found.most_common()]
    return ", ".join(counts) or "no files"


def _python(reference: str, path: str, name: str, asked: Asked) -> Source:
    module = import_file(path)
    if not hasattr(module, name):
        public = [word for word in vars(module) if not word.startswith("_")]
        raise DataError(f"{path} has no {name!r}; {nearest(name, public)}")
    source: object = getattr(module, name)
    if not callable(source) and not isinstance(source, Iterable):
        raise DataError(
            f"{reference} is a {type(source).__name__}; rows come from a function that yields "
            "them, or from an iterable"
        )
    if not callable(source):
        return _opened(source, asked)
    file = find(path).files[0]
    known = [{"kind": "python", "name": name, **file.identity()}]
    return memory.IterableSource(reference, cast("Callable[[], Iterable[object]]", source), known)


@dataclass(frozen=True)
class FileSource:
    """Files of one kind, read one after the other as one source."""

    description: str
    reference: str
    kind: SourceKind
    files: tuple[File, ...] = field(repr=False)
    asked: Asked
    found: tuple[str, ...]
    split: dict[str, Any] | None = None

    def read(self, start: int = 0) -> Iterator[Rows]:
        if isinstance(self.kind, GuessedKind):
            guessed = cast("GuessedKind", self.kind)
            return guessed.read(self.files, start, self.asked)
        return self.kind.read(self.files, start)

    def count(self) -> int | None:
        return self.kind.count(self.files)

    def notes(self) -> tuple[str, ...]:
        return self.found

    def identity(self) -> list[dict[str, Any]]:
        return self._own_identity() + ([] if self.split is None else [self.split])

    def _own_identity(self) -> list[dict[str, Any]]:
        if len(self.files) <= _MANY_FILES:
            return [file.identity() for file in self.files]
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.path}\0{file.bytes}\0{file.mtime}\n".encode())
        for file in (self.files[0], self.files[-1]):
            digest.update(file.identity()["sha256_ends"].encode())
        return [
            {
                "path": self.reference,
                "files": len(self.files),
                "bytes": sum(file.bytes or 0 for file in self.files),
                "sha256": digest.hexdigest(),
            }
        ]


@dataclass
class StandardInput:
    """Lines of text that come in on stdin: once, from the beginning."""

    description: str = "standard input"
    begun: bool = False

    def read(self, start: int = 0) -> Iterator[Rows]:
        if start or self.begun:
            raise DataError(
                "standard input can be read once, from its beginning; to resume, or to read it "
                "again, put the lines into a .txt file"
            )
        self.begun = True
        return text_lines.rows(lines_of(sys.stdin.buffer, self.description), 0)

    def count(self) -> None:
        return None

    def notes(self) -> tuple[str, ...]:
        return ()

    def identity(self) -> list[dict[str, Any]]:
        return [{"kind": "stdin"}]
