"""Effects: what of the difference of two outputs each layer accounts for.

How wrong a layer is by itself does not tell what comes of it: where arithmetic was moved from one
layer to another (a normalisation folded into the layer behind it), both are wrong by themselves,
and right together. What a layer accounts for shows where b's pass goes on from a's numbers: what
the outputs are off from a place on, less what they are off from the next place on.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

import torch

from forwardpass.comparing.alignment import Alignment
from forwardpass.comparing.forcing import made
from forwardpass.probing.probes import Probe
from forwardpass.tensors.distances import BOUNDLESS
from forwardpass.tensors.errors import NONE, error

K = TypeVar("K", bound=Hashable)

Rest = Callable[[int], float]
"""By index of a call of b: how far the outputs are off that b makes of a's numbers behind it."""


def rest_of(
    alignment: Alignment, numbers: Mapping[int, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> Rest:
    """What b makes of a's numbers from a call on, against the outputs `wanted` of a: the sum of
    their relative errors. `numbers` are as for `made`; before call 0 only the inputs are a's."""
    probe = Probe(alignment.b)  # pyright: ignore[reportArgumentType]
    values = alignment.b.values

    def rest(call: int) -> float:
        forced = {serial for serial in numbers if values[serial].producer <= call}
        unseen = made(
            alignment, numbers, probe, forced=forced, compare=lambda serial, mine, its: NONE
        )
        came = unseen.outputs
        errors = [
            error(mine, came[path])
            for path, mine in wanted.items()
            if path in came and came[path].shape == mine.shape
        ]
        return sum(BOUNDLESS if off.unlike else off.relative for off in errors)

    return rest


def effects(places: Iterable[tuple[int, K]], rest: Rest) -> dict[K, float]:
    """What each layer accounts for of what the outputs are off.

    Args:
        places: the last call of b in which a layer is wrong, and the layer, in the order of b.

    What a layer makes worse is a debt of those after it: they take it up.
    """
    found: dict[K, float] = {}
    left, debt = rest(-1), 0.0
    for place, layer in places:
        after = rest(place)
        effect = left - after + debt
        found[layer] = max(effect, 0.0)
        left, debt = after, min(effect, 0.0)
    return found
