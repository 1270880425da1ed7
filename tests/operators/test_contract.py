"""The folder keeps the contract that its docstring states."""

from __future__ import annotations

import inspect
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

import pytest
import torch

from forwardpass import operators

NAMES = [file.name for file in iter_modules(operators.__path__) if file.name != "kinds"]
FILES = [import_module(f"forwardpass.operators.{name}") for name in NAMES if name[0] != "_"]


def parameters(function: object) -> list[str]:
    assert callable(function)
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.__name__.rpartition(".")[2])
def test_a_file_has_formula_names_and_functions(file: ModuleType) -> None:
    assert "Source" in (file.__doc__ or "") or "random" in (file.__doc__ or "")
    assert parameters(file.macs) == ["operator", "arguments", "outputs"]
    assert parameters(file.terms) == ["operator", "arguments", "output", "element"]
    if hasattr(file, "gradient"):
        assert parameters(file.gradient) == ["operator", "arguments", "name", "element", "delta"]
    assert isinstance(file.COVERS, tuple)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.__name__.rpartition(".")[2])
def test_covered_names_exist_in_torch(file: ModuleType) -> None:
    for name in file.COVERS:
        namespace, _, operator = name.partition(".")
        assert hasattr(getattr(torch.ops, namespace), operator), name


def test_no_name_is_covered_twice() -> None:
    covered = [name for file in FILES for name in file.COVERS]
    assert len(covered) == len(set(covered))


def test_find_gives_the_file_that_covers() -> None:
    for file in FILES:
        for name in file.COVERS:
            assert operators.find(name) is file


@pytest.mark.parametrize("name", ["aten.view", "aten.addmm.default", "addmm", ""])
def test_find_gives_none_for_what_no_file_covers(name: str) -> None:
    assert operators.find(name) is None
