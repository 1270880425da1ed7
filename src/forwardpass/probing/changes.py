"""Change: what is other in a pass that is made again."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import torch

from forwardpass.probing.edits import Edit, edit_in_turn
from forwardpass.probing.elements import InputElement
from forwardpass.recording.passes import Grad, Mode, Pass
from forwardpass.tensors.modules import applied


@dataclass(frozen=True)
class Change:
    """What is other than in the pass that was recorded; None: as it was.

    Attributes:
        rows: these rows of the batch only, in this order; a row may come twice.
        inputs: other tensors in the places of some inputs, by path; their shapes may differ.
        elements: numbers of the inputs that are others.
        mode: of the whole module.
        grad: whether autograd records.
        seed: from which all random generators start.
        dtype: of the floating inputs, and of the floating weights of a copy of the module, outside
            of autocast; complex ones as wide.
        edits: of a copy of the module, one after the other; see probing.edits.
    """

    rows: tuple[int, ...] | None = None
    inputs: Mapping[str, torch.Tensor] | None = None
    mode: Mode | None = None
    grad: Grad | None = None
    seed: int | None = None
    dtype: torch.dtype | None = None
    edits: tuple[Edit, ...] = ()
    elements: tuple[InputElement, ...] = ()

    @property
    def gives_others(self) -> bool:
        """Whether other tensors go in."""
        return self.rows is not None or self.inputs is not None or bool(self.elements)


SAME: Final = Change()
"""The pass as it was."""


def cast(this: Pass, dtype: torch.dtype) -> Pass:
    """The pass of a copy of its module, which computes in another floating dtype.

    Raises RuntimeError where the module cannot be copied.
    """
    named = this.named(this.arguments, this.keywords)
    twin = applied(copy.deepcopy(this.module), partial(as_dtype, dtype=dtype))
    given = this.given({path: as_dtype(tensor, dtype) for path, tensor in named.items()})
    return replace(given, module=twin, autocast={})


def edited(this: Pass, edits: Sequence[Edit]) -> Pass:
    """The pass of a copy of its module, which was edited.

    Raises RuntimeError where the module cannot be copied, UsageError where an edit does not fit it.
    """
    twin = copy.deepcopy(this.module)
    edit_in_turn(twin, edits)
    return replace(this, module=twin)


def as_dtype(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A floating or complex tensor as wide as `dtype`; others as they are."""
    if tensor.is_complex():
        return tensor.to(dtype.to_complex())
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
