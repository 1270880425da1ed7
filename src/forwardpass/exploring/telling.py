"""Which element to look at where nobody says it."""

from __future__ import annotations

import torch

from forwardpass.errors import UsageError
from forwardpass.explaining.capturing import captured
from forwardpass.explaining.targets import targets
from forwardpass.explaining.verb import following
from forwardpass.exploring.arithmetic import ElementNames
from forwardpass.operators import activation, convolution, find
from forwardpass.recording.recordings import Recording


def said(owner: str, index: tuple[int, ...]) -> str:
    """An element as text."""
    return f"{owner}[{', '.join(map(str, index))}]" if index else owner


def telling(record: Recording) -> str:
    """An element that shows much: of the first layer with an activation the number farthest from
    zero; else the largest of an output. Raises UsageError where nothing can be explained."""
    names = ElementNames(record)
    for layer in record.layers:
        call = record.calls[layer.affine]
        value = record.values[call.outputs[0]]
        after = list(following(record, call, value, (0,) * len(value.shape)))
        if after and find(after[-1][0].packet) is activation:
            tensor = captured(record, [call.index])[call.index].made[0].double().abs()
            if tensor.numel():
                if find(call.packet) is convolution:
                    tensor = _inside(tensor)
                return said(*names.of(value, largest(tensor.nan_to_num(torch.inf))))
    for path, tensor in record.returned.items():
        if is_shown(tensor) and record.values[record.outputs[path]].producer >= 0:
            return said(path, largest(tensor.double()))
    for target in targets(record):
        if target.value.elements:
            return said(target.name, (0,) * len(target.value.shape))
    raise UsageError("no call of this pass made a number that could be explained")


def _inside(tensor: torch.Tensor) -> torch.Tensor:
    """Numbers of a convolution, −1 near the edges, where windows look at padding."""
    inside = torch.full_like(tensor, -1.0)
    middle = tuple(slice(size // 4, size - size // 4) for size in tensor.shape[2:])
    inside[..., *middle] = tensor[..., *middle]
    return inside


def is_shown(tensor: torch.Tensor) -> bool:
    plain = tensor.layout is torch.strided and not tensor.is_nested and not tensor.is_quantized
    return plain and tensor.numel() > 0 and not tensor.is_complex() and tensor.device.type != "meta"


def largest(tensor: torch.Tensor) -> tuple[int, ...]:
    return unravel(int(tensor.nan_to_num(-torch.inf).argmax()), tensor)


def unravel(at: int, tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(at), tensor.shape))
