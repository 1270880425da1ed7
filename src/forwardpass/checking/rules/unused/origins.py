"""Origins: the line at which the user's code makes a parameter, or the module that holds it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from types import FunctionType

from torch import nn

from forwardpass.code.sources import assigned, parsed, shortened
from forwardpass.nouns.calls import Site

_REGISTERS = frozenset(
    ("register_parameter", "register_buffer", "register_module", "add_module", "setattr")
)


def made_at(parts: Mapping[str, nn.Module], path: str, name: str) -> Site | None:
    """Where `name` of the module at `path` is made, or else what holds it: what containers hold,
    they were given. Where no line names it, where the whole model's `__init__` begins.

    Args:
        parts: the modules by path.
    """
    site = _made(type(parts[path]), name)
    while site is None and path:
        path, _, name = path.rpartition(".")
        site = _made(type(parts[path]), name)
    return site or _beginning(type(parts[""]))


def _made(kind: type, name: str) -> Site | None:
    for owner in kind.__mro__:
        if owner is nn.Module:
            return None
        functions = {key: f for key, f in vars(owner).items() if isinstance(f, FunctionType)}
        for method in sorted(functions, key=lambda key: key != "__init__"):
            function = functions[method]
            site = _registered(function, name) or assigned(owner, name, method)
            if site is not None and site.function == function.__qualname__:  # and of no base class
                return site
    return None


def _registered(function: FunctionType, name: str) -> Site | None:
    """Where a function calls `register_parameter` or its kin with this name."""
    read = parsed(function)
    if read is None:
        return None
    tree, first = read
    for line in _lines_that_register(tree, name):
        return _site(function, first + line - 1)
    return None


def _lines_that_register(tree: ast.AST, name: str) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            what = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            given = (*node.args, *(keyword.value for keyword in node.keywords))
            texts = (each.value for each in given if isinstance(each, ast.Constant))
            if what in _REGISTERS and name in texts:
                yield node.lineno


def _beginning(kind: type) -> Site | None:
    function = kind.__init__
    if not isinstance(function, FunctionType) or function is nn.Module.__init__:
        return None
    return _site(function, function.__code__.co_firstlineno)


def _site(function: FunctionType, line: int) -> Site:
    return Site(shortened(function.__code__.co_filename), line, function.__qualname__)
