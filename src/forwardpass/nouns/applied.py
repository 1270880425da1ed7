"""Applied: a step of a plan, and what it did to a module, as plain data."""

from __future__ import annotations

import sys

import msgspec


class Applied(msgspec.Struct, frozen=True):
    """A step, and what was measured of it.

    Attributes:
        step: the step, as text.
        did: what it changed, with numbers.
        moved: the largest relative distance of outputs, after it from before it; the largest float
            where they are no longer finite.
        on: the batches on which that was measured, by their sizes.
        layers: of a quantization, what is in fewer bits, by the paths of modules; `a or b` where
            these have equal weights.
    """

    step: str
    did: str
    moved: float
    on: tuple[str, ...]
    layers: tuple[str, ...] = ()

    @property
    def stays_finite(self) -> bool:
        """Whether outputs that were finite are so still."""
        return self.moved < sys.float_info.max
