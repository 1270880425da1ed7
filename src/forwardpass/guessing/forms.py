"""Forms that inputs may have: dtype and axes, of which some sizes are free, and values of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from forwardpass.nouns.signatures import Axis, Input, Signature
from forwardpass.tensors.dtypes import TORCH

ROWS = 5
"""Size of the batch in the passes that look for a form."""
CELLS = 2**22
"""Elements that an input has at most: more would take memory."""
_AXES = 4
UNKNOWN = dict(zip((f"free{n}" for n in range(8)), (17, 19, 23, 29, 31, 37, 41, 43), strict=True))
"""Axes of which nothing is known, with sizes of their own, which tell what reached a layer."""
WHOLE = ("i64", "i32", "i16", "i8", "u8", "bool")
_PLAINEST = {"i64": 1, "bool": 2}
"""Axes that whole numbers and masks begin with; floats begin with two."""


@dataclass(frozen=True)
class Forms:
    """The inputs of a pass, by path, with the sizes that their free axes have in it."""

    inputs: Mapping[str, Input]
    sizes: Mapping[str, int]

    @classmethod
    def of(cls, inputs: Iterable[Input], sizes: Mapping[str, int] | None = None) -> Forms:
        """These inputs; a free axis without a size gets one that tells it from the others."""
        held = {item.path: item for item in inputs}
        names = dict.fromkeys(name for item in held.values() for name in item.variable)
        apart = {name: UNKNOWN[name] for name in names}
        kept = {name: size for name, size in (sizes or {}).items() if name in names}
        return cls(held, {**apart, **kept})

    def with_inputs(self, inputs: Iterable[Input]) -> Forms:
        """The forms with these inputs in the place of those of the same paths."""
        changed = {**self.inputs, **{item.path: item for item in inputs}}
        return Forms.of(changed.values(), self.sizes)

    def taken_apart(self, path: str, parts: Iterable[Input]) -> Forms:
        """The forms with these inputs in the place of one."""
        held = [
            i for item in self.inputs.values() for i in (parts if item.path == path else [item])
        ]
        return Forms.of(held, self.sizes)

    def sized(self, sizes: Mapping[str, int]) -> Forms:
        """The forms with other sizes of their free axes."""
        return replace(self, sizes={**self.sizes, **sizes})

    def shape(self, path: str, rows: int = ROWS) -> tuple[int, ...]:
        """The shape of an input."""
        return tuple(
            rows if axis.is_batch else axis.size or self.sizes[axis.name]
            for axis in self.inputs[path].axes
        )

    def cells(self, rows: int) -> int:
        """Elements of the largest input."""
        return max(math.prod(self.shape(path, rows)) for path in self.inputs)

    def zeros(self, rows: int = ROWS) -> dict[str, torch.Tensor]:
        """Zeros of these forms; lengths are what they are."""
        return {
            path: torch.full(
                self.shape(path, rows), self.sizes.get(item.derived_from, 0),
                dtype=TORCH[item.dtype],
            )
            for path, item in self.inputs.items()
        }  # fmt: skip

    def numbers(self, rows: int, below: Mapping[str, int]) -> dict[str, torch.Tensor]:
        """Random numbers of these forms, whole ones below what is given by path."""
        generator = torch.Generator().manual_seed(0)
        values = self.zeros(rows)
        for path, item in self.inputs.items():
            if not item.derivation:
                shape, dtype = self.shape(path, rows), TORCH[item.dtype]
                values[path] = random(path, dtype, shape, below.get(path, 2), generator)
        return values

    def signature(self, axes: Mapping[str, Axis]) -> Signature:
        """The inputs with these axes in the place of the free ones; sizes for those not given."""
        known = {name: Axis(size=size) for name, size in self.sizes.items()} | dict(axes)
        return Signature(
            tuple(
                Input(
                    item.path, item.dtype, tuple(known.get(axis.name, axis) for axis in item.axes),
                    derivation=item.derivation,
                    derived_from=known[item.derived_from].name if item.derivation else "",
                )
                for item in self.inputs.values()
            )
        )  # fmt: skip

    def __str__(self) -> str:
        axes = {
            name: Axis("n" + name.removeprefix("free"))
            if size == UNKNOWN[name]
            else Axis(size=size)
            for name, size in self.sizes.items()
        }
        return ", ".join(str(item) for item in self.signature(axes).inputs)


def plain(path: str, dtype: str = "f32", rank: int | None = None, more: int = 0) -> Input:
    """An input of which no size is known, the batch first; `more` axes than the plainest has."""
    rank = _PLAINEST.get(dtype, 2) + more if rank is None else rank
    free = [Axis(f"free{place}") for place in range(min(rank - 1, _AXES))]
    return Input(path, dtype, (Axis("batch"), *free) if rank > 0 else ())


def with_axis(item: Input, place: int, axis: Axis) -> Input:
    """The input with another axis at `place`."""
    axes = list(item.axes)
    axes[place] = axis
    return Input(item.path, item.dtype, tuple(axes))


def batch_second(item: Input) -> Input:
    """The input with its rows along the second axis."""
    first, second, *rest = item.axes
    return Input(item.path, item.dtype, (second, first, *rest))


def random(
    path: str, dtype: torch.dtype, shape: Sequence[int], words: int, generator: torch.Generator
) -> torch.Tensor:
    """Normal floats, whole numbers from 0 up to below `words`; of a mask all is real."""
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, generator=generator).to(dtype)
    if dtype == torch.bool:
        return torch.full(shape, "pad" not in path, dtype=dtype)
    return torch.randint(0, max(words, 1), shape, generator=generator).to(dtype)
