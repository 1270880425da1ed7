"""Parts: the modules that a step concerns, and what it puts in their places."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from forwardpass.building.workpieces import Workpiece
from forwardpass.errors import BuildError
from forwardpass.recording.recordings import Recording, recorded
from forwardpass.tensors.modules import attributes, held_by, parts_of, put_in_place, store_of

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class Nothing(nn.Identity):
    """What stands where a module was that need not compute: it gives back what it is given.

    It has the plain attributes of what was there, which others may read: `p`, `num_features`.
    """

    def __init__(self, was: nn.Module) -> None:
        super().__init__()
        keep_attributes(self, was)


def keep_attributes(part: nn.Module, was: nn.Module) -> None:
    """Give `part` the attributes of another that are neither tensors nor modules."""
    own = attributes(part)
    for name, value in attributes(was).items():
        if not name.startswith("_") and name not in own and not isinstance(value, torch.Tensor):
            own[name] = value


def put(piece: Workpiece, was: nn.Module, part: nn.Module) -> None:
    """Put a part in the place of another, under every name that this has."""
    if was is piece.module:
        piece.module = part
        return
    put_in_place(piece.module, (was, part))


def put_tensor(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Put a tensor in the place of the parameter or buffer of that name, under every name."""
    was = held_by(module)[name]
    parameter = nn.Parameter(tensor, requires_grad=False)
    for _, part in parts_of(module):
        for store, new in (("_parameters", parameter), ("_buffers", tensor)):
            names = [own for own, one in store_of(part, store).items() if one is was]
            for own in names:
                setattr(part, own, new)  # an LSTM keeps a list beside


def chosen(piece: Workpiece) -> dict[str, nn.Module]:
    """The parts of which `where` chose a name, by the path that records have of them.

    Raises BuildError for TorchScript, whose parts cannot be put elsewhere.
    """
    if isinstance(piece.module, torch.jit.ScriptModule):
        raise BuildError(
            f"{piece.step}: a TorchScript module stays as it was scripted; apply the step to the "
            "module that it was made from"
        )
    every = parts_of(piece.module, every_name=True)
    wanted = {id(part) for path, part in every if path in piece.selected}
    return {path: part for path, part in parts_of(piece.module) if id(part) in wanted}


def as_deployed(piece: Workpiece) -> Recording:
    """The pass as engines make it, in inference mode: layers are one operator each."""
    this = replace(piece.call(), grad="inference")
    return recorded(type(piece.module).__name__, this, ())


def has_hooks(part: nn.Module) -> bool:
    """Whether code of the user's runs before or after a part, and sees what goes in and out."""
    return any(store_of(part, name) for name in _HOOKS)
