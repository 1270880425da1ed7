"""Rows on which sizes of batches are tried."""

from __future__ import annotations

import numpy as np
import pytest

from forwardpass.batching.windows import WINDOW
from forwardpass.nouns.signatures import Signature
from forwardpass.preparing.sizing import alone, recurring
from forwardpass.tensors.blocks import Block


def block(rows: int, width: int) -> Block:
    signature = Signature.parse([f"x: f32[batch {width}]"])
    values = np.arange(rows * width, dtype=np.float32).reshape(rows, width)
    none = np.zeros((rows, 0), np.int64)
    return Block(signature, {"x": values}, none, none)


@pytest.mark.parametrize(("rows", "width"), [(1, 2), (225, 64), (9_000, 4), (3, 1 << 22)])
def test_a_few_rows_come_again_until_they_fill_a_window(rows: int, width: int) -> None:
    few = block(rows, width)
    many = recurring(few)
    assert len(many) >= rows
    assert len(many) == rows or len(many) <= WINDOW.rows
    assert len(many) == rows or many.bytes <= (WINDOW.bytes or 0)
    assert len(many) >= min(WINDOW.rows, (WINDOW.bytes or 0) // few.take(slice(0, 1)).bytes)
    places = np.arange(len(many)) % rows
    assert np.array_equal(
        np.asarray(many.values["x"])[:, 0], np.asarray(few.values["x"])[places, 0]
    )
    assert len(alone(many).rows) == len(many)
