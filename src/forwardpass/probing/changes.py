"""Change: what is other in a pass that is made again."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from forwardpass.recording.passes import Grad, Mode, Pass
from forwardpass.tensors.generators import GeneratorStates


@dataclass(frozen=True)
class Change:
    """What is other than in the pass that was recorded; None: as it was.

    Attributes:
        rows: these rows of the batch only, in this order; a row may come twice.
        inputs: other tensors in the places of some inputs, by path; their shapes may differ.
        mode: of the whole module.
        grad: whether autograd records.
        seed: from which all random generators start.
        dtype: of the floating inputs, and of the floating weights of a copy of the module, outside
            of autocast; complex ones as wide.
    """

    rows: tuple[int, ...] | None = None
    inputs: Mapping[str, torch.Tensor] | None = None
    mode: Mode | None = None
    grad: Grad | None = None
    seed: int | None = None
    dtype: torch.dtype | None = None

    @property
    def gives_others(self) -> bool:
        """Whether other tensors go in."""
        return self.rows is not None or self.inputs is not None


SAME: Final = Change()
"""The pass as it was."""


def as_set(this: Pass, change: Change) -> Pass:
    """A pass with the mode, grad, seed and dtype of a change; what goes in is cast, and no other.

    Raises RuntimeError where the module cannot be copied.
    """
    mode, grad = change.mode or this.mode, change.grad or this.grad
    other = replace(this, mode=mode, grad=grad)
    if change.seed is not None:
        other = replace(other, generators=GeneratorStates.seeded(change.seed))
    if change.dtype is not None:
        other = _cast(other, change.dtype)
    return other


def _cast(this: Pass, dtype: torch.dtype) -> Pass:
    def cast(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_complex():
            return tensor.to(dtype.to_complex())
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    named = this.named(this.arguments, this.keywords)
    twin: Any = copy.deepcopy(this.module)._apply(cast)  # pyright: ignore[reportPrivateUsage]
    wide = {path: cast(tensor) for path, tensor in named.items()}
    return replace(this.given(wide), module=twin, autocast={})
