"""Modules that are called in their own way: a `__call__` of the class, a forward of the object."""

from __future__ import annotations

import functools
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from untouched import same, untouched, valid

import forwardpass as fwd
from forwardpass.errors import PassError
from forwardpass.probing import record
from forwardpass.recording.doorway import _OWN_CALLS

X = torch.linspace(-1, 1, 8).reshape(2, 4)


class Scaled(nn.Sequential):
    """Takes more than forward does, and goes on to it."""

    def __call__(self, x: Tensor, scale: float = 2.0) -> Tensor:
        return super().__call__(x) * scale


class Twice(Scaled):
    """Goes on to forward twice, through another one's `__call__`."""

    def __call__(self, x: Tensor, scale: float = 2.0) -> Tensor:
        return super().__call__(x, scale) + super().__call__(-x, scale)


class Past(nn.Sequential):
    """Never comes to nn.Module's `__call__`, or to forward."""

    def __call__(self, x: Tensor) -> Tensor:
        for part in self:
            x = part(x)
        return x + 1

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("nobody calls this")


class Again(nn.Linear):
    """Its forward calls the module itself once more."""

    def __call__(self, x: Tensor, deep: bool = True) -> Tensor:
        return super().__call__(x, deep) * 2

    def forward(self, x: Tensor, deep: bool = True) -> Tensor:
        return self(super().forward(x), False) if deep else super().forward(x)


def made(kind: type[nn.Module]) -> nn.Module:
    return kind(nn.Linear(4, 4), nn.ReLU()) if issubclass(kind, nn.Sequential) else kind(4, 4)


KINDS = [Scaled, Twice, Past, Again]


@pytest.mark.parametrize("grad", ["on", "off", "inference"])
@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_they_compute_is_theirs(kind: type[nn.Module], inner: bool, grad: Any) -> None:
    one = made(kind).eval()
    module = nn.Sequential(one, nn.Linear(4, 2)) if inner else one
    before = vars(kind)["__call__"]
    with torch.no_grad():
        plain = module(X)
    done = valid(module, X, "f", grad=grad)
    assert same(done.returned["output"], plain)
    assert vars(kind)["__call__"] is before
    assert before.__code__.co_name == "__call__"
    assert not _OWN_CALLS
    path = "0" if inner else ""
    own = [entry.index for entry in done.of_module(path)]
    assert own == ([0, 1] if kind is Again else [0])
    last = max(call.index for call in done.calls if call.kind == "compute" and call.macs == 0)
    if kind is not Again:
        assert done.module(done.calls[last]).path == path
    assert not [f for f in fwd.check(module, X, grad=grad) if f.severity == "error"]


def test_their_arguments_are_those_of_the_call() -> None:
    module = made(Scaled)
    done = record(module, {"x": X, "scale": torch.tensor(3.0)})
    assert list(done.inputs) == ["x", "scale"]
    assert same(done.returned["output"], module(X, scale=torch.tensor(3.0)).detach())


@pytest.mark.parametrize("kind", KINDS)
def test_watch_sees_them(kind: type[nn.Module]) -> None:
    module = made(kind)
    with fwd.watch(module) as records:
        came = module(X)
        module(X)
    assert len(records) == 2
    assert records[0].values[records[0].outputs["output"]].shape == tuple(came.shape)
    assert records[0].caller is not None
    assert not _OWN_CALLS


@pytest.mark.parametrize("kind", KINDS)
def test_diff_finds_what_was_changed_in_them(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    one = nn.Sequential(made(kind), nn.Linear(4, 2)).eval()
    other = nn.Sequential(made(kind), nn.Linear(4, 2)).eval()
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        other[1].bias += 1
    guilty = fwd.diff(one, other, X).guilty
    assert guilty is not None
    assert guilty.path == "1"


def shifted(module: nn.Module, x: Tensor) -> Tensor:
    return type(module).forward(module, x) + 1


def patched(how: str) -> nn.Module:
    layer = nn.Linear(4, 4)
    before = layer.forward
    layer.forward = {  # type: ignore[method-assign]
        "bound": types.MethodType(shifted, layer),
        "partial": functools.partial(shifted, layer),
        "closure": lambda x: before(x) + 1,
        "builtin": torch.relu,
    }[how]
    return layer


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("how", ["bound", "partial", "closure", "builtin"])
def test_a_forward_of_the_object_is_the_one_that_runs(how: str, inner: bool) -> None:
    layer = patched(how).eval()
    module = nn.Sequential(nn.Linear(4, 4), layer) if inner else layer
    with torch.no_grad():
        plain = module(X)
    with untouched(module, X):
        done = valid(module, X, "f", grad="off")
        named = record(module, {"x": X})
    assert same(done.returned["output"], plain)
    assert same(named.returned["output"], plain)
    if how != "builtin":  # which has no frame of its own
        assert {done.module(call).path for call in done.calls} == ({"0", "1"} if inner else {""})


class Raising(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x))
        raise ValueError("the model's own")


def test_an_error_is_of_the_module_whose_code_raised_it() -> None:
    with pytest.raises(PassError, match="the model's own") as caught:
        record(nn.Sequential(nn.ReLU(), Raising()), X)
    assert caught.value.record.failed.module == "1"
