"""Attention written out by hand, computed by the fused operator while the module's own code runs.

In a module that was changed so, a product of matrices gives a `Late`: scores that nobody has
computed yet. What the code does to them goes into the formula of `scores`; where it comes
to weights · values, the fused operator computes that. Where the code does anything else with them,
they are computed as it is written. So a module keeps its code, its parts and their names; and what
is written in other ways, or needed elsewhere, comes out as before.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from torch._ops import OpOverload
from torch.jit._trace import is_tracing
from torch.overrides import TorchFunctionMode, handle_torch_function
from torch.utils import _pytree as pytree

from forwardpass.building.steps.sdpa.scores import Scores
from forwardpass.building.steps.sdpa.scoring import BEGINNING, FOLLOWING
from forwardpass.errors import BuildError

_SELF = ("contiguous", "detach", "dropout", "float", "to", "type", "type_as")
"""Operators that return the tensor itself where there is nothing for them to do."""
_VIEWS = ("reshape", "view")


class _Deferred:
    """Scores, and the call that computes them."""

    def __init__(
        self, scores: Scores, func: Callable[..., Any], args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.scores = scores
        self.computed: torch.Tensor | None = None
        self._func, self._args, self._kwargs = func, args, kwargs

    def value(self) -> torch.Tensor:
        """The tensor, computed as it is written."""
        if self.computed is None:
            args, kwargs = _settled(self._args), _settled(self._kwargs)
            self.computed = cast("torch.Tensor", self._func(*args, **kwargs)).to(self.scores.dtype)
        return self.computed


class Late:
    """Scores or weights that are computed where they are needed as a tensor.

    Attributes:
        made: what they are now; what writes in place puts other ones there.
        shared: whether a view shows the same memory.
    """

    __array_priority__ = 1000  # a number of NumPy's on the left asks it first, as it asks a tensor

    def __init__(self, made: _Deferred, shared: bool = False) -> None:
        self.made = made
        self.shared = shared

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = ruled(func, args, kwargs or {})
        return plainly(func, args, kwargs or {}) if made is None else made

    @property
    def shape(self) -> torch.Size:
        return self.made.scores.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.made.scores.dtype

    @property
    def device(self) -> torch.device:
        return self.made.scores.queries.device

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def dim(self) -> int:
        return len(self.shape)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def __getattr__(self, name: str) -> Any:
        if callable(method := getattr(torch.Tensor, name)):
            return functools.partial(_called, method, self)
        return getattr(self.made.value(), name)


def _called(func: Any, *args: Any, **kwargs: Any) -> Any:
    return handle_torch_function(func, (args[0],), *args, **kwargs)


def _written(name: str) -> Callable[..., Any]:
    func = getattr(torch.Tensor, name)

    def called(self: Late, *others: Any) -> Any:
        return _called(func, self, *others)

    return called


_WRITTEN = {"add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "matmul": "matmul"}
for _name, _method in _WRITTEN.items():
    setattr(Late, f"__{_name}__", _written(_method))
    if _name != "matmul":
        setattr(Late, f"__i{_name}__", _written(f"{_method}_"))
for _name in ("add", "mul"):
    setattr(Late, f"__r{_name}__", _written(_name))
for _name in (
    "rsub", "rtruediv", "rmatmul", "pow", "rpow", "neg", "abs", "pos", "getitem", "setitem", "len",
    "iter", "bool", "float", "int", "lt", "le", "gt", "ge", "eq", "ne", "and", "or", "invert",
    "floordiv", "mod", "contains", "array",
):  # fmt: skip
    setattr(Late, f"__{_name}__", _written(f"__{_name}__"))
Late.__hash__ = object.__hash__


def ruled(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], *, begins: bool = False
) -> Any:
    """What a call makes by the formula of attention: a Late, the fused output, or None: nothing.

    `begins` says whether a product of tensors may be put off.
    """
    name, writes = _spelled(func)
    rule = FOLLOWING.get(name)
    if rule is None:
        return None
    if "input" in kwargs:
        args, kwargs = (kwargs["input"], *args), {k: v for k, v in kwargs.items() if k != "input"}
    lates = [value for value in (*args, *kwargs.values()) if isinstance(value, Late)]
    first = lates[0] if lates else None
    found: Any = None
    if not any(late.made.computed is not None for late in lates):
        others = lates[1:]  # of several, one is put off and the others are computed
        shown = [_shown(value, others) for value in args]
        found = rule(*shown, **{key: _shown(value, others) for key, value in kwargs.items()})
    if found is None and begins and first is not None and name in BEGINNING:
        args, kwargs, first = _settled(args), _settled(kwargs), None
        found = rule(*args, **kwargs)
    if not isinstance(found, Scores):
        return found
    if first is not None and found is first.made.scores and name in _SELF:
        return first
    made = _Deferred(
        found,
        getattr(torch.Tensor, name) if writes else func,
        [_kept(value) for value in args],
        {key: _kept(value) for key, value in kwargs.items()},
    )
    if writes and first is not None:
        if first is not args[0] or first.shared:
            return None
        first.made = made
        return first
    if first is not None and name in _VIEWS:
        first.shared = True
        return Late(made, shared=True)
    return Late(made)


def plainly(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a call makes, computed as it is written."""
    target = args[0] if args else None
    if isinstance(target, Late) and _writes(func, kwargs):
        if target.shared:
            raise BuildError("scores are written over in place while a view of them is held")
        value = target.made.value().clone()  # what was made of it before stays
        target.made = _Deferred(target.made.scores, torch.clone, (value,), {})
        target.made.computed = value
        func(value, *_settled(args[1:]), **_settled(kwargs))
        return target
    return func(*_settled(args), **_settled(kwargs))


class Fusing(TorchFunctionMode):
    """Puts off products of matrices, and counts the attentions that were fused."""

    def __init__(self) -> None:
        super().__init__()
        self.fused = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if Late not in types and _spelled(func)[0] not in BEGINNING:
            return func(*args, **kwargs)
        if func is torch.Tensor.matmul and torch.compiler.is_dynamo_compiling():
            args = _in_order(*args)
        made = ruled(func, args, kwargs, begins=True)
        if made is None:
            return plainly(func, args, kwargs)
        if not isinstance(made, Late):
            self.fused += 1
        return made


def _in_order(one: Any, other: Any) -> tuple[Any, Any]:
    """The operands of `@` as they were written.

    torch.compile hands on `late @ tensor` as `tensor @ late` (2.13 swaps the operands of matmul, as
    of all operators, and knows no reversed one). Weights that a record has come first.
    """
    if isinstance(one, Late) or not isinstance(other, Late):
        return one, other
    if other.made.scores.softmaxed:
        return other, one
    raise BuildError(
        "torch.compile swaps the operands of a product of matrices; write torch.matmul for `@`"
    )


def fusing(kind: type[nn.Module]) -> type[nn.Module]:
    """The class, with a `forward` that puts attention off."""

    @functools.wraps(kind.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        mode = Fusing()
        with mode:
            result = kind.forward(self, *args, **kwargs)
        if not mode.fused and (is_tracing() or torch.compiler.is_compiling()):
            raise BuildError(f"the attention of {kind.__name__} is not fused while it is traced")
        return result

    def body(namespace: dict[str, Any]) -> None:
        namespace.update(
            forward=forward, __module__=kind.__module__, __qualname__=kind.__qualname__
        )

    return types.new_class(kind.__name__, (kind,), exec_body=body)


_HOMES = (torch, torch.Tensor, torch.nn.functional)


def _names() -> dict[Any, tuple[str, bool]]:
    """What the functions of FOLLOWING are called in each of the places where PyTorch has them, and
    whether they write in place."""
    found: dict[Any, tuple[str, bool]] = {}
    for home in _HOMES:
        for name in FOLLOWING:
            for spelled, writes in ((name, False), (f"{name}_", True)):
                if name[0] != "_" and callable(func := getattr(home, spelled, None)):
                    found[func] = (name, writes)
    return found


def _writing() -> set[Any]:
    """Every function that writes into its first argument."""
    named = [(home, name) for home in _HOMES for name in dir(home)]
    ends = [(home, name) for home, name in named if name.endswith("_") and name[-2:] != "__"]
    return {getattr(home, name) for home, name in ends} | {torch.Tensor.__setitem__}


_NAMES, _WRITING = _names(), _writing()


def _spelled(func: Any) -> tuple[str, bool]:
    """The name of what a function does, and whether it does so in place."""
    if isinstance(func, OpOverload):  # in the code of an exported program
        name = func.__name__.partition(".")[0]
        return (name[:-1], True) if name.endswith("_") else (name, False)
    if func is torch.Tensor.__rsub__ or func is torch.Tensor.__rdiv__:
        return ("__rsub__" if func is torch.Tensor.__rsub__ else "__rdiv__"), False
    return _NAMES.get(func, ("", False))


def _writes(func: Any, kwargs: Mapping[str, Any]) -> bool:
    return func in _WRITING or _spelled(func)[1] or bool(kwargs.get("inplace"))


def _shown(value: Any, computed: Sequence[Late]) -> Any:
    """An argument as rules see it."""
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        return [_shown(item, computed) for item in cast("Sequence[Any]", value)]
    if not isinstance(value, Late):
        return value
    return value.made.value() if any(value is late for late in computed) else value.made.scores


def _kept(value: Any) -> Any:
    """An argument as it is now: a Late may become another."""
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        return [_kept(item) for item in cast("Sequence[Any]", value)]
    return value.made if isinstance(value, Late) else value


def _settled(tree: Any) -> Any:
    """Arguments with the tensors of what was put off."""

    def value(leaf: Any) -> Any:
        if isinstance(leaf, Late):
            return leaf.made.value()
        return leaf.value() if isinstance(leaf, _Deferred) else leaf

    return pytree.tree_map(value, tree)
