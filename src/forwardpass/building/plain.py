"""A function of tensors in the order of a lowered graph's inputs, as a Replica."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from forwardpass.building.replicas import Arguments, Facts, Inputs
from forwardpass.measuring.machines import pytorch
from forwardpass.nouns.lowered import Lowered
from forwardpass.tensors.arrays import Array
from forwardpass.tensors.dtypes import TORCH

Outputs: TypeAlias = "Sequence[torch.Tensor] | dict[str, torch.Tensor]"
"""In the order of the graph's outputs."""


class PlainReplica:
    """Computes with a function that PyTorch opened: a trace, an exported program, a package.

    Attributes:
        facts, standing: see there; a graph has nothing that passes change.
    """

    standing = None

    def __init__(
        self,
        function: Callable[..., Sequence[torch.Tensor] | dict[str, torch.Tensor]],
        lowered: Lowered,
        threads: int | None,
    ) -> None:
        self._function = function
        self._inputs = [(port.path, TORCH[port.dtype]) for port in lowered.inputs]
        self._paths = [port.path for port in lowered.outputs]
        self.facts = Facts(
            "cpu",
            lowered.dtype,
            pytorch(),
            threads,
            rounding=lowered.rounding,
            applied=lowered.applied,
        )

    def stage(self, inputs: Inputs) -> list[torch.Tensor]:
        """The inputs as tensors, in the order of the graph."""
        assert not isinstance(inputs, Arguments)
        return [_tensor(inputs[path], dtype) for path, dtype in self._inputs]

    def compute(self, staged: list[torch.Tensor], seed: int | None = None) -> dict[str, Any]:
        """The outputs by path."""
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        with torch.inference_mode():
            came = self._function(*staged)
        values = came.values() if isinstance(came, dict) else came
        return dict(zip(self._paths, values, strict=True))

    def fetch(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """They are in CPU memory."""
        return outputs


def _tensor(value: Array, dtype: torch.dtype) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    tensor = torch.from_numpy(value)
    return tensor if tensor.dtype == dtype else tensor.to(dtype)
