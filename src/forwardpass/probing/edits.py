"""Edits: what is other in a copy of the module, or in what goes into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from forwardpass.errors import UsageError, nearest

if TYPE_CHECKING:
    import torch
    from torch import nn


class SetElement(msgspec.Struct, frozen=True, tag="element", tag_field="edit"):
    """One number of a parameter or a buffer is another.

    Attributes:
        name: as the record has it, `fc1.weight`. index: of the element.
    """

    name: str
    index: tuple[int, ...]
    value: float

    def edit(self, module: nn.Module) -> None:
        """Change a module that is ours."""
        import torch

        from forwardpass.tensors.modules import held_by

        held = held_by(module)
        if self.name not in held:
            raise UsageError(f"{self.name!r:.60}: {nearest(self.name, held)}")
        tensor: torch.Tensor = held[self.name]
        if len(self.index) != tensor.dim() or any(
            not 0 <= at < size for at, size in zip(self.index, tensor.shape, strict=True)
        ):
            raise UsageError(f"{self.name}{list(self.index)}: its shape is {list(tensor.shape)}")
        with torch.no_grad():
            tensor[self.index] = self.value


class Learn(msgspec.Struct, frozen=True, tag="learn", tag_field="edit"):
    """Every floating parameter requires grad, so that autograd watches the pass."""

    def edit(self, module: nn.Module) -> None:
        """Change a module that is ours."""
        from forwardpass.tensors.modules import parameters_of

        for _, parameter in parameters_of(module):
            if parameter.is_floating_point():
                parameter.requires_grad_(True)


Edit = SetElement | Learn
"""Of a module; more kinds stand here as a union."""
