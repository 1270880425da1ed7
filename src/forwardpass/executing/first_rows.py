"""The first rows of a source, encoded: what is learned from before the others come."""

from __future__ import annotations

from forwardpass.errors import DataError
from forwardpass.executing.encoding import Encoder, Encodings, inferred, together
from forwardpass.nouns.forwards import Forward
from forwardpass.reading import open_source
from forwardpass.reading.blocks import limited


def first_rows(forward: Forward, source: object, limit: int) -> tuple[Forward, Encodings]:
    """The first `limit` rows of a source, those that can be encoded; and the Forward with the
    signature by which they were: its own, else as the data have it.

    Raises DataError where no row can be read or encoded.
    """
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
    done = [encoder(block) for block in blocks]
    whole = together([part.block for part in done])
    if not len(whole):
        failures = [failure for part in done for failure in part.failures]
        raise DataError(
            f"{opened.description}: none of {len(failures)} rows can be encoded: "
            f"{failures[0].error}"
        )
    return Forward(model, forward.plan), whole
