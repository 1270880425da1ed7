"""Kinds of files that rows are read from. The folder is the list: one module a kind.

A module states

    SUFFIXES = (".csv", ".tsv")        the files that are of this kind
    STREAMED = True                    read from front to back, so that .gz can be undone on the way

and two functions of the files of one source, in their order:

    read(files, start) -> Iterator[Rows]
        Blocks in order, from position `start` on; positions count all rows of all files, those
        that cannot be read included: these become a Failure of stage "read", and the others go on.
        What is inferred (the types of a CSV's columns) must not depend on `start`. Raises
        DataError, which names the file, where a file as a whole cannot be read.
    count(files) -> int | None
        All rows, where that is cheap to know.

Where a file is text whose types are guessed, `read` takes what is asked of the columns, too, and a
third function says what was found out:

    read(files, start, asked) -> Iterator[Rows]
    notes(files, asked) -> tuple[str, ...]

Importing a module is cheap, since asking for the suffixes imports all of them: what is heavy, or
optional, is imported inside the functions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Protocol, cast, runtime_checkable

from forwardpass.nouns.folders import plugins
from forwardpass.nouns.rows import Rows
from forwardpass.reading.asked import Asked
from forwardpass.reading.files import File


class SourceKind(Protocol):
    """What a module of this folder offers."""

    SUFFIXES: tuple[str, ...]
    STREAMED: bool

    def read(self, files: Sequence[File], start: int) -> Iterator[Rows]: ...
    def count(self, files: Sequence[File]) -> int | None: ...


@runtime_checkable
class GuessedKind(Protocol):
    """What a module offers whose files do not tell their types."""

    def read(self, files: Sequence[File], start: int, asked: Asked) -> Iterator[Rows]: ...
    def notes(self, files: Sequence[File], asked: Asked) -> tuple[str, ...]: ...


@cache
def kinds() -> dict[str, SourceKind]:
    """The kinds of files by name."""
    return cast("dict[str, SourceKind]", plugins(sys.modules[__name__]))


@cache
def by_suffix() -> dict[str, str]:
    """The names of the kinds by suffix, with its dot, in small letters."""
    return {suffix: name for name, kind in kinds().items() for suffix in kind.SUFFIXES}
