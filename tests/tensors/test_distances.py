"""Distances and tolerances: the same law for NumPy's arrays and PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from forwardpass.tensors.distances import apart, relative_distance, rounding, tolerance

INF, NAN = float("inf"), float("nan")
DTYPES = ("float64", "float32", "float16", "int64", "uint8", "bool", "complex64", "complex128")


@given(st.data())
def test_both_libraries_give_one_distance(data: st.DataObject) -> None:
    dtype, shape = np.dtype(data.draw(st.sampled_from(DTYPES))), data.draw(array_shapes(min_side=0))
    one, other = (data.draw(arrays(dtype, shape)) for _ in range(2))
    ours, its = apart(one, other), apart(torch.from_numpy(one), torch.from_numpy(other))
    assert ours == pytest.approx(its, nan_ok=True)
    assert apart(one, one) == 0.0


@pytest.mark.parametrize("of", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_what_the_distance_is(of: object) -> None:
    def far(one: object, other: object) -> float:
        return apart(of(one), of(other))  # type: ignore[operator]

    assert far([1.0, 2.0], [1.0, 4.0]) == 0.5
    assert far([1.0, NAN, INF], [1.0, NAN, INF]) == 0.0
    assert far([1.0, NAN], [1.0, 2.0]) == INF
    assert far([1.0, INF], [1.0, -INF]) == INF
    assert far([0.0], [1e-320]) == 0.0
    assert far([0.0], [0.0]) == 0.0
    assert far([1.0], [0.0]) == INF
    assert far([1, 2], [1, 3]) == 1.0
    assert far([1 + 1j], [1 + 2j]) == 0.5
    assert far([1.0, 2.0], [1.0]) == INF
    assert far([1.0], [1]) == INF
    with pytest.raises(ValueError, match="shapes differ"):
        relative_distance(of([1.0, 2.0]), of([1.0]))  # type: ignore[operator]


def test_the_tolerance_is_that_of_the_coarsest() -> None:
    assert tolerance(["f32", "bf16", "i64"]) == tolerance(["bf16"]) > tolerance(["f16"])
    assert tolerance(["f64"]) < tolerance(["f64", "f32"]) == tolerance([]) == tolerance(["i64"])
    assert rounding(torch.int64) == 0.0 < rounding(torch.float32) < rounding(torch.bfloat16)
