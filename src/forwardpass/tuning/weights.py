"""The numbers of a module, brought to the same module in another process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from forwardpass.errors import LoadError
from forwardpass.tensors.modules import buffers_of, parameters_of
from forwardpass.tuning.stored import read_values


def weights_of(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Its parameters and buffers, by path."""
    yield from parameters_of(module)
    yield from buffers_of(module)


def put_weights(module: nn.Module, folder: Path) -> None:
    """Write numbers that lie in a folder into a module that is ours.

    Raises LoadError where it has others than those.
    """
    own, given = dict(weights_of(module)), read_values(folder)
    for name, value in given.items():
        tensor = own.get(name)
        if own.keys() != given.keys() or tensor is None or tuple(tensor.shape) != value.shape:  # pyright: ignore[reportAttributeAccessIssue]
            raise LoadError(f"it has other weights in each process, {name} among them")
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(np.array(value)))
