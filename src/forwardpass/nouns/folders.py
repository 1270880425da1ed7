"""Folders that are lists: each file is one of a kind, and its name is the public name."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def names(folder: ModuleType) -> list[str]:
    """The public names in a folder, sorted; a leading underscore marks what its files share."""
    found = (file.name for file in iter_modules(folder.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def plugin(folder: ModuleType, name: str) -> ModuleType:
    """The file, or folder, of that name."""
    return import_module(f"{folder.__name__}.{name}")


def plugins(folder: ModuleType) -> dict[str, ModuleType]:
    """All of them, by name."""
    return {name: plugin(folder, name) for name in names(folder)}
