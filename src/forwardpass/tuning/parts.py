"""Parts of the data, encoded once: what plans are fitted to, what they are searched with,
and what none of them sees before the end."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np

from forwardpass.errors import DataError, UsageError, nearest
from forwardpass.executing.encoding import Encoder, inferred
from forwardpass.exporting.writing import signed_by
from forwardpass.loading.artefacts import ArtefactProgram
from forwardpass.measuring.memory import available_bytes
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.rows import Rows
from forwardpass.reading import open_source
from forwardpass.reading.blocks import limited
from forwardpass.tensors.arrays import Values, joined, taken
from forwardpass.tensors.blocks import Block, concatenated
from forwardpass.tuning.stored import read_block, write_block
from forwardpass.tuning.workshops import PartName

ROWS: Final = 8_192
"""Rows that are taken, where nobody says how many."""
_CALIBRATION: Final = 256
"""Rows that plans are fitted to, at most: what `export` looks at of data, too."""
_LEAST: Final = 4
"""Rows that can be split so that no part is empty and half of them are final."""
_SHARE: Final = 8
"""Of the free memory, what the rows may take: they are copied while they are split."""


@dataclass(frozen=True)
class DataParts:
    """Encoded rows in three parts; each is in an order drawn by a fixed seed, so that its first
    rows are a sample of it.

    Attributes:
        forward: with the signature by which they were encoded, which has just the inputs that
            they bring.
        folder: where the blocks lie, one folder a part, for other processes.
        blocks: mapped from there.
        labels: of the same rows; empty where no column was asked for.
        left_out: rows that could not be read, encoded or computed by the baseline. why: the first
            of them was, in a sentence.
        digest: SHA-256, in hex, of all of this that decides what is measured.
        notes: what was left aside, a sentence each.
    """

    forward: Forward
    folder: Path
    blocks: Mapping[PartName, Block]
    labels: Mapping[PartName, Values]
    left_out: int
    why: str
    digest: str
    notes: tuple[str, ...]

    @property
    def rows(self) -> dict[PartName, int]:
        """How many rows each part has."""
        return {name: len(block) for name, block in self.blocks.items()}

    def first(self, rows: int, note: str, folder: Path) -> DataParts:
        """The same with so many of the first rows of each part at most; the blocks lie in
        `folder`."""
        kept: dict[PartName, np.ndarray[Any, Any]] = {
            name: np.arange(min(len(block), rows)) for name, block in self.blocks.items()
        }
        return replace(self._taken(kept, folder), notes=(*self.notes, note))

    def without(
        self, failed: Mapping[PartName, Sequence[int]], why: str, folder: Path
    ) -> DataParts:
        """The same without some rows, by their places in each part; the blocks lie in `folder`.

        Raises DataError where a part has no other rows.
        """
        kept: dict[PartName, np.ndarray[Any, Any]] = {
            name: np.delete(np.arange(len(block)), list(failed.get(name, ())))
            for name, block in self.blocks.items()
        }
        for name, places in kept.items():
            if not len(places):
                raise DataError(
                    f"of {len(self.blocks[name])} rows in the {name} part the model computes "
                    f"none: {why}"
                )
        return replace(
            self._taken(kept, folder),
            left_out=self.left_out + sum(map(len, failed.values())),
            why=self.why or why,
        )

    def _taken(self, kept: Mapping[PartName, np.ndarray[Any, Any]], folder: Path) -> DataParts:
        """The same with these rows of each part alone; the blocks lie in `folder`."""
        left: dict[PartName, Block] = {n: self.blocks[n].take(own) for n, own in kept.items()}
        return replace(
            self,
            folder=folder,
            blocks=_saved(folder, left),
            labels={name: taken(value, kept[name]) for name, value in self.labels.items()},
        )


def split(
    forward: Forward,
    source: object,
    folder: Path,
    *,
    rows: int = ROWS,
    label: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> DataParts:
    """Encode the first rows of a source, and split them.

    Args:
        forward: as it was loaded.
        source: as `run` reads it.
        folder: a new one, where the blocks are left.
        rows: at most so many, and fewer where they would not fit into memory.
        label: the column of what is right. columns: which feeds which input, where names differ.

    Raises:
        UsageError: an artefact; a model with a collate; `rows` below four.
        DataError: there are too few rows that can be encoded; there is no such column; the source;
            a full disk.
    """
    model = forward.model
    if isinstance(model.program, ArtefactProgram):
        raise UsageError(f"{model.name} is an artefact already: tune the model it was made from")
    if model.collate is not None:
        raise UsageError(
            f"{model.name} has a collate of its own, and plans are tried on named arrays: say what "
            "goes in with Model(module, inputs=…)"
        )
    if rows < _LEAST:
        raise UsageError(f"rows={rows}: three parts take {_LEAST} rows at least")
    taker = _Taker(forward, label, dict(columns or {}))
    opened = open_source(source, keep=() if label is None else (label,), wanted=model.text_columns)
    most_bytes = available_bytes("cpu") // _SHARE
    blocks = limited(opened.read(0), rows)
    for block in blocks:
        taker.take(block)
        if taker.bytes > most_bytes:
            break
    count = opened.count()
    notes = [*opened.notes()]
    if count is not None and taker.position < count:
        because = "; more would not fit into memory" if taker.bytes > most_bytes else ""
        notes.append(f"the first {taker.position:,} of {count:,} rows are used{because}")
    if taker.failed:
        notes.append(f"{taker.failed:,} rows were left out; the first: {taker.why}")
    return taker.parts(source, folder, tuple(notes))


class _Taker:
    """Encodes blocks of rows, and keeps their labels."""

    def __init__(self, forward: Forward, label: str | None, columns: dict[str, str]) -> None:
        self._forward, self._label, self._columns = forward, label, columns
        self._encoder: Encoder | None = None
        self._blocks: list[Block] = []
        self._labels: list[Any] = []
        self.failed, self.why, self.position, self.bytes = 0, "", 0, 0

    def take(self, rows: Rows) -> None:
        """Encode a block."""
        ends = [int(rows.positions[-1])] if len(rows) else []
        self.position = 1 + max([*ends, *(one.position for one in rows.failures)], default=-1)
        if self._label is not None and len(rows) and self._label not in rows:
            raise DataError(
                f"--label {self._label}: the data has no such column; "
                f"{nearest(self._label, rows.columns)}"
            )
        model = self._forward.model
        given = rows
        if self._label is not None and model.encode is None:
            columns = {name: c for name, c in rows.columns.items() if name != self._label}
            given = replace(rows, columns=columns)  # what is right never goes in
        if self._encoder is None and len(rows):
            if model.signature is None and model.encode is not None:
                raise UsageError(
                    f"{model!r} has an encode and no inputs; say what it makes: "
                    "Model(module, inputs='ids: i64[batch tokens] pad 0', encode=…)"
                )
            if model.signature is None:
                model = model.with_signature(inferred(model, given, self._columns))
            self._forward = Forward(model, self._forward.plan)
            self._encoder = Encoder(model, self._columns)
        failures = rows.failures
        if self._encoder is not None:
            done = self._encoder(given)
            failures = done.failures
            assert isinstance(done.block, Block)
            if len(done.block):
                self._blocks.append(done.block)
                self.bytes += done.block.bytes
                if self._label is not None:
                    there = np.isin(rows.positions, done.rows.positions)
                    self._labels.append(taken(_column(rows, self._label), np.flatnonzero(there)))
        if failures and not self.failed:
            self.why = failures[0].error
        self.failed += len(failures)

    def parts(self, source: object, folder: Path, notes: tuple[str, ...]) -> DataParts:
        """What was taken, split."""
        count = sum(map(len, self._blocks))
        if count < _LEAST:
            why = f"; {self.failed} more could not be encoded: {self.why}" if self.failed else ""
            raise DataError(
                f"{_named(source)} gives {count} rows that can be encoded, and three parts take "
                f"{_LEAST} at least: one to fit plans to, one to search with, two to prove what is "
                f"kept{why}"
            )
        whole = concatenated(self._blocks)
        self._blocks.clear()
        forward, whole = signed_by(self._forward, whole)
        labels = joined(self._labels) if self._label is not None else None
        places, told = _places(whole)
        blocks = _saved(folder, {name: whole.take(own) for name, own in places.items()})
        split_labels: dict[PartName, Values] = {}
        if labels is not None:
            split_labels = {name: taken(labels, own) for name, own in places.items()}
        return DataParts(
            forward,
            folder,
            blocks,
            split_labels,
            self.failed,
            self.why,
            _digest(whole, labels),
            (*notes, *told),
        )


def _column(rows: Rows, name: str) -> Any:
    return rows[name]


def _places(whole: Block) -> tuple[dict[PartName, np.ndarray[Any, Any]], tuple[str, ...]]:
    """Which rows each part has, the final one at least half but for copies; and what to know of
    that. Copies of a row are in one part, else trials would have seen rows of the final one."""
    count, drawn = len(whole), np.random.default_rng(0)
    order = drawn.permutation(count)
    first: dict[int, int] = {}
    ranks = np.array([first.setdefault(_content(whole, row), n) for n, row in enumerate(order)])
    edges, notes = np.arange(count), ()
    if len(first) < len(get_args(PartName)):
        notes = (
            f"of {count:,} rows {len(first)} differ, so that trials see those of the last gate, "
            "too: nothing is proved of others",
        )
    elif len(first) < count:
        order, ranks = order[np.argsort(ranks, kind="stable")], np.sort(ranks)
        edges = np.flatnonzero(np.diff(ranks, prepend=-1))  # where another content begins
    search = min(max(int(edges[edges <= count // 2][-1]), int(edges[2])), int(edges[-1]))
    fitted = max(int(edges[edges <= min(_CALIBRATION, search // 2)][-1]), int(edges[1]))
    stops = (0, fitted, search, count)
    parts: dict[PartName, np.ndarray[Any, Any]] = {}
    for name, start, stop in zip(get_args(PartName), stops, stops[1:], strict=False):
        own = order[start:stop]
        parts[name] = drawn.permutation(own) if len(edges) < count else own
    return parts, notes


def _content(whole: Block, row: int) -> int:
    """What a row holds, as a number."""
    return hash(tuple(np.ascontiguousarray(v[row]).tobytes() for v in whole.values.values()))


def _saved(folder: Path, blocks: Mapping[PartName, Block]) -> dict[PartName, Block]:
    """The same blocks, mapped from files. Raises DataError where the disk is full."""
    found: dict[PartName, Block] = {}
    for name, block in blocks.items():
        try:
            write_block(folder / name, block)
        except OSError as error:
            raise DataError(f"{folder} cannot be written: {error.strerror or error}") from error
        found[name] = read_block(folder / name, block.signature)
    return found


def _digest(block: Block, labels: object) -> str:
    total = hashlib.sha256("\n".join(map(str, block.signature.inputs)).encode())
    for path, values in block.values.items():
        rows = [values] if isinstance(values, np.ndarray) else values
        total.update(f"\0{path} {len(rows)}".encode())
        for row in rows:
            total.update(f" {row.dtype}{row.shape}".encode())
            total.update(np.ascontiguousarray(row).data)
    listed: Any = labels.tolist() if isinstance(labels, np.ndarray) else labels
    total.update(repr(listed).encode())
    return total.hexdigest()


def _named(source: object) -> str:
    return str(source) if isinstance(source, str | Path) else f"the {type(source).__name__} given"
