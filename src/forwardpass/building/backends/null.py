"""null: computes nothing: the inputs come back, as `output`, or as `output_0`, `output_1`, ….

For tests of what is around a model, and for what that costs. It works on NumPy's arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from forwardpass.building.replicas import Arguments, Example, Facts, Inputs
from forwardpass.errors import UsageError
from forwardpass.nouns.programs import Program
from forwardpass.tensors.arrays import to_numpy

Named = Mapping[str, np.ndarray[Any, Any]]


class NullReplica:
    """Gives its inputs back."""

    facts = Facts("cpu", "f32", f"numpy {np.__version__}", threads=1)
    standing = None

    def stage(self, inputs: Inputs) -> Named:
        """The inputs as NumPy's arrays."""
        assert not isinstance(inputs, Arguments)
        return {path: to_numpy(value) for path, value in inputs.items()}

    def compute(self, staged: Named, seed: int | None = None) -> Named:
        """The inputs under the names of outputs."""
        if len(staged) == 1:
            return {"output": next(iter(staged.values()))}
        return {f"output_{place}": value for place, value in enumerate(staged.values())}

    def fetch(self, outputs: Named) -> Named:
        """They are in CPU memory."""
        return outputs


def build(program: Program, example: Example) -> list[NullReplica]:
    """One replica, whatever the program is."""
    if isinstance(example.inputs, Arguments):
        raise UsageError(
            f"null gives named inputs back, and {program.name} has a collate of its own; use eager"
        )
    return [NullReplica()]
