"""The first rows of a source, encoded: what is learned from before the others come."""

from __future__ import annotations

from typing import NamedTuple

from forwardpass.errors import DataError
from forwardpass.executing.encoding import Encoder, Encodings, inferred, together
from forwardpass.measuring.clocks import Stopwatch
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.rows import Rows, joined
from forwardpass.reading import open_source
from forwardpass.reading.blocks import limited


class FirstRows(NamedTuple):
    """The first rows of a source.

    Attributes:
        forward: with the signature by which they were encoded: its own, else as the data have it.
        whole: those that could be encoded.
        rows: the same as they were read.
        left_out: how many could not be read or encoded, and the first reason; empty for none.
        encode_seconds: that encoding one of them took, about.
    """

    forward: Forward
    whole: Encodings
    rows: Rows
    left_out: str
    encode_seconds: float


def first_rows(forward: Forward, source: object, limit: int) -> tuple[Forward, Encodings]:
    """`read_rows`: the Forward and the encoded rows alone."""
    return read_rows(forward, source, limit)[:2]


def read_rows(forward: Forward, source: object, limit: int) -> FirstRows:
    """The first `limit` rows of a source. Raises DataError where no row can be read or encoded."""
    model = forward.model
    opened = open_source(source, wanted=model.text_columns)
    blocks = list(limited(opened.read(0), limit))
    rows = next((rows for rows in blocks if len(rows)), None)
    if rows is None:
        failures = [failure for block in blocks for failure in block.failures]
        why = f": {failures[0].error}" if failures else ""
        raise DataError(f"{opened.description}: there is no row to look at{why}")
    if model.signature is None and model.collate is None:
        model = model.with_signature(inferred(model, rows, {}))
    encoder = Encoder(model)
    encoding = Stopwatch()
    with encoding:
        done = [encoder(block) for block in blocks]
    whole = together([part.block for part in done])
    failures = [failure for part in done for failure in part.failures]
    if not len(whole):
        raise DataError(
            f"{opened.description}: none of {len(failures)} rows can be encoded: "
            f"{failures[0].error}"
        )
    read = joined([part.rows for part in done])
    left_out = ""
    if failures:
        left_out = (
            f"{len(failures):,} of {len(failures) + len(whole):,} rows could not be encoded and "
            f"were left out; the first: {failures[0].error}"
        )
    spent = encoding.seconds / (len(whole) + len(failures))
    return FirstRows(Forward(model, forward.plan), whole, read, left_out, spent)
