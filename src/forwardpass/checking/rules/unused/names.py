"""Reading the code: which parameters the code of forward can get at, whichever way it goes.

From `forward` names lead to methods, functions and attributes. What stands under an attribute whose
name no such code reads is out of its reach, for any input. Where code gets at attributes by no name
(`children()`, `getattr` with a name that it makes), all that it could mean is within reach.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache, partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple, cast

import torch
from torch import nn

from forwardpass.code.owners import is_of_models
from forwardpass.code.sources import parsed

_CONTAINERS: Final = (
    nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict,
)  # fmt: skip
"""They give out what they hold by index or in a loop: no code names it."""
_NAMELESS: Final = frozenset(
    ("children", "named_children", "modules", "named_modules", "_modules", "_parameters",
     "__dict__")
)  # fmt: skip
"""Not `parameters`: models look at the first for its dtype."""
_BY_NAME: Final = frozenset(("getattr", "attrgetter", "get_submodule", "get_parameter"))
"""They get at an attribute by a name that they are given."""
_BESIDE: Final = frozenset(
    f"__{name}__" for name in (
        "init", "new", "init_subclass", "post_init", "repr", "str", "dir", "del", "getstate",
        "setstate", "reduce", "reduce_ex", "copy", "deepcopy", "class_getitem", "setattr",
        "delattr",
    )
)  # fmt: skip
"""Methods that Python calls while it makes, copies, shows or drops an object."""
_MOST_FUNCTIONS: Final = 2_000
"""Functions that are read at most (a BERT of transformers has 190); beyond, nothing is claimed."""
_DEEPEST: Final = 4
"""Objects within objects that are gone into: a list in a dict in an attribute, and one more."""


class Code(NamedTuple):
    """What a function says.

    Attributes:
        own: the names of attributes that it reads of its first argument.
        others: those that it reads of anything else, what it calls, and all text in it.
        own_nameless, others_nameless: whether it gets at attributes by no name, of either.
    """

    own: frozenset[str]
    others: frozenset[str]
    own_nameless: bool
    others_nameless: bool


def within_reach(module: nn.Module) -> Collection[int] | None:
    """The ids of the parameters that forward can get at; None where that cannot be told: code
    whose source is not to be had, or that gets at anything by no name."""
    try:
        return _Reach(module).parameters
    except _Unknown:
        return None


class _Unknown(Exception):
    """Raised where code does not say what it reads."""


class _Reach:
    """All that the code can get at, found name by name until there is no more."""

    def __init__(self, module: nn.Module) -> None:
        self.parameters: set[int] = set()
        self._kinds: set[type] = set()
        self._own: dict[type, set[str]] = {}  # by the class whose method reads them
        self._nameless: set[type] = set()
        self._others: set[str] = {"forward"}
        self._functions: set[FunctionType] = set()
        self._modules: dict[int, nn.Module] = {}
        self._objects: dict[int, Any] = {}  # held, so that no id is given to another one
        self._reach(module, 0)
        before = -1
        while before != (before := self._size()):
            for part in list(self._modules.values()):
                self._go_along(part)
            for kind in list(self._kinds):
                self._read_methods(kind)

    def _size(self) -> int:
        names = len(self._others) + sum(map(len, self._own.values())) + len(self._nameless)
        return names + len(self._modules) + len(self._functions) + len(self._kinds)

    def _go_along(self, part: nn.Module) -> None:
        """From a module to what stands under the names that are read."""
        everything = isinstance(part, _CONTAINERS) or any(
            kind in self._nameless for kind in type(part).__mro__
        )
        for store in (part._modules, part._parameters):  # pyright: ignore[reportPrivateUsage]
            for name, held in store.items():
                if held is not None and (everything or self._is_read(type(part), name)):
                    self._reach(held, 0)

    def _is_read(self, kind: type, name: str) -> bool:
        return name in self._others or any(name in self._own.get(k, ()) for k in kind.__mro__)

    def _reach(self, held: Any, depth: int) -> None:
        """What is held: a module, a parameter, code, or objects that lead to such."""
        if isinstance(held, torch.Tensor):
            self.parameters.add(id(held))
        elif isinstance(held, nn.Module):
            if isinstance(held, torch.jit.ScriptModule):
                raise _Unknown
            if id(held) not in self._modules:
                self._modules[id(held)] = held
                self._kinds.update(k for k in type(held).__mro__ if k not in (nn.Module, object))
                stores = ("_modules", "_parameters", "_buffers")
                rest = [v for k, v in vars(held).items() if k not in stores]
                self._reach(rest, depth)
        elif depth < _DEEPEST and id(held) not in self._objects:
            self._objects[id(held)] = held
            for item in self._inside(held):
                self._reach(item, depth + 1)

    def _inside(self, held: Any) -> Iterable[Any]:
        if isinstance(held, dict):
            return list(cast("dict[Any, Any]", held).values())
        if isinstance(held, list | tuple | set | frozenset):
            return list(cast("Iterable[Any]", held))
        if isinstance(held, partial):
            return (held.func, *held.args, *held.keywords.values())
        if isinstance(held, MethodType):
            return (held.__self__, held.__func__)
        if isinstance(held, FunctionType):
            self._read(held, None)
            return _kept(held)
        if not isinstance(held, type | ModuleType) and hasattr(held, "__dict__"):
            self._kinds.update(k for k in type(held).__mro__ if k is not object)
            return list(vars(held).values())
        return ()

    def _read_methods(self, kind: type) -> None:
        """Read those methods of a class that are named, and those that Python calls by itself."""
        for name, held in list(vars(kind).items()):
            if name in _BESIDE:
                continue
            by_itself = name.startswith("__")
            if by_itself or self._is_read(kind, name) or self._is_inherited(kind, name):
                for function in _functions(held):
                    self._read(function, kind)

    def _is_inherited(self, kind: type, name: str) -> bool:
        """Whether a class that derives from this one reads the name of itself."""
        return any(name in own for k, own in self._own.items() if issubclass(k, kind))

    def _read(self, function: FunctionType, kind: type | None) -> None:
        function = cast("FunctionType", inspect.unwrap(function))
        if function in self._functions or not _says_something(function):
            return
        if len(self._functions) >= _MOST_FUNCTIONS:
            raise _Unknown
        self._functions.add(function)
        code = _code(function)
        if code is None:
            raise _Unknown(function)
        self._others |= code.others
        if kind is None or not issubclass(kind, nn.Module):
            self._others |= code.own
        else:
            self._own.setdefault(kind, set()).update(code.own)
        if code.own_nameless and kind is not None:
            self._nameless.add(kind)
        if code.others_nameless and (kind is not None and issubclass(kind, nn.Module)):
            raise _Unknown(function)
        for named in _named(function, code):
            self._read(named, None)
        for held in _kept(function):
            self._reach(held, 1)


def _says_something(function: FunctionType) -> bool:
    """Whether it is code of the model or of its libraries, PyTorch's layers among them."""
    file = function.__code__.co_filename
    return is_of_models(file) or function.__module__.startswith(
        ("torch.nn.modules", "torch.nn.utils")
    )


def _functions(held: Any) -> Iterator[FunctionType]:
    """The functions behind an attribute of a class."""
    if isinstance(held, property):
        candidates: list[Any] = [held.fget]
    elif isinstance(held, classmethod | staticmethod):
        candidates = [cast("Any", held).__func__]
    else:
        candidates = [getattr(held, "func", held)]
    yield from (f for f in candidates if isinstance(f, FunctionType))


def _kept(function: FunctionType) -> list[Any]:
    """What a function holds: its defaults, and what it closes over."""
    found = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # it is empty yet
            continue
    return found


def _named(function: FunctionType, code: Code) -> Iterator[FunctionType]:
    """The functions of Python modules that a function calls by name."""
    for name in code.others:
        held = function.__globals__.get(name)
        if isinstance(held, FunctionType):
            yield held
        elif isinstance(held, ModuleType) and is_of_models(
            getattr(held, "__file__", None) or "<string"
        ):
            inside = (vars(held).get(other) for other in code.others)
            yield from (other for other in inside if isinstance(other, FunctionType))


@lru_cache(maxsize=4096)
def _code(function: FunctionType) -> Code | None:
    read = parsed(function)
    if read is None:
        return None
    tree, _ = read
    first = function.__code__.co_varnames[:1] if function.__code__.co_argcount else ()
    own: set[str] = set()
    others: set[str] = set()
    own_nameless = others_nameless = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            is_own = isinstance(node.value, ast.Name) and node.value.id in first
            (own if is_own else others).add(node.attr)
            if node.attr in _NAMELESS:
                own_nameless, others_nameless = (
                    own_nameless | is_own,
                    others_nameless | (not is_own),
                )
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Attribute):
            others.add(node.target.attr)
        elif isinstance(node, ast.Name):
            others.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            others.update(node.value.split("."))
        elif isinstance(node, ast.Call) and _makes_a_name(node):
            given = [*node.args, node.func.value if isinstance(node.func, ast.Attribute) else None]
            is_own = any(isinstance(g, ast.Name) and g.id in first for g in given)
            own_nameless, others_nameless = own_nameless | is_own, others_nameless | (not is_own)
    return Code(frozenset(own), frozenset(others), own_nameless, others_nameless)


def _makes_a_name(call: ast.Call) -> bool:
    """Whether a call gets at an attribute by a name that is no constant, or at all of them."""
    function = call.func
    called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if called == "vars":
        return True
    if called not in _BY_NAME:
        return False
    names = call.args[1:2] if called == "getattr" else call.args
    return not all(isinstance(name, ast.Constant) for name in names)
