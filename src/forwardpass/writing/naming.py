"""Naming: the functions and the variables of a written pass."""

from __future__ import annotations

import builtins
import keyword
import re

from forwardpass.writing.layout import Line
from forwardpass.writing.scopes import Scope

_RESERVED = {
    *keyword.kwlist, *keyword.softkwlist, *dir(builtins), "torch", "F", "state", "prefix",
    "constants", "forward", "tensors", "deepcopy",
} - {"input"}  # fmt: skip


class Names:
    """The names of one function's tensors, by the serial of the object."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.expressions: dict[int, str] = {}
        self._next: dict[str, int] = {}

    def fresh(self, base: str) -> str:
        name, number = base, self._next.get(base, 1)
        while name in self.taken or name in _RESERVED:
            name, number = f"{base}_{number}", number + 1
        self._next[base] = number
        self.taken.add(name)
        return name

    def give(self, serial: int, base: str) -> str:
        name = self.expressions[serial] = self.fresh(base)
        return name


class Function:
    """One function as it is written: its lines, what it takes and what it returns."""

    def __init__(self, scope: Scope, takes: list[int], returns: list[int]) -> None:
        self.scope, self.takes, self.returns = scope, takes, returns
        self.names = Names()
        self.lines: list[Line] = []
        self.place = ""


def snake(kind: str) -> str:
    """The name of a class as that of a function: `GPT2Block` → `gpt2_block`."""
    name = re.sub(r"(?<=\w)(?=[A-Z][a-z])", "_", kind).lower().strip("_")
    return name if name.isidentifier() else "module"
