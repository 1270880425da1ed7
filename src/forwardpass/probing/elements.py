"""InputElement: one number of what goes into a pass is another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import torch

from forwardpass.errors import UsageError, nearest


class InputElement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number of an input is another.

    Attributes:
        name: path of the input, as the record has it. index: of the element.
    """

    name: str
    index: tuple[int, ...]
    value: float


def with_elements(
    inputs: Mapping[str, torch.Tensor], elements: Iterable[InputElement]
) -> dict[str, torch.Tensor]:
    """The inputs that have other numbers: copies. Raises UsageError for an input that is not there,
    an index outside of it, and a number that its dtype does not hold."""
    made: dict[str, torch.Tensor] = {}
    for one in elements:
        if one.name not in inputs:
            raise UsageError(f"the input {one.name!r:.60}: {nearest(one.name, inputs)}")
        tensor = inputs[one.name]
        if tensor.is_nested or tensor.layout is not torch.strided:
            raise UsageError(f"{one.name} is sparse or nested: a number in dense ones can be set")
        outside = len(one.index) != tensor.dim() or any(
            not 0 <= at < size for at, size in zip(one.index, tensor.shape, strict=True)
        )
        if outside:
            raise UsageError(f"{one.name}{list(one.index)}: its shape is {list(tensor.shape)}")
        made.setdefault(one.name, tensor.detach().clone())[one.index] = _held(one, tensor.dtype)
    return made


def _held(one: InputElement, dtype: torch.dtype) -> float | int:
    if dtype.is_floating_point or dtype.is_complex:
        return one.value
    low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    if not one.value.is_integer() or not low <= one.value <= high:
        kind = str(dtype).removeprefix("torch.")
        raise UsageError(f"{one.name} is {kind}: {one.value:g} is no number of these")
    return int(one.value)
