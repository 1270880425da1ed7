"""What came of a batch → the message that answers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from forwardpass.errors import ForwardpassError, said
from forwardpass.executing.batches import Result
from forwardpass.executing.decoding import Decoder
from forwardpass.executing.executors import out_of_memory
from forwardpass.nouns.rows import Rows
from forwardpass.running.columns import to_python
from forwardpass.serving.channels import carries
from forwardpass.serving.messages import ComputeRows, RowsComputed
from forwardpass.serving.wording import for_clients
from forwardpass.tensors.arrays import Values, is_tensor, taken, to_numpy

Outputs = dict[str, list[np.ndarray[Any, Any]]]
"""Of each path the pieces, rows first."""


class Replies:
    """Makes of results what is sent: rows that are raw as arrays, others decoded and as JSON.

    JSON has no NaN and no infinity: they become null. Complex numbers become pairs.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._json = msgspec.json.Encoder(enc_hook=str)

    def __call__(self, asked: ComputeRows, result: Result) -> tuple[RowsComputed, Outputs]:
        """The answer to a batch, and the outputs of its raw rows, padding removed."""
        rows: list[bytes | None] = [None] * len(asked.ids)
        failures = [(place, said(error)) for place, error in result.failures.items()]
        large = [place for place, error in result.failures.items() if out_of_memory(error)]
        arrays: Outputs = {}
        some_raw = any(asked.raw)
        for start, stop, outputs in result.pieces:
            if not some_raw:
                failures += self._decoded(outputs, range(start, stop), rows)
                continue
            raw = [place for place in range(start, stop) if asked.raw[place]]
            others = [place for place in range(start, stop) if not asked.raw[place]]
            try:
                found = [
                    (path, _pieces(path, values))
                    for path, values in _of(outputs, raw, start, stop).items()
                ]
            except TypeError as error:
                failures += [(place, said(error)) for place in raw]
            else:  # of all paths or of none: a row has one place, whatever the path
                for path, pieces in found:
                    arrays.setdefault(path, []).extend(pieces)
            failures += self._decoded(_of(outputs, others, start, stop), others, rows)
        told = [(place, for_clients(error)) for place, error in sorted(failures)]
        return RowsComputed(
            batch=asked.batch, seconds=result.seconds, rows=rows, failures=told,
            refused_cells=result.refused_cells, large=large,
        ), arrays  # fmt: skip

    def failed(self, asked: ComputeRows, error: str) -> RowsComputed:
        """The answer where no row of a batch could be computed, for the same reason."""
        told = for_clients(error)
        count = len(asked.ids)
        return RowsComputed(
            batch=asked.batch, seconds=0.0, rows=[None] * count,
            failures=[(place, told) for place in range(count)],
        )  # fmt: skip

    def _decoded(
        self, outputs: Mapping[str, Values], places: Sequence[int], rows: list[bytes | None]
    ) -> list[tuple[int, str]]:
        """Put the JSON of rows at their places in `rows`; why others could not be decoded."""
        count = len(places)
        if not count:
            return []
        indices = np.arange(count)
        try:
            done = self._decoder(outputs, Rows({}, indices), indices)
        except ForwardpassError as error:
            return [(place, str(error)) for place in places]
        failures = [(places[failure.position], failure.error) for failure in done.failures]
        columns = {name: to_python(values) for name, values in done.columns.items()}
        encode = self._json.encode
        for index, row in zip(done.kept.tolist(), zip(*columns.values(), strict=True), strict=True):
            try:
                rows[places[index]] = encode(dict(zip(columns, row, strict=True)))
            except (ValueError, TypeError, RecursionError) as error:
                failures.append((places[index], f"it cannot be said in JSON: {said(error)}"))
        return failures


def halved(
    answer: RowsComputed, outputs: Outputs
) -> tuple[tuple[RowsComputed, Outputs], tuple[RowsComputed, Outputs]]:
    """An answer to several rows as two, each with the outputs of its raw rows."""
    middle = len(answer.rows) // 2
    failed = {place for place, _ in answer.failures}
    raw = sum(row is None and n not in failed for n, row in enumerate(answer.rows[:middle]))
    first = msgspec.structs.replace(
        answer,
        rows=answer.rows[:middle],
        failures=[one for one in answer.failures if one[0] < middle],
        large=[place for place in answer.large if place < middle],
        more=True,
    )
    second = msgspec.structs.replace(
        answer,
        rows=answer.rows[middle:],
        failures=[(place - middle, why) for place, why in answer.failures if place >= middle],
        large=[place - middle for place in answer.large if place >= middle],
    )
    return (first, _rows_of(outputs, 0, raw)), (second, _rows_of(outputs, raw, len(answer.rows)))


def _rows_of(outputs: Outputs, start: int, stop: int) -> Outputs:
    """The rows from `start` to `stop` of pieces that follow one another; no path where there are
    none."""
    found: Outputs = {}
    for path, pieces in outputs.items():
        at = 0
        for piece in pieces:
            part = piece[max(0, start - at) : max(0, stop - at)]
            at += len(piece)
            if len(part):
                found.setdefault(path, []).append(part)
    return found


def _of(
    outputs: Mapping[str, Values], places: Sequence[int], start: int, stop: int
) -> Mapping[str, Values]:
    """The outputs of the rows at these places, of those from `start` to `stop`."""
    if not places:
        return {}
    if len(places) == stop - start:
        return outputs
    chosen = np.array(places) - start
    return {path: taken(values, chosen) for path, values in outputs.items()}


def _pieces(path: str, values: Any) -> list[np.ndarray[Any, Any]]:
    """The values of rows as arrays, rows first. Raises TypeError for what is no array, and for one
    that no Channel carries."""
    found: list[Any] = values if isinstance(values, list) else [values]
    for value in found:
        if not (isinstance(value, np.ndarray) or is_tensor(value)):
            raise TypeError(f"the output {path!r} is no array: ask for rows as JSON")
    arrays = [to_numpy(value) for value in found]
    pieces = [row[None] for row in arrays] if isinstance(values, list) else arrays
    for piece in pieces:
        if not carries(piece):
            raise TypeError(
                f"the output {path!r} is an array of {piece.dtype}, and none of numbers that can "
                "be sent: ask for rows as JSON"
            )
    return pieces
