"""The verb: its arguments, and what it returns."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal, overload

from forwardpass.loading.prints import aside
from forwardpass.nouns.forwards import ForwardLike
from forwardpass.nouns.progress import Progress
from forwardpass.nouns.reports import RunReport
from forwardpass.running.options import Options
from forwardpass.running.runs import Run
from forwardpass.running.sinks.memory import InMemory
from forwardpass.running.venues import Elsewhere
from forwardpass.tensors.generators import generators_kept


@overload
def run(
    forward: ForwardLike,
    source: object,
    sink: None = None,
    *,
    batch: int | Literal["auto"] = "auto",
    limit: int | None = None,
    strict: bool = False,
    key: str | None = None,
    keep: str | Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    outputs: str | Sequence[str] = (),
    types: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    stateful: bool = False,
    executor: Elsewhere | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], RunReport]: ...
@overload
def run(
    forward: ForwardLike,
    source: object,
    sink: str | os.PathLike[str],
    *,
    batch: int | Literal["auto"] = "auto",
    limit: int | None = None,
    resume: bool = False,
    strict: bool = False,
    key: str | None = None,
    keep: str | Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    outputs: str | Sequence[str] = (),
    shard_rows: int | None = None,
    types: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    stateful: bool = False,
    part: str | None = None,
    executor: Elsewhere | None = None,
    progress: Progress | None = None,
) -> RunReport: ...
def run(
    forward: ForwardLike,
    source: object,
    sink: str | os.PathLike[str] | None = None,
    *,
    batch: int | Literal["auto"] = "auto",
    limit: int | None = None,
    resume: bool = False,
    strict: bool = False,
    key: str | None = None,
    keep: str | Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    outputs: str | Sequence[str] = (),
    shard_rows: int | None = None,
    types: Mapping[str, str] | None = None,
    delimiter: str | None = None,
    stateful: bool = False,
    part: str | None = None,
    executor: Elsewhere | None = None,
    progress: Progress | None = None,
) -> RunReport | tuple[dict[str, Any], RunReport]:
    """Compute a Forward for every row of `source`, once each.

    Args:
        forward: a reference with its plan, a module, a Model or a Forward.
        source: a path or glob of text, JSON lines, CSV, Parquet, images, arrays; `file.py:name`;
            or in Python a list of rows, a dict of arrays, or an iterable of rows.
        sink: a folder or URL (Parquet shards), `NAME.npy`, `"-"` (JSON lines on standard output),
            or None: the outputs are returned, rows along axis 0.
        batch: rows in a batch, or "auto": chosen from measured costs.
        limit: stop after this many rows of the source.
        resume: go on with what is in `sink`; it begins where nothing is there.
        strict: stop at the first row that is left out, cut at a maximum length, or NaN.
        key: column that names the rows; without it rows are known by their number (images by path).
        keep: columns of the source that are delivered along.
        columns: which column feeds which input, where their names differ.
        outputs: outputs of the model to deliver; beside what `decode` makes, if there is one.
        shard_rows: rows in a shard; without it, about ten seconds of work.
        types: of columns, whatever they hold: `{"zip": "text", "stars": "float64"}`; text, bool,
            int8 to int64, uint8 to uint64, float32, float64.
        delimiter: what separates the fields of CSV; without it, found in the first lines.
        stateful: keep what passes change of the module for the rows that follow, which are computed
            in input order; else it is put back after each batch.
        part: "3/8": this is the third of eight drivers; it takes each eighth file of the source,
            and writes to a folder of its own in `sink`. `join` completes them.
        executor: what computes, if not this process: `fwd.Ray(…)`.
        progress: counters to keep up to date.

    Returns:
        The RunReport; without a sink, `(outputs, RunReport)`.

    Raises:
        UsageError: arguments, signature or plan do not fit. OutputExistsError, ResumeError: `sink`.
        LoadError: the model. DataError: the data. PassError: forward raised on every row tried.
        LeftOutError: a row was left out, and `strict`.
    """
    options = Options(
        batch,
        limit,
        key,
        _names(keep),
        dict(columns or {}),
        _names(outputs),
        shard_rows,
        dict(types or {}),
        delimiter,
        stateful,
        part,
    )
    with (
        generators_kept(),
        aside() if sink == "-" else nullcontext(),
        Run(
            forward,
            source,
            sink,
            options,
            resume=resume,
            strict=strict,
            progress=progress or Progress(),
            executor=executor,
        ) as this,
    ):
        report = this.report()
        return (this.sink.outputs, report) if isinstance(this.sink, InMemory) else report


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    """One name, or several."""
    return (names,) if isinstance(names, str) else tuple(names)
