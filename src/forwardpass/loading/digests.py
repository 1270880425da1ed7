"""Whether two programs are the same: a digest over the code and every weight.

Two processes that load the same thing must find the same digest, so nothing in it depends on
addresses, on the order of sets, or on where a file lies.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from forwardpass.errors import UsageError
from forwardpass.tensors.arrays import is_tensor

if TYPE_CHECKING:
    import torch
    from torch import nn


_LIBRARY = re.compile(r"forwardpass(\.|$)")
_OURS = {"training", "name_or_path", "_name_or_path"}
"""Attributes that do not decide a result: the mode, which is always eval, and paths."""


def of_module(module: nn.Module) -> str:
    """SHA-256, in hex, over what decides the results of a module.

    The code of its classes, their attributes and hooks, every parameter and buffer by content.
    """
    # It loads PyTorch, which what else is described here does not need.
    from torch.nn.parameter import is_lazy

    from forwardpass.tensors.modules import buffers_of, parameters_of, parts_of

    walk, total = Described(), hashlib.sha256()
    for path, part in parts_of(module):
        attributes = {n: v for n, v in vars(part).items() if not n.startswith("_")}
        hooks = [*part._forward_pre_hooks.values(), *part._forward_hooks.values()]  # pyright: ignore[reportPrivateUsage]
        codes = [getattr(hook, "__code__", None) for hook in hooks]  # not what they collect
        known = [walk.said(type(part)), walk.said(_decisive(attributes)), walk.said(codes)]
        total.update(f"\0{path}:{known}".encode())
    for name, tensor in [*parameters_of(module), *buffers_of(module)]:
        if is_lazy(tensor):
            raise UsageError(
                f"{type(module).__name__} is lazy: its {name} has no shape yet; call the model "
                "once with real inputs, and give it then"
            )
        total.update(f"\0{name}:{content(tensor)}".encode())
    return total.hexdigest()


class Described:
    """Says what a value is, as text; what it has said before it names by a number."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._kept: list[object] = []  # so that no address is used twice

    def said(self, value: Any) -> str:
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return repr(value)
        if isinstance(value, list | tuple):
            items = cast("list[Any]", value)
            return f"{type(items).__name__}{[self.said(item) for item in items]}"
        if id(value) in self._seen:
            return f"#{self._seen[id(value)]}"
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        return "|".join(self._parts(value))

    def _parts(self, value: Any) -> Iterator[str]:
        if isinstance(value, set | frozenset):
            yield from sorted(repr(item) for item in cast("set[Any]", value))
        elif isinstance(value, Mapping):
            pairs = cast("Mapping[Any, Any]", value)
            for key in sorted(pairs, key=repr):
                yield f"{key!r}={self.said(pairs[key])}"
        elif isinstance(value, np.ndarray) or is_tensor(value):
            yield content(value)
        elif isinstance(value, functools.partial):
            part = cast("functools.partial[Any]", value)
            yield from (self.said(part.func), self.said(part.args), self.said(part.keywords))
        elif isinstance(value, FunctionType):
            yield from self._function(value)
        elif isinstance(value, CodeType):
            yield self._code(value)
        elif isinstance(value, MethodType):
            yield from (self.said(value.__self__), self.said(value.__func__))
        elif isinstance(value, type):
            yield from self._class(cast("type[Any]", value))
        elif isinstance(value, ModuleType | BuiltinFunctionType):
            yield value.__name__
        else:
            yield from self._object(value)

    def _function(self, function: FunctionType) -> Iterator[str]:
        """Its instructions, what it closes over, and what it refers to in its own file."""
        yield self._code(function.__code__)
        yield self.said([function.__defaults__, function.__kwdefaults__])
        for cell in function.__closure__ or ():
            yield self.said(cell.cell_contents)
        for name in _names(function.__code__):
            value = function.__globals__.get(name)
            module = getattr(value, "__module__", None) or function.__module__
            here = module == function.__module__ or _users(module)
            if value is not None:
                yield f"{name}={self.said(value) if here else getattr(value, '__name__', name)}"

    def _class(self, cls: type[Any]) -> Iterator[str]:
        """The functions of a class and of those it inherits from; torch's own by their name."""
        for base in cls.__mro__:
            yield base.__qualname__
            if base is object or base.__module__.partition(".")[0] in ("torch", "builtins"):
                continue
            for name, value in sorted(vars(base).items()):
                inner = getattr(value, "__func__", getattr(value, "fget", value))
                plain = inner is None or isinstance(inner, bool | int | float | str | tuple)
                function = inspect.unwrap(inner) if callable(inner) else None
                if isinstance(function, FunctionType) or (plain and not name.startswith("__")):
                    yield f"{name}={self.said(inner if plain else function)}"

    def _object(self, value: Any) -> Iterator[str]:
        yield self.said(type(value))
        attributes = _decisive(getattr(value, "__dict__", {}))
        text = getattr(value, "to_str", None)
        if callable(text):  # a tokenizer of the tokenizers library
            yield hashlib.sha256(str(text()).encode()).hexdigest()
        elif callable(getattr(value, "set_truncation_and_padding", None)):
            # One of transformers, which sets both at each call: what they are now is from the last.
            backend = value.backend_tokenizer
            attributes = {name: item for name, item in attributes.items() if item is not backend}
            told = json.loads(backend.to_str())
            whole = json.dumps({**told, "truncation": None, "padding": None}, sort_keys=True)
            yield hashlib.sha256(whole.encode()).hexdigest()
        yield self.said(attributes)

    def _code(self, code: CodeType) -> str:
        constants = [
            self._code(constant) if isinstance(constant, CodeType) else self.said(constant)
            for constant in code.co_consts
        ]
        names = (code.co_name, code.co_names, code.co_varnames)
        return f"{names}{code.co_code.hex()}{constants}"


@functools.cache
def _users(module: str) -> bool:
    """Whether a module is the user's own file, and no library that was installed."""
    file = getattr(sys.modules.get(module), "__file__", None)
    installed = tuple(sysconfig.get_paths().values())
    return file is not None and not file.startswith(installed) and not _LIBRARY.match(module)


def _decisive(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name not in _OURS}


def _names(code: CodeType) -> list[str]:
    """The names that a function and those inside it may take from its file."""
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    return sorted({*code.co_names, *(name for c in inner for name in _names(c))})


def content(value: torch.Tensor | np.ndarray[Any, Any]) -> str:
    """Dtype, shape and a hash of the values; of a tensor that stands for others, of those."""
    told = f"{value.dtype}{list(value.shape)}"
    if is_tensor(value):
        import torch

        from forwardpass.tensors.classes import inside

        if held := inside(value):
            return told + "".join(f"{name}{content(one)}" for name, one in held.items())

        if value.device.type == "meta" or value.layout != torch.strided or not value.numel():
            return told
        raw = value.detach().cpu().contiguous().reshape(-1)
        value = (raw.int_repr() if raw.is_quantized else raw).view(torch.uint8).numpy()
    if value.dtype == object:
        return told + repr(value.tolist())
    raw_bytes = np.ascontiguousarray(value).view(np.uint8)  # dates give no buffer of their own
    return told + hashlib.sha256(raw_bytes.data).hexdigest()
