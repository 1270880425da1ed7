"""Numbers that an input's type cannot hold leave out their own row; none becomes another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import forwardpass as fwd
from forwardpass.executing.fits import require_fit
from forwardpass.nouns.signatures import Input
from forwardpass.tensors.arrays import NUMPY


@given(
    st.sampled_from(["f32", "f16", "i32", "i8", "u8", "bool"]),
    st.lists(
        st.one_of(st.floats(width=64), st.integers(-(2**63), 2**63 - 1), st.integers(-300, 300)),
        min_size=1, max_size=4,
    ),
    st.booleans(),
)  # fmt: skip
def test_what_fits_is_what_stays_the_same_but_for_rounding(
    dtype: str, row: list[float], ragged: bool
) -> None:
    item, wanted = Input.parse(f"x: {dtype}[batch n]"), NUMPY[dtype]
    array = np.array(row)
    if array.dtype == object:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(wanted)
    if wanted.kind == "f":
        same = (np.isfinite(cast) | ~np.isfinite(array)).all()
    else:
        same = array.dtype.kind in "biu" and (cast == array).all()
    value = [array, np.zeros(7, array.dtype)] if ragged else array[None]
    try:
        require_fit(item, value)
    except (TypeError, ValueError):
        assert not same
    else:
        assert same


def test_a_run_leaves_out_such_rows_alone_also_where_rows_differ_in_length() -> None:
    table = nn.EmbeddingBag(10, 2, mode="sum")

    class Bag(nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return table(ids.long())

    model = fwd.Model(Bag(), "ids: i32[batch n=1..8] pad 0")
    rows = [{"ids": [1, 2]}, {"ids": [2**32 + 1, 1, 1]}, {"ids": [3]}]
    outputs, report = fwd.run(model, rows)
    assert len(outputs["output"]) == 2
    assert "4294967297 does not fit i32" in report.failures[0].error

    outputs, report = fwd.run(
        fwd.Model(nn.Identity(), "x: f32[batch 1]"), [{"x": [1e39]}, {"x": [np.inf]}, {"x": [None]}]
    )
    assert outputs["output"].tolist() == [[np.inf]]
    said = [failure.error for failure in report.failures]
    assert "1e+39 does not fit f32" in said[0]
    assert "a missing value (null)" in said[1]


@pytest.mark.parametrize("filled", [[], [[3]]])
def test_rows_without_any_token_are_computed(filled: list[list[int]]) -> None:
    model = fwd.Model(nn.EmbeddingBag(10, 2, mode="sum"), "input: i64[batch n=1..8] pad 0")
    outputs, report = fwd.run(model, [{"input": ids} for ids in [[], *filled, []]])
    assert report.quarantined == 0
    assert len(outputs["output"]) == 2 + len(filled)
