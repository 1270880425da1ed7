"""quantize(dtype, weight_only): hold the weights of linear layers in int8, by torchao.

`quantize(int8)`: each row of a weight becomes whole numbers from -128 to 127 and one scale, which
is the largest magnitude of the row ÷ 127.5. It is what `torchao.quantization.quantize_` makes with
`Int8WeightOnlyConfig`, per row. A layer computes with scale · number, in the dtype that it had.

torchao's weights are of a class of tensors of its own, which exporters do not take
(`torch.jit.save` ends the process), and which nobody could open without torchao. So what it made
of a layer is held as plain tensors.

Weights take a quarter of their bytes (of float32), and no less time: activations in int8, which are
faster on CPUs that multiply int8, are a matter of the backends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from importlib.util import find_spec

import torch
from torch import nn

from forwardpass.building import torchao
from forwardpass.building.steps._parts import has_hooks, keep_attributes, put
from forwardpass.building.workpieces import Workpiece
from forwardpass.errors import BuildError, UsageError, missing_extra
from forwardpass.tensors.classes import inside, plain_ones
from forwardpass.tensors.modules import (
    attributes,
    buffers_of,
    held_by,
    parameters_of,
    parts_of,
    store_of,
)

FAR = math.inf


class Int8Linear(nn.Module):
    """A linear layer that holds its weight as whole numbers and one scale a row.

    Attributes:
        numbers: i8[out in]. scale: [out 1], in the dtype in which it computes. bias: [out] or None.
    """

    numbers: torch.Tensor
    scale: torch.Tensor
    bias: nn.Parameter | None

    def __init__(self, was: nn.Linear, numbers: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__()
        keep_attributes(self, was)
        store_of(self, "_buffers").update(numbers=numbers, scale=scale)
        store_of(self, "_parameters")["bias"] = store_of(was, "_parameters").get("bias")

    @property
    def weight(self) -> torch.Tensor:
        """[out in], as it computes with it."""
        return self.numbers.to(self.scale.dtype) * self.scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


def apply(piece: Workpiece, dtype: str, weight_only: bool = True) -> str:
    """Hold the weights of the selected linear layers in int8."""
    if dtype != "int8":
        raise UsageError(f"quantize({dtype}): the dtype must be int8")
    if weight_only is not True:
        raise UsageError(
            f"{piece.step}: activations are quantized by the backends, which have kernels for "
            "that: @ openvino(quantize=int8), @ onnxruntime(quantize=int8), @ pt2e(quantize=int8)"
        )
    if isinstance(piece.module, torch.jit.ScriptModule):
        raise UsageError("quantize: a TorchScript module keeps the dtypes it was scripted with")
    layers, chosen, others = _layers(piece)
    if not chosen:
        raise BuildError(f"{piece.step}: there is no linear layer to quantize{_but(others)}")
    if find_spec("torchao") is None:
        raise missing_extra("torchao", "quantize", str(piece.step))
    before = _bytes(piece.module)
    for part in chosen.values():
        put(piece, part, _quantized(part))
    after = _bytes(piece.module)
    if after >= before:
        raise BuildError(
            f"{piece.step}: weights and buffers took {before:,} bytes, and would take {after:,}"
        )
    return (
        f"the weights of {len(chosen)} of {layers} linear layers are int8; weights and buffers "
        f"take {after:,} bytes, where they took {before:,}{_but(others)}"
    )


def _layers(piece: Workpiece) -> tuple[int, dict[str, nn.Linear], dict[str, list[str]]]:
    """How many linear layers there are, those that are to be quantized by path, and the paths of
    the selected ones that are not, by the reason."""
    chosen: dict[str, nn.Linear] = {}
    others: dict[str, list[str]] = {}
    count = 0
    names: dict[int, list[str]] = {}
    for name, tensor in held_by(piece.module).items():
        names.setdefault(id(tensor), []).append(name)
    paths: dict[int, list[str]] = {}
    for path, part in parts_of(piece.module, every_name=True):
        paths.setdefault(id(part), []).append(path)
    for path, part in parts_of(piece.module):
        if not isinstance(part, nn.Linear | Int8Linear):
            continue
        count += 1
        if not set(paths[id(part)]) & set(piece.selected):
            continue
        weight = store_of(part, "_parameters").get("weight")
        own = {f"{name}.weight".lstrip(".") for name in paths[id(part)]}
        if isinstance(part, Int8Linear):
            why = "it is int8 already"
        elif type(part).forward is not nn.Linear.forward or "forward" in attributes(part):
            why = f"{type(part).__name__} has a forward of its own"
        elif has_hooks(part):
            why = "it has hooks"
        elif isinstance(part, nn.modules.linear.NonDynamicallyQuantizableLinear):
            why = "nn.MultiheadAttention computes with its weights itself"
        elif weight is None:
            why = "its weight is computed from others"
        elif not set(names[id(weight)]) <= own:
            why = f"its weight is {next(n for n in names[id(weight)] if n not in own)}, too"
        elif not weight.is_floating_point() or inside(weight):
            why = "its weight is no plain tensor of floating numbers"
        else:
            chosen[path] = part
            continue
        others.setdefault(why, []).append(path)
    return count, chosen, others


def _quantized(layer: nn.Linear) -> Int8Linear:
    """What torchao makes of a layer."""
    with torchao.importing():
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    twin = nn.Linear(layer.in_features, layer.out_features, device="meta")
    twin.weight = nn.Parameter(layer.weight.detach(), requires_grad=False)
    quantize_(twin, Int8WeightOnlyConfig(set_inductor_config=False))
    held = inside(twin.weight)
    numbers, scale = held.get("qdata"), held.get("scale")
    shift = held.get("zero_point")
    if (
        numbers is None
        or scale is None
        or numbers.dtype is not torch.int8
        or (shift is not None and bool(shift.any()))
    ):
        raise BuildError(
            f"quantize(int8): torchao makes {type(twin.weight).__name__} of a weight, with "
            f"{', '.join(held) or 'nothing'} in it; it is known for int8 with a scale"
        )
    return Int8Linear(layer, numbers, scale.reshape(-1, 1))


def _bytes(module: nn.Module) -> int:
    """What parameters and buffers take, those that are shared once."""
    tensors = [
        tensor for pairs in (parameters_of(module), buffers_of(module)) for _, tensor in pairs
    ]
    storages = {
        one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()
        for tensor in tensors
        for one in plain_ones(tensor)
    }
    return sum(storages.values())


def _but(others: dict[str, list[str]]) -> str:
    """Which of the selected layers stay, and why."""
    told = [f"{_first(paths)}: {why}" for why, paths in others.items()]
    count = sum(map(len, others.values()))
    stay = "1 stays" if count == 1 else f"{count} stay"
    return f"; {stay} ({'; '.join(told)})" if told else ""


def _first(paths: Iterable[str]) -> str:
    first, *more = paths
    return f"{first} and {len(more)} more" if more else first
