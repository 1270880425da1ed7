"""The row that is shown is one that can be sent as it is."""

from __future__ import annotations

import msgspec
import pytest
import torch
from standing_in import about
from torch import nn

from forwardpass import Forward, Model
from forwardpass.errors import UsageError
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


class Odd(nn.Module):
    """What goes in cannot be guessed."""

    def forward(self, x: torch.Tensor, how: str) -> torch.Tensor:
        assert how in ("a", "b")
        return x


class Squeezed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("never")


@pytest.mark.parametrize("module", [Odd(), Squeezed()])
def test_what_to_do_is_said_in_options_of_this_verb(module: nn.Module) -> None:
    with pytest.raises(UsageError) as caught:
        samples_of(Forward(Model(module)), None)
    assert "--inputs" not in str(caught.value)
    assert "--data" not in str(caught.value)
