"""Forms that inputs may have: dtype and axes, of which some sizes are free, and values of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from forwardpass.executing.examples import random
from forwardpass.executing.following import Met
from forwardpass.nouns.signatures import Axis, Input, Signature
from forwardpass.tensors.dtypes import TORCH

ROWS = 5
"""Size of the batch in the passes that look for a form."""
PRIMES = (17, 19, 23, 29)
"""Sizes of the axes of which nothing is known: which one reached a layer, its size tells."""
CELLS = 2**22
"""Elements that an input has at most: more would take memory."""

Forms = Mapping[str, Input]
Sizes = Mapping[str, int]


def names_of(forms: Forms, sizes: Sizes, met: Sequence[Met]) -> dict[str, str]:
    """What to call the free axes: by the layers that took them, else by the input's name."""
    named: dict[str, str] = {}
    for sources, shape, want, _ in met:
        for path in sources & forms.keys():
            for place, name in want.names.items():
                axes = forms[path].axes
                if len(axes) == len(shape):
                    axes = axes[place:][:1]
                for axis in axes if len(shape) >= -place else ():
                    if axis.is_variable and sizes[axis.name] == shape[place]:
                        named.setdefault(axis.name, name)
    used: dict[str, str] = {}
    for path, form in forms.items():
        for place, axis in enumerate(form.axes):
            if axis.is_variable and axis.name not in used:
                name = named.get(axis.name, "")
                used[axis.name] = name if name and name not in used.values() else f"{path}{place}"
    return {old: new if not new[0].isdigit() else f"axis{new}" for old, new in used.items()}


def sizes_apart(forms: Forms) -> dict[str, int]:
    """A size of its own for each free axis."""
    return {
        name: PRIMES[int(name.removeprefix("free"))]
        for form in forms.values()
        for name in form.variable
    }


def form_of(path: str, dtype: str, rank: int) -> Input:
    """An input of `rank` axes, the batch first, of whose other sizes nothing is known."""
    free = [Axis(f"free{place}") for place in range(min(rank - 1, len(PRIMES)))]
    return Input(path, dtype, (Axis("batch"), *free) if rank > 0 else ())


def signature_of(forms: Forms, axes: Mapping[str, Axis]) -> Signature:
    """The forms with these axes in the place of the free ones."""
    return Signature(
        tuple(
            with_axes(form, [axes.get(axis.name, axis) for axis in form.axes])
            for form in forms.values()
        )
    )


def with_axes(form: Input, axes: list[Axis]) -> Input:
    return Input(form.path, form.dtype, tuple(axes))


def of_dtype(form: Input, dtype: str, rank: int) -> Input:
    return form_of(form.path, dtype, rank) if rank > 0 else Input(form.path, dtype, form.axes)


def fixed(form: Input, place: int, size: int) -> Input:
    axes = list(form.axes)
    axes[place] = Axis(size=size)
    return with_axes(form, axes)


def moved_batch(form: Input, place: int) -> Input:
    axes = [axis for axis in form.axes if not axis.is_batch]
    axes.insert(place, Axis("batch"))
    return with_axes(form, axes)


def shape_of(form: Input, rows: int, sizes: Sizes) -> list[int]:
    return [rows if a.is_batch else sizes[a.name] if a.is_variable else a.size for a in form.axes]


def zeros(form: Input, rows: int, sizes: Sizes) -> torch.Tensor:
    return torch.zeros(shape_of(form, rows, sizes), dtype=TORCH[form.dtype])


def numbers(
    forms: Forms, rows: int, sizes: Sizes, below: Mapping[str, int]
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    values: dict[str, torch.Tensor] = {}
    for path, form in forms.items():
        shape, dtype = shape_of(form, rows, sizes), TORCH[form.dtype]
        if math.prod(shape) > CELLS:
            shape = [rows, *[1] * (len(shape) - 1)]  # not run: `_tried` sees the sizes
        values[path] = random(path, dtype, shape, below.get(path, 2), generator)
    return values


def listed(forms: Forms) -> str:
    return ", ".join(str(form) for form in forms.values()).replace("free", "n")
