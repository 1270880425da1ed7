"""Sinks: where results go. The folder is the list: one module a kind.

A module states

    TAKES = (".npy",)          what OUT means it: suffixes; "-"; None: no OUT; "": any other name
    opened(out, options)       -> Sink, with nothing written yet. Raises UsageError for options that
                               have no place in it

and its sink has

    store                where shards, manifest and quarantine live; None for a stream, which cannot
                         be resumed
    path                 the file that a finished run leaves beside its store; None where it leaves
                         that alone
    write(index, shard)  -> Written: the shard is there whole, or it is not there
    finish()             after the last shard

A Shard holds columns of equal length: the key, kept columns, outputs. Importing a module is cheap:
what is heavy, or optional, is imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from forwardpass.executing.decoding import Delivered
from forwardpass.running.options import Options
from forwardpass.running.stores import Store


@dataclass(frozen=True)
class Shard:
    """Rows that are delivered together.

    `outputs` names the columns that the model made; the others are the key and kept columns.
    """

    columns: Mapping[str, Delivered]
    outputs: tuple[str, ...]
    rows: int


@dataclass(frozen=True)
class Written:
    """What became of a shard: its name, the SHA-256 of its content, the bytes of its file, and the
    rows that did not fit the columns' types, by index with the reason."""

    name: str
    sha256: str
    bytes: int
    left_out: Mapping[int, str] = field(default_factory=dict[int, str])


class Sink(Protocol):
    """Where shards go."""

    @property
    def store(self) -> Store | None: ...
    @property
    def path(self) -> Path | None: ...
    def write(self, index: int, shard: Shard) -> Written: ...
    def finish(self) -> None: ...


class SinkKind(Protocol):
    """What a module of this folder offers."""

    TAKES: tuple[str | None, ...]

    def opened(self, out: str | None, options: Options) -> Sink: ...
