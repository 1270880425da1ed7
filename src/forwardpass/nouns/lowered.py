"""Lowered: a module as a graph of another library, as plain data."""

from __future__ import annotations

import msgspec

from forwardpass.nouns.applied import Applied


class Port(msgspec.Struct, frozen=True):
    """An input or an output of a graph.

    Attributes:
        path: the name that the signature has for it.
        name: the name that the graph has for it.
        dtype: of the notation.
        axes: names of the axes that vary, "" for the others.
        bounds: the smallest and the largest whole number that it takes, where it is looked up in
            tables; None where nothing is known.
    """

    path: str
    name: str
    dtype: str
    axes: tuple[str, ...] = ()
    bounds: tuple[int, int] | None = None


class Lowered(msgspec.Struct, frozen=True):
    """A graph that was written and tried.

    Attributes:
        inputs, outputs: its ports.
        dtype: the coarsest floating dtype in which it computes.
        route: the way in which it was written.
        tried: the batches, by their sizes, of which it computes what the module does.
        distance: the largest relative distance there, over all outputs.
        declined: the ways that were tried before, and why they were not taken.
        quantized: what was made of its layers after that, what proves it, and how far outputs are
            from the module's then; None where they are as they were written.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    dtype: str
    route: str
    tried: tuple[str, ...] = ()
    distance: float = 0.0
    declined: tuple[str, ...] = ()
    quantized: Applied | None = None

    @property
    def applied(self) -> tuple[Applied, ...]:
        """What was made of it after it was written."""
        return (self.quantized,) if self.quantized else ()

    @property
    def rounding(self) -> float:
        """How far apart two results of one row may be that are both right, by quantization alone:
        each may be as far from the module's as that has moved them."""
        return 2 * self.quantized.moved if self.quantized else 0.0
