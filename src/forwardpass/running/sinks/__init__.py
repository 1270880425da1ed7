"""Sinks: where results go, one file each.

A sink is a class with

    folder               where manifest and quarantine live; None where nothing can be resumed
    write(index, shard)  -> Written: the shard is there whole, or it is not there
    finish()             after the last shard

A Shard holds columns of equal length: the key, kept columns, outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from forwardpass.executing.decoding import Delivered


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
    """What became of a shard: its name, the SHA-256 of its content, and the rows that did not fit
    the columns' types, by index with the reason."""

    name: str
    sha256: str
    left_out: Mapping[int, str] = field(default_factory=dict[int, str])


class Sink(Protocol):
    """Where shards go."""

    @property
    def folder(self) -> Path | None: ...
    def write(self, index: int, shard: Shard) -> Written: ...
    def finish(self) -> None: ...
