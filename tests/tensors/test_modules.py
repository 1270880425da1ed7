"""The parts and weights of a module are those that nn.Module names, whatever stands in its way."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from forwardpass.errors import UsageError
from forwardpass.tensors.modules import (
    applied,
    buffers_of,
    parameters_of,
    parts_of,
    put_into_mode,
    set_training,
)

SHADOWED = sorted(
    name
    for name in dir(nn.Module)
    if not name.startswith("_") and name not in ("forward", "training", "dump_patches")
)
"""What people may call their attributes, and what nn.Module calls its methods."""


@st.composite
def trees(draw: st.DrawFn) -> nn.Module:
    """Modules in modules, some of them, their parameters and their buffers under several names."""
    made = [nn.Module() for _ in range(draw(st.integers(1, 6)))]
    tensors = [nn.Parameter(torch.zeros(1)) for _ in range(2)] + [torch.zeros(2) for _ in range(2)]
    for place, part in enumerate(made):
        for name in draw(st.lists(st.sampled_from("abc"), max_size=3, unique=True)):
            below = made[place + 1 :]
            kind = draw(st.sampled_from(["module", "parameter", "buffer", "none"]))
            if kind == "module" and below:
                setattr(part, name, draw(st.sampled_from(below)))
            elif kind == "parameter":
                setattr(part, name, draw(st.sampled_from(tensors[:2])))
            elif kind == "buffer":
                part.register_buffer(name, draw(st.sampled_from(tensors[2:])))
            elif kind == "none":
                part.register_parameter(name, None)
    return made[0]


def ids(pairs: Any) -> list[tuple[str, int]]:
    return [(name, id(one)) for name, one in pairs]


@given(trees(), st.booleans())
def test_they_are_those_of_torch_in_its_order(module: nn.Module, every: bool) -> None:
    once = not every
    assert ids(parts_of(module, every_name=every)) == ids(
        module.named_modules(remove_duplicate=once)
    )
    assert ids(parameters_of(module, every_name=every)) == ids(
        module.named_parameters(remove_duplicate=once)
    )
    assert ids(buffers_of(module, every_name=every)) == ids(
        module.named_buffers(remove_duplicate=once)
    )


def test_a_module_within_itself_has_an_end() -> None:
    module = nn.Module()
    module.inner = nn.Linear(1, 1)
    module.inner.back = module
    assert [path for path, _ in parts_of(module)] == ["", "inner"]
    assert [path for path, _ in parts_of(module, every_name=True)] == ["", "inner"]


class Frozen(nn.Linear):
    """Says itself what train() means, as people do with batch norms that are not to learn."""

    def train(self, mode: bool = True) -> Frozen:
        return super().train(False)


class Computed(nn.Module):
    """Says its mode by a property that nobody can set."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(2, 2)

    @property
    def training(self) -> bool:  # type: ignore[override]
        return self.part.training

    @training.setter
    def training(self, value: bool) -> None:
        if hasattr(self, "part"):
            raise AttributeError("it is that of its part")


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_is_what_train_would_make_of_it(mode: bool) -> None:
    module = nn.Sequential(Frozen(2, 2), nn.Sequential(nn.Dropout(), Frozen(2, 2)), nn.ReLU())
    expected = copy.deepcopy(module).train(mode)
    put_into_mode(module, mode)
    assert [m.training for m in module.modules()] == [m.training for m in expected.modules()]


def test_a_mode_that_is_a_property_follows_its_part() -> None:
    module = Computed()
    put_into_mode(module, False)
    assert not module.training
    set_training(module, True)
    assert not module.training


@pytest.mark.parametrize("name", SHADOWED)
def test_an_attribute_in_the_place_of_a_method_stands_in_nobodys_way(name: str) -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.GRU(3, 2))
    parts, weights = ids(module.named_modules()), ids(module.named_parameters())
    vars(module)[name] = None
    vars(module[1])[name] = [1]
    put_into_mode(module, False)
    assert not any(part.training for _, part in parts_of(module))
    assert (ids(parts_of(module)), ids(parameters_of(module))) == (parts, weights)
    applied(module, lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    assert {p.dtype for _, p in parameters_of(module)} == {torch.float64}


def test_a_module_that_was_never_initialised_is_refused_in_a_sentence() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            pass

    with pytest.raises(UsageError, match=r"Bare\.__init__ has to begin with super"):
        list(parts_of(Bare()))
