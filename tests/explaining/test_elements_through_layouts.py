"""What copies into another layout of memory keeps each element in its place of the shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from explained_models import Fn, explained, gradient_of
from torch import Tensor

from forwardpass import record

LAST, LAST_3D, FIRST = torch.channels_last, torch.channels_last_3d, torch.contiguous_format

MATRICES: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda y: y.t().contiguous().reshape(-1),
    "contiguous viewed": lambda y: y.permute(1, 0).contiguous().view(2, 6),
    "clone in the same strides": lambda y: y.t().clone().t().view(-1),
    "cast in the same strides": lambda y: y.t().double().t().view(-1),
    "cast into rows": lambda y: y.t().to(torch.float64, memory_format=FIRST).view(-1),
    "flip": lambda y: y.t().flip(0).contiguous().view(-1),
    "roll": lambda y: y.t().roll(1, 0).view(-1),
    "rot90": lambda y: torch.rot90(y.t()).contiguous().view(-1),
    "repeat": lambda y: y.t().repeat(2, 1).view(-1),
    "tile": lambda y: y.t().tile(2).view(-1),
    "stack": lambda y: torch.stack([y.t(), y.t()]).view(-1),
    "expand": lambda y: y[:, None].expand(3, 2, 4).contiguous().view(-1),
    "in place": lambda y: y.clone().t_().contiguous().view(-1),
    "written into columns": lambda y: torch.empty(4, 3).t().copy_(y).t().view(-1),
    "written into the same strides": lambda y: torch.empty_like(y.t()).copy_(y.t()).t().view(-1),
    "as_strided": lambda y: y.t().contiguous().as_strided((12,), (1,)),
    "as_strided in the same strides": lambda y: y.t().clone().as_strided((12,), (1,)),
    "unfold": lambda y: y.t().contiguous().view(-1).unfold(0, 3, 1),
    "split": lambda y: torch.split(y.t().contiguous(), 2)[1].view(-1),
    "chunk": lambda y: torch.unsafe_chunk(y.t(), 2)[1].contiguous().view(-1),
    "narrow": lambda y: torch.narrow_copy(y.t(), 0, 1, 3).view(-1),
    "copied views": lambda y: torch.view_copy(torch.permute_copy(y, (1, 0)), (12,)),
}
IMAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "to channels last": lambda y: y.to(memory_format=LAST).flatten(),
    "to channels last, viewed": lambda y: y.to(memory_format=LAST).permute(0, 2, 3, 1).view(2, -1),
    "contiguous": lambda y: y.contiguous(memory_format=LAST).permute(0, 2, 3, 1).view(2, -1),
    "clone": lambda y: y.clone(memory_format=LAST).permute(0, 2, 3, 1).view(2, -1),
    "and back": lambda y: y.to(memory_format=LAST).clone(memory_format=FIRST).view(-1),
    "joined": lambda y: torch.cat([y.to(memory_format=LAST)] * 2, 1).contiguous().view(-1),
    "cast": lambda y: y.to(torch.float64, memory_format=LAST).permute(0, 2, 3, 1).view(-1),
    "shuffled pixels": lambda y: torch.pixel_shuffle(y.to(memory_format=LAST), 2).reshape(-1),
    "gathered pixels": lambda y: torch.pixel_unshuffle(y.to(memory_format=LAST), 2).reshape(-1),
    "shuffled channels": lambda y: torch.channel_shuffle(y.to(memory_format=LAST), 2).reshape(-1),
}


@pytest.mark.parametrize("grad", ["on", "off", "inference"])
@pytest.mark.parametrize(
    ("steps", "shape"),
    [
        *(pytest.param(steps, (3, 4), id=name) for name, steps in MATRICES.items()),
        *(pytest.param(steps, (2, 4, 2, 2), id=f"image {name}") for name, steps in IMAGES.items()),
    ],
)
def test_an_element_is_followed_there_and_back(
    steps: Callable[[Tensor], Tensor], shape: tuple[int, ...], grad: Any
) -> None:
    def laid_out(self: Any, x: Tensor) -> Tensor:
        return steps(x * 3.0) * 2.0

    x = torch.randn(shape)
    done = record(Fn(laid_out), x, grad=grad)
    called = next(call for call in done.calls if call.short == "mul")
    place = [min(1, size - 1) for size in shape]
    outputs = done.values[done.outputs["output"]].shape
    for last in (1, -2):
        loss = f"output[{', '.join(str(last if n == 0 else 0) for n in range(len(outputs)))}]"
        explained(done, loss)
        for element in (f"0{place}", f"#{called.index}{place}"):
            found = gradient_of(done, element, loss)
            assert found.value == pytest.approx(found.autograd)
    found = gradient_of(done, f"0{place}")
    assert found.value == pytest.approx(found.autograd)


def test_inputs_that_are_laid_out_otherwise() -> None:
    x = torch.randn(2, 3, 4, 5).to(memory_format=LAST)
    done = record(Fn(lambda s, x: (x * 2.0).clone(memory_format=FIRST).view(-1)), x, grad="on")
    found = gradient_of(done, "0[1, 2, 3, 4]", "output[-1]")
    assert found.value == found.autograd == 2.0
    deep = torch.randn(1, 2, 3, 2, 2)
    done = record(
        Fn(lambda s, x: (x * 2.0).to(memory_format=LAST_3D).permute(0, 2, 3, 4, 1).view(-1)), deep
    )
    found = gradient_of(done, "0[0, 1, 2, 1, 1]", "output[-1]")
    assert found.value == found.autograd == 2.0
