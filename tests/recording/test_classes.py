"""Classes that derive from Tensor: what is recorded is what the plain call computes with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from functions import Fn
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._pytree import tree_map_only
from untouched import operators, same, untouched, valid

import forwardpass as fwd
from forwardpass.errors import UsageError
from forwardpass.probing import record

GRADS = ("off", "on", "inference")


class Tagged(Tensor):
    """As people make to carry a name along."""


class Labelled(Tensor):
    label: str

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(out, cls):
            out.label = next((a.label for a in args if hasattr(a, "label")), "")
        return out


class Tenfold(Tensor):
    """Adds in its own way, as numbers with units or logarithms do."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_function__(func, types, args, kwargs or {})
        return out * 10 if func is Tensor.add else out


class Lying(Tensor):
    """Says another shape than it has, and must not be asked."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.shape.__get__:
            raise AssertionError("nobody in forward asks for the shape")
        return super().__torch_function__(func, types, args, kwargs or {})


class Wrapped(Tensor):
    """Stands for another tensor, with which its `__torch_dispatch__` computes."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Any:
        shell: Any = Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype)
        shell.held = held
        return shell

    def __init__(self, held: Tensor) -> None:
        pass

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inner = tree_map_only(Wrapped, lambda t: t.held, (args, kwargs or {}))
        return tree_map_only(Tensor, Wrapped, func(*inner[0], **inner[1]))


class Closed(Wrapped):
    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError(f"{func} is not for me")


X = torch.linspace(-1, 1, 20).reshape(5, 4)


def tagged_alone(m: Any, x: Tensor) -> Tensor:
    return m.fc(x) if isinstance(x, Tagged) else m.fc(x) * 3


def of(kind: type[Tensor], **attributes: Any) -> Tensor:
    made = X.clone().as_subclass(kind)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


CASES: dict[str, tuple[Any, Any]] = {
    "a class alone": (tagged_alone, lambda: of(Tagged)),
    "a class that hands something on": (
        lambda m, x: m.fc(x).relu() * len(m.fc(x).label),
        lambda: of(Labelled, label="ab"),
    ),
    "other arithmetic": (lambda m, x: m.fc(x + 1), lambda: of(Tenfold)),
    "a class that lies": (lambda m, x: m.fc(x).relu(), lambda: of(Lying)),
    "a parameter": (
        lambda m, x: m.fc(x) if isinstance(x, nn.Parameter) else m.fc(x) * 3,
        lambda: nn.Parameter(X.clone()),
    ),
    "attributes of a plain tensor": (
        lambda m, x: m.fc(x) * x.lengths[:, None] if x.note == "n" else None,
        lambda: of(Tensor, lengths=torch.arange(5), note="n"),
    ),
    "conjugate": (lambda m, x: (x * 1j).real, lambda: torch.complex(X, X * 2).conj()),
    "negative": (lambda m, x: m.fc(x), lambda: torch.complex(X, X * 2).conj().imag),
    "two tensors in one": (lambda m, x: m.fc(x.a) + m.fc(x.b), lambda: TwoTensor(X, X * 2)),
    "computed as one": (lambda m, x: (x * 2).relu().a, lambda: TwoTensor(X, X * 2)),
    "wrapped": (lambda m, x: m.fc(x).held, lambda: Wrapped(X.clone())),
    "wrapped inside": (lambda m, x: Wrapped(m.fc(x)).relu().held, lambda: X.clone()),
    "turned inside": (lambda m, x: m.fc(x).as_subclass(Tagged).relu() + 1, lambda: X.clone()),
    "turned back": (
        lambda m, x: m.fc(x).as_subclass(Labelled).as_subclass(Tensor).relu(),
        lambda: X.clone(),
    ),
}


@pytest.mark.parametrize("grad", GRADS)
@pytest.mark.parametrize("name", CASES)
def test_recorded_is_what_the_plain_call_computes(name: str, grad: Any) -> None:
    function, make = CASES[name]
    model, x = Fn(function, fc=nn.Linear(4, 3)).eval(), make()
    with torch.no_grad():
        plain = model(make())
    before = dict(vars(x))
    done = valid(model, x, "f", grad=grad)
    with torch._C.DisableTorchFunctionSubclass():
        assert same(done.returned["output"], plain.detach().resolve_neg())
    assert vars(x) == before
    assert not [f for f in fwd.check(model, x, grad=grad) if f.severity == "error"]
    assert fwd.diff(model, model, x, grad=grad).verdict == "same"


@pytest.mark.parametrize("grad", GRADS)
def test_what_comes_out_as_several_in_one_has_a_name_for_each(grad: Any) -> None:
    done = valid(Fn(lambda m, x: x * 2), TwoTensor(X, X * 3), grad=grad)
    assert list(done.returned) == ["output.a", "output.b"]
    assert list(done.inputs) == ["0.a", "0.b"]
    assert same(done.returned["output.b"], X * 6)
    assert operators(done) == ["mul", "mul"]


def test_a_weight_that_stands_for_others_is_known_by_them() -> None:
    model = Fn(lambda m, x: (x @ m.weight.T).a, weight=nn.Parameter(TwoTensor(X[:3], X[:3] * 2)))
    done = record(model, X, grad="off")
    assert done.validate("f").verdict == "valid"
    assert {v.name for v in done.values if v.origin == "parameter"} == {"weight.a", "weight.b"}


def test_a_class_that_cannot_be_copied_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match=r"an input is a Closed.* raises NotImplementedError"):
        record(Fn(lambda m, x: x.held * 2), Closed(X))


@pytest.mark.parametrize("grad", GRADS)
def test_what_no_dispatch_mode_can_follow_is_not_the_modules_error(grad: Any) -> None:
    model = Fn(lambda m, x: Tagged(m.fc(x)) + 1, fc=nn.Linear(4, 3))
    with untouched(model, X), pytest.raises(UsageError, match="the module runs, and it cannot be"):
        record(model, X, grad=grad)
    with pytest.raises(UsageError, match=r"Write h.as_subclass\(Kind\) in place of Kind\(h\)"):
        fwd.check(model, X)
    valid(Fn(lambda m, x: m.fc(x).as_subclass(Tagged) + 1, fc=nn.Linear(4, 3)), X, grad=grad)


def test_rung_a_compares_with_a_call_on_the_tensors_that_were_given() -> None:
    """A copy can be told from its original, however it is made: by its id."""
    x = X.clone()
    ours = id(x)
    done = record(Fn(lambda m, x: x * (2 if id(x) == ours else 3)), x)
    (fault,) = done.validate("a").faults
    assert "differs by 0.33 from the plain pass" in fault.said
    x += 1  # what is given now is not what was recorded
    assert done.validate("a").verdict == "valid"


def test_the_tensors_that_were_given_are_left_as_they_were() -> None:
    def wild(m: Any, x: Tensor, y: Tensor) -> Tensor:
        x.add_(1).unsqueeze_(0)
        x.mark = 1
        y.data = y.data * 2
        return x + y

    x, y = X.clone(), of(Tagged, note=[1])
    model = Fn(wild)
    with untouched(model, (x, y)):
        done = record(model, (x, y), grad="off")
        assert not done.validate("a").faults
    assert (x.shape, vars(x), vars(y)) == (X.shape, {}, {"note": [1]})


def test_an_input_that_autograd_made_may_be_written() -> None:
    x = nn.Parameter(X.clone()) * 2
    done = record(Fn(lambda m, x: x.add_(1) * 3), x, grad="on")
    assert done.validate("e").verdict == "valid"
    assert not x.is_leaf
    assert same(x.detach(), X * 2)
