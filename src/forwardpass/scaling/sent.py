"""What travels between processes, and how what was made of parts is put together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from forwardpass import errors
from forwardpass.errors import ForwardpassError, Reported, said
from forwardpass.executing.batches import Batch, Result
from forwardpass.executing.deaths import ProcessEnded
from forwardpass.executing.encoding import EncodedRows, together
from forwardpass.nouns.rows import Failure, Rows, joined
from forwardpass.scaling.seats import Job
from forwardpass.tensors.items import Items

Encoded = tuple[EncodedRows, float]
"""Rows, encoded, and the seconds that it took."""


class SentError(NamedTuple):
    """What a worker raised: one of ours by its class and message, another one as it is said."""

    kind: str
    text: str


def sent_error(error: BaseException) -> SentError:
    """An error, to be sent: classes of the user's, and of libraries, may be unknown elsewhere."""
    ours = isinstance(error, ForwardpassError)
    return SentError(type(error).__name__ if ours else "", str(error) if ours else said(error))


def received_error(came: SentError) -> Exception:
    """What was raised: of its class where that is one of ours."""
    kind = getattr(errors, came.kind, None) if came.kind else None
    return Reported(came.text) if kind is None else kind(came.text)


def sent_result(result: Result) -> Result:
    """A Result whose errors can be sent."""
    return replace(
        result, failures={place: Reported(said(e)) for place, e in result.failures.items()}
    )


def _rows_part(rows: Rows, start: int, stop: int) -> Rows:
    """What could not be read goes with the first part."""
    part = rows.take(slice(start, stop))
    return part if start else replace(part, failures=rows.failures)


def _encoded_together(rows: Rows, parts: Sequence[tuple[int, Encoded]]) -> Encoded:
    made = [one for _, (one, _) in parts]
    failures = sorted((f for one in made for f in one.failures), key=lambda f: f.position)
    whole = EncodedRows(
        joined([one.rows for one in made]),
        together([one.block for one in made]),
        np.concatenate([one.truncated for one in made]),
        tuple(failures),
    )
    return whole, sum(seconds for _, (_, seconds) in parts)


def _not_encoded(rows: Rows) -> Encoded:
    failure = Failure(rows.key(0), "encode", said(_ended("encode")), int(rows.positions[0]))
    nothing, none = Rows({}, rows.positions[:0]), Items([], np.zeros((0, 1), np.int64))
    return EncodedRows(nothing, none, np.zeros(0, bool), (*rows.failures, failure)), 0.0


def _results_together(batch: Batch, parts: Sequence[tuple[int, Result]]) -> Result:
    refused = [one.refused_cells for _, one in parts if one.refused_cells is not None]
    return Result(
        tuple((at + a, at + b, outputs) for at, one in parts for a, b, outputs in one.pieces),
        {at + place: error for at, one in parts for place, error in one.failures.items()},
        sum(one.seconds for _, one in parts),
        min(refused, default=None),
    )


def _not_computed(batch: Batch) -> Result:
    return Result((), {0: _ended("compute")})


def _ended(stage: str) -> ProcessEnded:
    return ProcessEnded(f"each process ended that had this row ({stage})")


ENCODE: Job[Rows, Encoded] = Job("encode", _rows_part, _encoded_together, _not_encoded, len)
COMPUTE: Job[Batch, Result] = Job(
    "compute", Batch.part, _results_together, _not_computed, lambda batch: batch.cells * len(batch)
)
