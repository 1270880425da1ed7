"""An element is followed through views, copies and joins to the operator that computed it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from explained_models import Fn, explained, gradient_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from forwardpass import record
from forwardpass.explaining import views

STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "transpose": lambda y: y.transpose(0, -1),
    "permute": lambda y: y.permute(*range(1, y.dim()), 0),
    "slice": lambda y: y[1:] if y.shape[0] > 1 else y[:1],
    "strided": lambda y: y[..., ::2],
    "split": lambda y: y.split((y.shape[-1] + 1) // 2, -1)[-1],
    "chunk": lambda y: y.chunk(2, 0)[0],
    "unbind": lambda y: y.unbind(0)[-1] if y.dim() > 1 else y,
    "clone": lambda y: y.clone(),
    "contiguous": lambda y: y.contiguous(),
    "reshape": lambda y: y.reshape(-1),
    "reshape2": lambda y: y.reshape(y.shape[-1], -1),
    "unsqueeze": lambda y: y.unsqueeze(0),
    "expand": lambda y: y.unsqueeze(0).expand(2, *y.shape),
    "flip": lambda y: y.flip(0),
    "roll": lambda y: y.roll(1, -1),
    "cat": lambda y: torch.cat([y, y.flip(0)], 0),
    "stack": lambda y: torch.stack([y, y], -1),
    "repeat": lambda y: y.repeat(*[1] * (y.dim() - 1), 2),
    "diagonal": lambda y: y.diagonal(0, 0, -1) if y.dim() > 1 else y,
    # of what is dense: elsewhere it may reach memory that no element of y stands in
    "as_strided": lambda y: (
        y.as_strided((2,), (1,), y.storage_offset()) if y.numel() > 1 and y.is_contiguous() else y
    ),
    "detach": lambda y: y.detach(),
    "unfold": lambda y: y.unfold(0, 1, 1),
    "double": lambda y: y.double(),
}


@settings(max_examples=120)
@given(
    names=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5),
    rows=st.integers(1, 4), columns=st.integers(1, 5),
    grad=st.sampled_from(["on", "off", "inference"]), data=st.data(),
)  # fmt: skip
def test_an_element_of_any_chain_of_views_is_the_number_of_the_product(
    names: list[str], rows: int, columns: int, grad: Any, data: Any
) -> None:
    def viewed(self: Any, x: Tensor, w: Tensor) -> Tensor:
        made = x @ w
        for name in names:
            if made.numel() <= 400:
                made = STEPS[name](made)
        return made

    module = Fn(viewed)
    x, w = torch.randn(rows, 3), torch.randn(3, columns)
    real = viewed(module, x, w)
    number = data.draw(st.integers(0, real.numel() - 1))
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(number), real.shape))
    (part,) = explained(record(module, (x, w), grad=grad), f"output{list(index)}")
    assert part.operator in ("aten.mm.default", "aten.matmul.default")
    assert part.value == pytest.approx(float(real[index]), abs=1e-5)
    row, column = part.element
    assert part.value == pytest.approx(float((x.double() @ w.double())[row, column]), abs=1e-5)


@settings(max_examples=40)
@given(names=st.lists(st.sampled_from(sorted(set(STEPS) - {"detach"})), min_size=1, max_size=4))
def test_the_way_back_of_an_input_that_is_seen_through_views(names: list[str]) -> None:
    """Expanded and joined to itself, a number is read at several places."""

    def viewed(self: Any, x: Tensor) -> Tensor:
        for name in names:
            if x.numel() <= 100:
                x = STEPS[name](x)
        return x * torch.arange(1.0, x.numel() + 1).reshape(x.shape)

    x = torch.randn(2, 3)
    given_ = x.clone().requires_grad_()
    viewed(None, given_).sum().backward()
    assert given_.grad is not None
    found = gradient_of(record(Fn(viewed), x, grad="on"), "0[1, 2]")
    assert found.value is not None
    assert found.value == pytest.approx(float(given_.grad[1, 2]))


def test_a_join_leads_to_the_part_that_made_the_element() -> None:
    module = Fn(lambda s, x: torch.cat([s.a(x), s.b(x)], 1), a=nn.Linear(3, 2), b=nn.Linear(3, 2))
    done = record(module, torch.randn(2, 3), grad="off")
    assert explained(done, "output[1, 1]")[0].module == "a"
    assert explained(done, "output[1, 2]")[0].module == "b"
    assert explained(done, "output[1, 3]")[0].element == (1, 1)


def test_an_activation_is_found_behind_views() -> None:
    module = Fn(lambda s, x: s.fc(x).transpose(0, 1).relu(), fc=nn.Linear(3, 5))
    done = record(module, torch.randn(2, 3), grad="off")
    affine, activation = explained(done, "fc[1, 4]")
    assert affine.element == (1, 4)
    assert activation.element == (4, 1)


def test_an_activation_of_a_part_is_no_activation_of_the_rest() -> None:
    module = Fn(lambda s, x: s.fc(x)[:, :2].relu(), fc=nn.Linear(3, 5))
    done = record(module, torch.randn(2, 3), grad="off")
    assert len(explained(done, "fc[1, 1]")) == 2
    assert len(explained(done, "fc[1, 4]")) == 1


def test_a_cast_to_whole_numbers_computes() -> None:
    done = record(Fn(lambda s, x: (x * 2.5).long()), torch.tensor([1.0, 3.0]), grad="off")
    (part,) = done.explain("output[1]").parts
    assert part.operator == "aten._to_copy.default"
    assert part.recorded == 7
    assert part.lacking


def test_a_view_as_another_dtype_computes() -> None:
    done = record(Fn(lambda s, x: (x * 2).view(torch.int32)), torch.tensor([1.0]), grad="off")
    (part,) = done.explain("output[0]").parts
    assert part.recorded == torch.tensor([2.0]).view(torch.int32).item()


def test_elements_that_a_view_wrote_over() -> None:
    """The row that was written anew is that of the write; what it is, is what came out."""

    def written(self: Any, x: Tensor) -> Tensor:
        y = self.fc(x)
        y[0].mul_(2)
        return y

    x = torch.randn(2, 3)
    module = Fn(written, fc=nn.Linear(3, 2))
    with torch.no_grad():
        made = module(x)
    for grad in ("off", "inference"):
        done = record(module, x, grad=grad)
        for row in range(2):
            part = done.explain(f"output[{row}, 1]").parts[0]
            assert part.recorded == pytest.approx(float(made[row, 1]))


def test_seen_in_nothing_that_it_is_no_view_of() -> None:
    done = record(Fn(lambda s, x: (x.t(), x * 2)), torch.randn(2, 3), grad="off")
    x, turned, doubled = (done.values[s] for s in (done.inputs["0"], *done.outputs.values()))
    assert views.seen_in(done, x, (1, 2), turned) == [(2, 1)]
    assert views.seen_in(done, x, (1, 2), doubled) == []


def test_a_result_that_was_put_together_piece_by_piece() -> None:
    def filled(self: Any, x: Tensor) -> Tensor:
        made = torch.zeros(2, 4)
        made[:, :2] = self.a(x)
        made[:, 2:] = self.b(x)
        return made

    module = Fn(filled, a=nn.Linear(3, 2), b=nn.Linear(3, 2))
    for grad in ("on", "off", "inference"):
        done = record(module, torch.randn(2, 3), grad=grad)
        assert explained(done, "output[1, 1]")[0].module == "a"
        assert explained(done, "output[1, 3]")[0].module == "b"


def test_a_module_is_explained_as_it_returned_and_not_as_it_was_overwritten() -> None:
    def written(self: Any, x: Tensor) -> Tensor:
        y = self.fc(x)
        y[:, 0] = 7
        return y

    module, x = Fn(written, fc=nn.Linear(3, 2)), torch.randn(2, 3)
    done = record(module, x, grad="off")
    with torch.no_grad():
        assert explained(done, "fc[1, 0]")[0].recorded == pytest.approx(float(module.fc(x)[1, 0]))
    assert done.explain("output[1, 0]").parts[0].recorded == 7
