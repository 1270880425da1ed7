"""What graphs of other libraries have in common: they take and give NumPy's arrays, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from forwardpass.building.replicas import Arguments, Facts, Inputs
from forwardpass.errors import LoadError
from forwardpass.nouns.lowered import Lowered
from forwardpass.tensors.arrays import to_numpy

Named = Mapping[str, np.ndarray[Any, Any]]


def require_ports(lowered: Lowered, graph: Mapping[str, str], file: str) -> None:
    """Raise LoadError unless a graph takes what was said of it, and gives it names.

    Args:
        graph: the names of its ports, and their dtypes. file: what the graph was read from.
    """
    takes = {port.name: port.dtype for port in lowered.inputs}
    for port in (*lowered.inputs, *lowered.outputs):
        there = graph.get(port.name)
        if there is None or takes.get(port.name, there) != there:
            has = f"has {port.path} as {there}" if there else f"has {', '.join(graph)} alone"
            raise LoadError(
                f"{file} is not the graph that was exported: {port.path} should be {port.dtype}, "
                f"and it {has}; export the model again"
            )


class ArrayReplica:
    """A graph on the CPU, without `compute`. It has nothing that passes change.

    Attributes:
        facts, standing: see `Replica`.
    """

    standing = None

    def __init__(self, lowered: Lowered, library: str, threads: int | None) -> None:
        self._inputs = {port.path: port.name for port in lowered.inputs}
        self._bounds = [(p.path, *p.bounds) for p in lowered.inputs if p.bounds is not None]
        self.facts = Facts(
            "cpu",
            lowered.dtype,
            library,
            threads,
            rounding=lowered.rounding,
            applied=lowered.applied,
        )

    def stage(self, inputs: Inputs) -> Named:
        """The inputs by the names of the graph. Raises IndexError for whole numbers that no table
        has, which the library would look up all the same."""
        assert not isinstance(inputs, Arguments)
        arrays = {path: to_numpy(value) for path, value in inputs.items()}
        for path, low, high in self._bounds:
            value = arrays[path]
            if value.size and not (low <= value.min() and value.max() <= high):
                wrong = value[(value < low) | (value > high)][0]
                raise IndexError(
                    f"{path} holds {wrong}, and is looked up in a table that takes {low} to {high}"
                )
        return {self._inputs[path]: value for path, value in arrays.items()}

    def fetch(self, outputs: Named) -> Named:
        """They are in CPU memory."""
        return outputs
