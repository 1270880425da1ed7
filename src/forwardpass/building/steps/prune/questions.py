"""Questions: a call of a pass made again with other operands, to see what depends on what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import torch

from forwardpass.nouns.calls import Call
from forwardpass.tensors.distances import relative_distance, rounding

SEVERAL: Final = -1
NONE: Final = -2
"""In a trace: a number that depends on several indices, or on none."""
_MASKS: Final = 3
"""Random halves by which a pairing of two axes is tried: what is wrong in it shows in the outputs
of the whole module, too, which are compared in any case."""


class Question(NamedTuple):
    """A call that can be made again with other tensors in the place of its operands.

    Attributes:
        operands: by serial, as they were before it. made: what came out.
        again: by serial, what shall be other → what comes out.
    """

    call: Call
    operands: Mapping[int, torch.Tensor]
    made: Sequence[torch.Tensor]
    again: Callable[[Mapping[int, torch.Tensor]], list[torch.Tensor]]

    def trace(self, serial: int, axis: int) -> list[torch.Tensor] | None:
        """For each result, on which index along an axis of an operand its numbers depend; None
        where some index has no influence on any."""
        tensor = self.operands[serial]
        size = tensor.shape[axis]
        alone = [self._touched(serial, axis, [at]) for at in (0, size // 2, size - 1)]
        if not all(any(bool(t.any()) for t in touched) for touched in alone):
            return None
        if all(bool(t.all()) for touched in alone for t in touched if t.numel()):
            return [torch.full(made.shape, SEVERAL) for made in self.made]
        places = torch.arange(size)
        found = [torch.zeros(made.shape, dtype=torch.int64) for made in self.made]
        several = [torch.zeros(made.shape, dtype=torch.bool) for made in self.made]
        none = [torch.ones(made.shape, dtype=torch.bool) for made in self.made]
        for bit in range((size - 1).bit_length()):
            is_one = (places >> bit) & 1 == 1
            ones = self._touched(serial, axis, places[is_one].tolist())
            zeros = self._touched(serial, axis, places[~is_one].tolist())
            for place, (one, zero) in enumerate(zip(ones, zeros, strict=True)):
                found[place] |= one.long() << bit
                several[place] |= one & zero
                none[place] &= ~(one | zero)
        return [
            _filled(f.masked_fill(s | (f >= size), SEVERAL).masked_fill(n, NONE))
            for f, s, n in zip(found, several, none, strict=True)
        ]

    def _touched(self, serial: int, axis: int, places: list[int]) -> list[torch.Tensor]:
        """For each result, which of its numbers depend on some of an operand.

        NaN goes wherever a number goes, past what is closed or largest elsewhere; but attention on
        CPUs loses it (a softmax may take NaN for the least), so other numbers are tried as well.
        """
        tensor = self.operands[serial]
        index = torch.tensor(places, device=tensor.device)
        other = _noise(tensor).index_select(axis, index)
        marked = self.again({serial: tensor.clone().index_fill_(axis, index, torch.nan)})
        moved = self.again({serial: tensor.clone().index_copy_(axis, index, other)})
        return [
            (nan.isnan() | (came != plain)).cpu()
            if plain.is_floating_point()
            else torch.zeros(plain.shape, dtype=torch.bool)
            for nan, came, plain in zip(marked, moved, self.made, strict=True)
        ]

    def weighs(self, serial: int, axis: int, other: int, along: int) -> bool:
        """Whether half of an operand makes no difference where that half of a parameter is 0."""
        tensor, weight = self.operands[serial], self.operands[other]
        generator = torch.Generator().manual_seed(0)
        for _ in range(_MASKS):
            half = torch.randperm(tensor.shape[axis], generator=generator)[
                : -(-tensor.shape[axis] // 2)
            ]
            blank = weight.clone().index_fill_(along, half.to(weight.device), 0)
            noise = _noise(tensor)
            moved = tensor.clone()
            half = half.to(tensor.device)
            moved.index_copy_(axis, half, noise.index_select(axis, half))
            plain, came = self.again({other: blank}), self.again({other: blank, serial: moved})
            for one, two in zip(plain, came, strict=True):
                if relative_distance(two, one) > rounding(one.dtype):
                    return False
        return True


def _filled(trace: torch.Tensor) -> torch.Tensor:
    """With what depends on none taken for its like, where along an axis all others agree: zeros of
    padding lie in a channel, and what a first token gives under a causal mask in a head."""
    for axis in range(trace.dim()):
        if not trace.numel() or not bool((trace == NONE).any()):
            break
        top = trace.amax(axis, keepdim=True)
        if bool(((trace == top) | (trace == NONE)).all()):
            trace = top.expand_as(trace)
    return trace


def _noise(tensor: torch.Tensor) -> torch.Tensor:
    """Numbers from 0.5 to 1.5, the same for each tensor of a shape."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(tensor.shape, generator=generator).to(tensor) + 0.5
