"""Edits: what is other in a copy of the module. Each kind changes a module that is ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

import msgspec
import torch
from torch import nn

from forwardpass.errors import UsageError, nearest
from forwardpass.probing.replacing import Instead, replaced
from forwardpass.tensors.modules import held_by, parameters_of, part_at, parts_of, store_of

_SCALE_BYTES: Final = 4
"""Of a scale in f32, which rounded weights need one of for each channel."""


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
        tensor = _held(module, self.name)
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
        for _, parameter in parameters_of(module):
            if parameter.is_floating_point():
                parameter.requires_grad_(True)


class ZeroUnit(msgspec.Struct, frozen=True, tag="unit", tag_field="edit"):
    """A unit of a layer gives 0, before what follows: its weights and its bias are zeros.

    Attributes:
        weight, bias: of the layer, as the record has them; bias "" where it has none.
        unit: its place along `axis` of the weight.
    """

    weight: str
    unit: int
    bias: str = ""
    axis: int = 0

    def edit(self, module: nn.Module) -> None:
        """Change a module that is ours."""
        weight = _held(module, self.weight)
        if not 0 <= self.axis < weight.dim() or not 0 <= self.unit < weight.shape[self.axis]:
            raise UsageError(
                f"{self.weight} has the shape {list(weight.shape)}: there is no unit {self.unit} "
                f"along axis {self.axis}"
            )
        with torch.no_grad():
            weight.select(self.axis, self.unit).zero_()
            if self.bias:
                _held(module, self.bias)[self.unit] = 0


class Rounded(msgspec.Struct, frozen=True, tag="rounded", tag_field="edit"):
    """Weights are whole numbers times a scale, one for each channel along their first axis (the
    second of transposed convolutions), symmetric around 0: from −(2ᵇ⁻¹ − 1) to 2ᵇ⁻¹ − 1 of b bits.

    Attributes:
        paths: of modules, whose parts belong to them; none: all of them.
    """

    bits: int
    paths: tuple[str, ...] = ()

    def edit(self, module: nn.Module) -> None:
        """Change a module that is ours."""
        if not 2 <= self.bits <= 16:
            raise UsageError(f"rounded to {self.bits} bits: it is 2 to 16")
        most = 2 ** (self.bits - 1) - 1
        with torch.no_grad():
            for _, weight, axis in _weights(module, self.paths):
                others = [at for at in range(weight.dim()) if at != axis]
                scale = weight.abs().amax(others, keepdim=True).double() / most
                scale = scale.clamp_min(torch.finfo(weight.dtype).tiny)
                weight.copy_((weight.double() / scale).round().clamp(-most, most) * scale)

    def stored(self, module: nn.Module) -> dict[str, int]:
        """Bytes of each weight, were it kept as such numbers and scales."""
        return {
            name: (weight.numel() * self.bits + 7) // 8 + weight.shape[axis] * _SCALE_BYTES
            for name, weight, axis in _weights(module, self.paths)
        }


class Pruned(msgspec.Struct, frozen=True, tag="pruned", tag_field="edit"):
    """The smallest of each weight's numbers are 0.

    Attributes:
        share: of the numbers, 0 to 1. paths: as of Rounded.
    """

    share: float
    paths: tuple[str, ...] = ()

    def edit(self, module: nn.Module) -> None:
        """Change a module that is ours."""
        if not 0 <= self.share <= 1:
            raise UsageError(f"pruned by {self.share}: a share is from 0 to 1")
        with torch.no_grad():
            for _, weight, _ in _weights(module, self.paths):
                count = int(self.share * weight.numel())
                least = weight.abs().flatten().topk(count, largest=False).indices
                weight.copy_(weight.flatten().index_fill(0, least, 0).view(weight.shape))


class Zeroed(msgspec.Struct, frozen=True, tag="zeroed", tag_field="edit"):
    """Whole parameters are 0, such as biases."""

    names: tuple[str, ...]

    def edit(self, module: nn.Module) -> None:
        """Change a module that is ours."""
        with torch.no_grad():
            for name in self.names:
                _held(module, name).zero_()


Edit = SetElement | Learn | Instead | ZeroUnit | Rounded | Pruned | Zeroed
"""Of a module."""


def edit_in_turn(module: nn.Module, edits: Iterable[Edit]) -> None:
    """Change a module that is ours, edit by edit. Functions that follow each other are replaced
    together: each of them goes through the whole module.

    Raises UsageError for an edit that does not fit it.
    """
    for is_instead, run in groupby(edits, lambda one: isinstance(one, Instead)):
        if is_instead:
            replaced(module, [one for one in run if isinstance(one, Instead)])
        else:
            for one in run:
                one.edit(module)


def _held(module: nn.Module, name: str) -> torch.Tensor:
    path, _, last = name.rpartition(".")
    part = part_at(module, path)
    if part is not None:
        for store in ("_parameters", "_buffers"):
            tensor = store_of(part, store).get(last)
            if tensor is not None:
                return tensor
    raise UsageError(f"{name!r:.60}: {nearest(name, held_by(module))}")


def _weights(module: nn.Module, paths: tuple[str, ...]) -> Iterator[tuple[str, torch.Tensor, int]]:
    """The weights of modules: floating parameters of two axes or more, each once, with the axis of
    its channels. Raises UsageError where there is none."""
    found: list[tuple[str, torch.Tensor, int]] = []
    seen: set[int] = set()
    for path, part in parts_of(module):
        if paths and not any(not own or path == own or path.startswith(own + ".") for own in paths):
            continue
        for name, weight in store_of(part, "_parameters").items():
            if weight is None or id(weight) in seen:
                continue
            if weight.dim() > 1 and weight.is_floating_point() and weight.numel():
                seen.add(id(weight))
                axis = int(bool(getattr(part, "transposed", False)))
                found.append((f"{path}.{name}" if path else name, weight, axis))
    if not found:
        of = ", ".join(paths) or "the model"
        raise UsageError(f"{of}: no floating weight of two axes or more is there")
    yield from found
