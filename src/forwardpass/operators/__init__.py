"""What the operators of a pass compute: their formula, their macs, their plain arithmetic.

The folder is the list: one file an operator. Each file's docstring gives the formula, and it has

    COVERS: the aten names that it explains, without overload: `("aten.linear", "aten.addmm", …)`
    FORMULA: the formula in a few words, or one for each name, without `aten.`, where they differ
    macs(operator, arguments, outputs) -> int
        multiply-accumulates of its contractions; 0 for an operator that has none. Reads shapes
        only: tensors among the arguments may be anything that has a `.shape`.
    terms(operator, arguments, output, element) -> list[Equation]
        the arithmetic of one element, in float64; the last step's value is the element. Here the
        tensors are real ones.
        Raises LookupError (itself, no subclass) where the arguments do not tell: what dropout kept,
        complex numbers, outputs that are kept for autograd.
    gradient(operator, arguments, name, element, delta) -> list[Equation]        (affine ones only)
        ∂loss/∂element of the argument `name`, where `delta` is ∂loss/∂output; likewise.

What computes nothing, but copies, moves, casts, has no file of its own: see `kinds`.

`operator` is one of COVERS, `arguments` are bound to the names of the operator's schema (defaults
included), `outputs` are what it returned, `output` says which of them is asked for, `element` is a
full index.
"""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType

from forwardpass.nouns.folders import plugins
from forwardpass.operators.kinds import bare


def find(operator: str) -> ModuleType | None:
    """The file that covers an aten name such as `aten.addmm`; None where no file does."""
    return _files().get(operator)


def formula(operator: str) -> str:
    """What an aten name computes, in a few words; "" where no file covers it."""
    file = find(operator)
    if file is None:
        return ""
    return file.FORMULA if isinstance(file.FORMULA, str) else file.FORMULA[bare(operator)]


@cache
def _files() -> dict[str, ModuleType]:
    """Each covered name and its file; `kinds` is about all of them."""
    files = [file for name, file in plugins(sys.modules[__name__]).items() if name != "kinds"]
    return {operator: file for file in files for operator in file.COVERS}
