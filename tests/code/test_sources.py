"""A function's source is read as Python's own `inspect` reads it."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from forwardpass.code.sources import parsed


def functions(module: ModuleType) -> Iterator[FunctionType]:
    """The functions of a module, and those of its classes, which have a text."""
    for value in vars(module).values():
        inside = vars(value).values() if isinstance(value, type) else [value]
        for function in inside:
            plain = inspect.unwrap(function) if callable(function) else None
            if isinstance(plain, FunctionType) and not plain.__code__.co_filename.startswith("<"):
                yield plain


def by_inspect(code: CodeType) -> str:
    lines, _ = inspect.getsourcelines(code)
    return ast.dump(ast.parse(inspect.cleandoc("\n" + "".join(lines))))


@pytest.mark.parametrize(
    "module", [contextlib, dataclasses, functools, nn.modules.transformer, torch.nn.utils.rnn]
)
def test_functions_of_libraries_are_read_as_inspect_reads_them(module: ModuleType) -> None:
    found = list(functions(module))
    assert len(found) > 10
    for function in found:
        read = parsed(function)
        assert read is not None, function
        assert ast.dump(read[0]) == by_inspect(function.__code__), function
        assert read[1] == function.__code__.co_firstlineno


def marked(*_: Any) -> Callable[[FunctionType], FunctionType]:
    return lambda function: function


class Odd:
    # fmt: off
    @marked(
        "def wrong(self):",
    )
    def decorated(
self, x: int,
    ) -> str:
        text = """
no deeper than the class
"""
        return (
text
        )  # where the margin says that it ends

    async def waits(self) -> int:
        # a comment
    # and one further out
        return 1

    def short(self) -> int: return 1
    # fmt: on


@pytest.mark.parametrize("name", ["decorated", "waits", "short"])
def test_functions_that_do_not_end_where_the_margin_says(name: str) -> None:
    function = vars(Odd)[name]
    read = parsed(function)
    try:
        expected = by_inspect(function.__code__)
    except SyntaxError:  # the text in it is less indented than the function
        assert read is None
    else:
        assert read is not None
        assert ast.dump(read[0]) == expected
        assert name in {getattr(node, "name", "") for node in ast.walk(read[0])}


def test_a_lambda_is_read_with_the_statement_that_it_is_in() -> None:
    double = lambda x: 2 * x  # noqa: E731
    read = parsed(double)
    assert read is not None
    assert ast.unparse(read[0]).startswith("double = lambda x")
