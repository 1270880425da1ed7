"""A copy of the user's module that is ours to change."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from forwardpass.errors import LoadError, contained, said
from forwardpass.tensors.modules import is_training, parts_of, put_into_mode


def copied(module: nn.Module) -> nn.Module:
    """A copy of `module` in eval mode: buffers and attributes are its own, weights are shared.

    Parameters are new objects on the same storage, so that moving or casting the copy leaves the
    user's alone and a copy costs no memory. Raises LoadError where an attribute cannot be copied.
    """
    memo: dict[int, Any] = {}
    if not isinstance(module, torch.jit.ScriptModule):
        for _, part in parts_of(module):
            for value in [*part._parameters.values(), *vars(part).values()]:  # pyright: ignore[reportPrivateUsage]
                if not isinstance(value, torch.Tensor) or is_lazy(value):
                    continue
                if type(value) is nn.Parameter:
                    memo[id(value)] = nn.Parameter(value.detach(), requires_grad=False)
                elif (
                    value.grad_fn is not None
                ):  # a result kept in an attribute, as weight_norm does
                    memo[id(value)] = value.detach().clone()
    try:
        with (
            contained(),
            warnings.catch_warnings(),
        ):  # copying an exported program warns about torch's own trees
            warnings.simplefilter("ignore", FutureWarning)
            twin = copy.deepcopy(module, memo)
    except Exception as error:
        raise LoadError(
            f"{type(module).__name__} cannot be copied, and the user's own module is never "
            f"changed: {said(error)}. Remove the attribute that cannot be copied "
            "(a lock, an open file, a generator), or define __deepcopy__"
        ) from error
    if any(is_training(part) for _, part in parts_of(twin)):
        put_into_mode(twin, False)
    return twin
