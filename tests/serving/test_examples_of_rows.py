"""The row that is shown is one that can be sent as it is."""

from __future__ import annotations

import msgspec
import pytest
from standing_in import about
from torch import nn

from forwardpass import Forward, Model
from forwardpass.serving.json_rows import JsonRows
from forwardpass.serving.samples import samples_of


@pytest.mark.parametrize(
    "inputs",
    [
        ["x: f32[batch 3]"],
        ["x: c64[batch 2]"],
        ["ids: i64[batch n=2..9] pad 0", "mask: bool[batch n] = valid(n)"],
        ["pixels: u8[batch 2 2]", "weight: f64[batch]", "z: c128[batch]"],
    ],
)
def test_an_example_is_a_row(inputs: list[str]) -> None:
    example = samples_of(Forward(Model(nn.Identity(), inputs)), None).example
    body = msgspec.json.encode({"rows": [msgspec.Raw(example.encode())] * 2})
    assert JsonRows(about(*inputs)).read(body, 2).count == 2
