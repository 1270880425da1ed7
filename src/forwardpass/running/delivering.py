"""Computed windows → decoded columns → shards in the sink, committed one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from forwardpass.errors import LeftOutError, PassError, UsageError
from forwardpass.executing.decoding import Decoder, Delivered, whole_column
from forwardpass.measuring.clocks import Stopwatch
from forwardpass.nouns.rows import Failure, take
from forwardpass.running.computing import Computed
from forwardpass.running.destinations import writing
from forwardpass.running.journals import Entry, Journal
from forwardpass.running.sinks import Shard, Sink
from forwardpass.running.stores import LeftOut

Indices = np.ndarray[Any, Any]


@dataclass
class _Open:
    """The shard that is being filled."""

    start: int
    pieces: list[dict[str, Delivered]] = field(default_factory=list[dict[str, Delivered]])
    outputs: tuple[str, ...] = ()
    failures: list[Failure] = field(default_factory=list[Failure])
    positions: list[Indices] = field(default_factory=list[Indices])
    real_cells: int = 0
    padded_cells: int = 0
    batches: int = 0
    truncated: int = 0
    nan_rows: int = 0


class Delivery:
    """Takes computed windows in order; writes and commits a shard at each shard's end.

    Args:
        key: the name of the key column.
        keep: columns of the source that go along.
        start: position in the source of the first row.
        strict: raise LeftOutError rather than leave a row out.
    """

    def __init__(
        self,
        decoder: Decoder,
        sink: Sink,
        journal: Journal | None,
        *,
        key: str | None,
        keep: Sequence[str],
        start: int,
        strict: bool,
    ) -> None:
        self.entries: list[Entry] = list(journal.entries) if journal else []
        self.failures: list[Failure] = []
        self.busy = Stopwatch()
        self._decoder = decoder
        self._sink = sink
        self._journal = journal
        self._key = key
        self._keep = keep
        self._strict = strict
        self.start = start
        self._open = _Open(start)

    def take(self, computed: Computed) -> None:
        """Decode a window; where it ends a shard, write and commit that."""
        with self.busy:
            self._add(computed)
            if computed.window.ends_shard:
                with writing(self._sink.store):
                    self._commit(computed.window.stop, computed.ceiling_cells)

    def _add(self, computed: Computed) -> None:
        window, shard = computed.window, self._open
        decoded = self._decoder(computed.outputs, window.rows, computed.good)
        outputs, failures = decoded.columns, decoded.failures
        if failures and not len(decoded.kept) and not self.entries:
            raise PassError(f"decode raised on each of {len(failures)} rows: {failures[0].error}")
        indices = computed.good[decoded.kept]
        rows = window.rows
        keys = rows.positions if rows.keys is None else rows.keys
        columns: dict[str, Delivered] = {}
        if self._key is not None:
            columns[self._key] = take(keys, indices)
        columns |= {name: take(rows.columns[name], indices) for name in self._keep if len(rows)}
        twice = next((name for name in outputs if name in columns), None)
        if twice and twice == self._key and twice not in rows.columns:
            raise UsageError(
                f"the output {twice!r} has the name of the key column; rename the output, or name "
                "the rows by a column: --key COLUMN"
            )
        if twice:
            raise UsageError(
                f"the output {twice!r} and a column of the data have one name; "
                "rename the column, or do not keep it"
            )
        if len(indices):
            shard.outputs = tuple(outputs)
            shard.pieces.append({**columns, **outputs})
            shard.positions.append(rows.positions[indices])
        self._tolerate(failures)
        shard.failures += [*window.failures, *computed.failures, *failures]
        shard.real_cells += computed.real_cells
        shard.padded_cells += computed.padded_cells
        shard.batches += len(computed.batches)
        shard.truncated += int(window.truncated[indices].sum())
        shard.nan_rows += len(set(computed.nan) & set(indices.tolist())) if computed.nan else 0

    def _tolerate(self, failures: Sequence[Failure]) -> None:
        if self._strict and failures:
            raise _refusal(failures[0])

    def _commit(self, stop: int, ceiling: int | None) -> None:
        """Write the shard aside, sync, rename, then enter it into the manifest."""
        shard, self._open = self._open, _Open(stop)
        names = list(shard.pieces[0]) if shard.pieces else []
        rows = sum(len(p) for p in shard.positions)
        columns = {name: whole_column([piece[name] for piece in shard.pieces]) for name in names}
        keys: Delivered = (
            columns[self._key]
            if self._key in columns
            else np.concatenate(shard.positions or [np.zeros(0, np.int64)])
        )
        name, sha256, length, left_out = "", "", 0, dict[int, str]()
        if rows:
            done = self._sink.write(len(self.entries), Shard(columns, shard.outputs, rows))
            name, sha256, length = done.name, done.sha256, done.bytes
            left_out = dict(done.left_out)
        positions = np.concatenate(shard.positions) if shard.positions else np.zeros(0, np.int64)
        unwritten = [
            Failure(_plain_key(keys, index), "write", error, int(positions[index]))
            for index, error in sorted(left_out.items())
        ]
        self._tolerate(unwritten)
        shard.failures += unwritten
        shard.failures.sort(key=lambda failure: failure.position)
        self.failures += shard.failures
        quarantine = self._journal.quarantine(shard.failures) if self._journal else LeftOut("", 0)
        inside = (
            [index for index in range(rows) if index not in left_out] if left_out else range(rows)
        )
        entry = Entry(
            file=name,
            sha256=sha256,
            start=shard.start,
            stop=stop,
            rows=rows - len(left_out),
            first_key=_plain_key(keys, inside[0]) if inside else None,
            last_key=_plain_key(keys, inside[-1]) if inside else None,
            real_cells=shard.real_cells,
            padded_cells=shard.padded_cells,
            batches=shard.batches,
            truncated=shard.truncated,
            nan_rows=shard.nan_rows,
            quarantined=len(shard.failures),
            quarantine=quarantine.name,
            quarantine_bytes=quarantine.bytes,
            ceiling_cells=ceiling,
            bytes=length,
        )
        if self._journal is not None:
            self._journal.commit(entry)
        self.entries.append(entry)


def strictly(computed: Computed) -> None:
    """Raise LeftOutError for the first row that was left out, cut, or came out as NaN."""
    window = computed.window
    for failure in sorted([*window.failures, *computed.failures], key=lambda f: f.position):
        raise _refusal(failure)
    for index in np.flatnonzero(window.truncated)[:1]:
        raise LeftOutError(
            f"--strict: row {window.rows.key(int(index))!r} is cut at the maximum length"
        )
    for index in computed.nan[:1]:
        raise LeftOutError(f"--strict: row {window.rows.key(index)!r} came out as NaN")


_DONE = {
    "read": "read",
    "encode": "encoded",
    "compute": "computed",
    "decode": "decoded",
    "write": "written",
}


def _refusal(failure: Failure) -> LeftOutError:
    return LeftOutError(
        f"--strict: row {failure.key!r} could not be {_DONE[failure.stage]}: {failure.error}"
    )


def _plain_key(keys: Delivered, index: int) -> int | str:
    value: Any = keys[index]
    value = value.as_py() if hasattr(value, "as_py") else value  # one of Arrow
    return value if isinstance(value, str) else int(value)
