"""What is looked up in a table has bounds, in a graph as in the module."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass.building.lookups import bounds


class Looking(nn.Module):
    """Tables for whole inputs, and for columns of one."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 8), nn.Embedding(64, 8)
        self.kinds = nn.Parameter(torch.randn(20, 8))

    def forward(self, ids: Tensor, kind: Tensor, columns: Tensor, free: Tensor) -> Tensor:
        hidden = self.words(ids) + self.kinds[kind.int()].unsqueeze(1)
        hidden = hidden + self.places(torch.arange(ids.shape[1]))
        few = self.words(columns[:, 0]) + self.kinds.index_select(0, columns[:, 1])
        return hidden.mean(1) + few + free.float()[:, None]


INPUTS = [
    "ids: i64[batch tokens=1..60] pad 0", "kind: i64[batch]", "columns: i64[batch 2]",
    "free: i64[batch]",
]  # fmt: skip


def rows(count: int) -> dict[str, list[np.ndarray] | np.ndarray]:
    return {
        "ids": [np.arange(3 + n % 4) for n in range(count)],
        "kind": np.arange(count) % 20,
        "columns": np.zeros((count, 2), np.int64),
        "free": np.arange(count) * 1000,
    }


def test_bounds_are_those_of_the_tables_that_see_all_of_an_input() -> None:
    model = fwd.Model(Looking().eval(), INPUTS)
    batch = {
        "ids": np.zeros((2, 5), np.int64), "kind": np.zeros(2, np.int64),
        "columns": np.zeros((2, 2), np.int64), "free": np.zeros(2, np.int64),
    }  # fmt: skip
    assert model.signature is not None
    found = bounds(model.module, model.signature, batch)
    assert found == {"ids": (0, 49), "kind": (-20, 19)}, "columns have tables of their own"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_rows_outside_of_a_table_are_left_out_as_by_the_module(
    backend: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = fwd.Model(Looking().eval(), INPUTS)
    fwd.export(fwd.load(model) @ backend, tmp_path / "m.fwd", calibrate=rows(20))
    data = rows(6)
    data["ids"][1] = np.array([1, 99, 2])
    data["ids"][4] = np.array([-5, 1, 2])
    plain, told = fwd.run(model, data)
    lowered, report = fwd.run(tmp_path / "m.fwd", data)
    assert [failure.key for failure in report.failures] == [f.key for f in told.failures] == [1, 4]
    assert "ids holds 99, and is looked up in a table that takes 0 to 49" in str(
        report.failures[0].error
    )
    np.testing.assert_allclose(lowered["output"], plain["output"], rtol=1e-4, atol=1e-5)
