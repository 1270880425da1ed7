"""BulkEncoder: values of many requests → rows that wait to be computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, groupby
from typing import Any, cast

import numpy as np
from msgspec.structs import replace

from forwardpass.errors import ForwardpassError, said
from forwardpass.executing.encoding import Encoder, Encodings, together
from forwardpass.measuring.clocks import Stopwatch
from forwardpass.nouns.rows import Rows
from forwardpass.reading.blocks import BadRow
from forwardpass.reading.columns import from_rows, row_of
from forwardpass.serving.messages import EncodeRows, ForgetRows, RowsEncoded
from forwardpass.serving.wording import for_clients


class EncodedStock:
    """Rows by their ids, from when they were encoded until they are taken or forgotten."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[Encodings, int]] = {}  # the block, and where in it

    def add(self, ids: Sequence[int], block: Encodings) -> None:
        """Keep the rows of a block under these ids."""
        for index, row in enumerate(ids):
            self._places[row] = block, index

    def forget(self, ids: Iterable[int]) -> None:
        """Let go of rows; of those that are not there, too."""
        for row in ids:
            self._places.pop(row, None)

    def take(self, ids: Sequence[int]) -> Encodings:
        """These rows, in this order; they are not kept any longer. Raises KeyError for one that is
        not there; then all others are kept."""
        places = [self._places[row] for row in ids]
        self.forget(ids)
        parts: list[Encodings] = []
        for _, group in groupby(places, lambda place: id(place[0])):
            found = list(group)
            block, indices = found[0][0], [index for _, index in found]
            whole = indices == list(range(len(block)))
            parts.append(block if whole else block.take(np.array(indices)))
        return together(parts)


class BulkEncoder:
    """Encodes the rows of all messages that are there with one call for those that are alike.

    Rows share a call where their columns have the same names and kinds of values, so that each
    column has the form that it would have if a row came alone.

    Args:
        encoder: of the model.
        column: of which a row that is no object is the value; None: `text`, or `array`.
        stock: where encoded rows are kept.
    """

    def __init__(self, encoder: Encoder, column: str | None, stock: EncodedStock) -> None:
        self._encoder, self._column, self._stock = encoder, column, stock

    def __call__(self, messages: Sequence[EncodeRows | ForgetRows]) -> RowsEncoded | None:
        """Do what they say, in their order; None where no message has rows to encode."""
        given: dict[int, Any] = {}
        forgotten: list[int] = []
        for message in messages:
            if isinstance(message, EncodeRows):
                given.update(zip(message.ids, message.values, strict=True))
            else:
                self._stock.forget(message.ids)
                gone = [row for row in message.ids if row in given]
                forgotten += gone
                for row in gone:
                    del given[row]
        groups: dict[tuple[Any, ...], tuple[list[int], list[Mapping[str, Any]]]] = {}
        failures: list[tuple[int, str]] = []
        for row, value in given.items():
            try:
                columns = self._row(value)
            except BadRow as error:
                failures.append((row, str(error)))
                continue
            kind = tuple([(name, *_kinds(item)) for name, item in columns.items()])
            ids, rows = groups.setdefault(kind, ([], []))
            ids.append(row)
            rows.append(columns)
        told = RowsEncoded([], [], failures, forgotten=forgotten)
        with Stopwatch() as encoding:
            kept = sum([self._encode(ids, rows, told) for ids, rows in groups.values()])
        return replace(told, bytes=kept, seconds=encoding.seconds) if given or forgotten else None

    def _row(self, value: Any) -> Mapping[str, Any]:
        if isinstance(value, Mapping):
            return cast("Mapping[str, Any]", value)
        return row_of(value) if self._column is None else {self._column: value}

    def _encode(self, ids: list[int], rows: list[Mapping[str, Any]], told: RowsEncoded) -> int:
        """Keep the rows that can be encoded; what is to be said of all is added to `told`. The
        bytes that are kept."""
        # Positions are ids, in order: that of 0 would be the first row of all data.
        places = np.arange(1, len(ids) + 1)
        try:
            done = self._encoder(Rows(from_rows(rows, ()), places))
        except ForwardpassError as error:  # of all rows, or of one among them
            if len(ids) == 1:
                told.failures.append((ids[0], for_clients(said(error))))
                return 0
            alone = zip(ids, rows, strict=True)
            return sum([self._encode([row], [value], told) for row, value in alone])
        good = [ids[place - 1] for place in done.rows.positions.tolist()]
        self._stock.add(good, done.block)
        told.ids.extend(good)
        told.sizes.extend(map(tuple, done.block.sizes.tolist()))
        lengths = done.block.lengths
        for index in np.flatnonzero((lengths != done.block.sizes).any(axis=1)).tolist():
            told.lengths[good[index]] = tuple(lengths[index].tolist())
        told.failures.extend((ids[f.position - 1], for_clients(f.error)) for f in done.failures)
        told.truncated.extend(good[index] for index in np.flatnonzero(done.truncated).tolist())
        return done.block.bytes


def _kinds(value: Any) -> tuple[object, ...]:
    """What decides the form of a column that holds this value alone."""
    depth, level = 0, [value]
    while True:
        kinds = frozenset(map(type, level))
        if not kinds or any(kind is not list for kind in kinds):
            return depth, kinds
        depth, level = depth + 1, list(chain.from_iterable(level))
