"""fold_batchnorm: BatchNorms become part of the weights of the layers before them.

In evaluation a BatchNorm is a line for each channel, y = s · x + t with s = w / √(variance + ε) and
t = b − mean · s. After a convolution or a linear layer x = W · v + c that is one layer again, with
the weights s · W and the bias s · c + t. They are computed in float64.

Which layer a BatchNorm belongs to is read from the record of a pass, not from names or from the
order in a Sequential: what it takes is exactly what that layer made, channel by channel, nobody
else sees that, and the weights are used for nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from forwardpass.building.steps._parts import (
    Nothing,
    as_deployed,
    chosen,
    has_hooks,
    put,
    put_tensor,
)
from forwardpass.building.steps._wording import counted, left
from forwardpass.building.workpieces import Workpiece
from forwardpass.errors import BuildError
from forwardpass.nouns.calls import Call, Ref, Value
from forwardpass.operators import batch_norm, convolution, find
from forwardpass.recording.costs import by_name
from forwardpass.tensors.modules import held_by, parts_of, store_of

FAR = 1e-3
_LINEAR: Final = "aten.linear"
_INSTANCE: Final = "aten.instance_norm"
_HELD: Final = ("parameter", "buffer")
_NUMBERS: Final = ("weight", "bias", "running_mean", "running_var")


class _Left(Exception):
    """Why a BatchNorm is not folded, as it goes on after "whose"."""


@dataclass(frozen=True)
class _Fold:
    """A BatchNorm, and the layer that takes it in.

    Attributes:
        norm: the part that goes.
        weight, bias: names of the layer's parameters; bias is "" where it has none yet.
        owner: path of the layer, if it has a place for a bias.
        numbers: the names of the norm's own, "" for those that it does without.
        epsilon: under the root. groups, transposed: of the layer.
    """

    norm: nn.Module
    weight: str
    bias: str
    owner: str
    numbers: Mapping[str, str]
    epsilon: float
    groups: int
    transposed: bool


def apply(piece: Workpiece) -> str:
    """Fold the selected BatchNorms. Raises BuildError where none can be."""
    lent: dict[str, nn.Module] = {}  # layers that were given a bias of zeros, by path
    folded, seen = 0, 0
    try:
        while True:
            pairing = _Pairing(piece, lent)
            seen = seen or len(pairing.norms)
            folds, reasons = pairing.folds()
            for fold in folds:
                if fold.bias:
                    _fold(piece, fold)
                    lent.pop(fold.owner, None)
                else:  # whether its forward uses one, the next record says
                    lent[fold.owner] = _given_zeros(piece, fold)
            folded += sum(bool(fold.bias) for fold in folds)
            if not folds:
                break
    finally:
        for layer in lent.values():
            store_of(layer, "_parameters")["bias"] = None
    if not seen:
        raise BuildError(f"{piece.step}: the pass normalises by no BatchNorm among what was chosen")
    if not folded:
        raise BuildError(f"{piece.step}: no BatchNorm can be folded; left: {left(reasons)}")
    rest = f"; left: {left(reasons)}" if reasons else ""
    return f"{folded:,} of {counted(seen, 'BatchNorm')} folded into the layers before them{rest}"


def _given_zeros(piece: Workpiece, fold: _Fold) -> nn.Module:
    layer = dict(parts_of(piece.module))[fold.owner]
    weight, held = held_by(piece.module)[fold.weight], held_by(piece.module)
    channels = held[fold.numbers["running_mean"]].shape[0]
    zeros = torch.zeros(channels, dtype=weight.dtype, device=weight.device)
    store_of(layer, "_parameters")["bias"] = nn.Parameter(zeros, requires_grad=False)
    return layer


def _fold(piece: Workpiece, fold: _Fold) -> None:
    held = held_by(piece.module)
    own = {name: held[path].double() for name, path in fold.numbers.items() if path}
    scale = own.get("weight", 1.0) / (own["running_var"] + fold.epsilon).sqrt()
    weight, bias = held[fold.weight], held[fold.bias]
    moved = (bias.double() - own["running_mean"]) * scale + own.get("bias", 0.0)
    sizes = [1] * (weight.dim() - 2)
    if fold.transposed:  # W[in, out / groups, …]: the channels of a group lie in the second axis
        grouped = weight.double().unflatten(0, (fold.groups, -1))
        scaled = (grouped * scale.reshape(fold.groups, 1, -1, *sizes)).flatten(0, 1)
    else:
        scaled = weight.double() * scale.reshape(-1, 1, *sizes)
    put_tensor(piece.module, fold.weight, torch.empty_like(weight).copy_(scaled))
    put_tensor(piece.module, fold.bias, moved.to(bias.dtype))
    put(piece, fold.norm, Nothing(fold.norm))


class _Pairing:
    """What a record says of the BatchNorms in it."""

    def __init__(self, piece: Workpiece, lent: Collection[str]) -> None:
        self.piece, self.lent = piece, lent
        self.chosen = chosen(piece)
        self.parts = dict(parts_of(piece.module))
        self.record = as_deployed(piece)
        self.graph = self.record.graph

    @cached_property
    def norms(self) -> dict[str, list[Call]]:
        """The calls that normalise, by the path of the module; of functions, by their line."""
        found: dict[str, list[Call]] = {
            path: [] for path, part in self.chosen.items() if isinstance(part, _BatchNorm)
        }
        for call in self.record.calls:
            path = self.record.module(call).path
            if find(call.packet) is batch_norm and call.packet != _INSTANCE:
                if path in found:
                    found[path].append(call)
                elif path in self.chosen:
                    found.setdefault(str(self.record.site(call)), []).append(call)
        return found

    def folds(self) -> tuple[list[_Fold], dict[str, list[str]]]:
        """Those that can be folded, and the others by why they cannot."""
        found: list[_Fold] = []
        reasons: dict[str, list[str]] = defaultdict(list)
        for path, calls in self.norms.items():
            try:
                found.append(self._fold(path, calls))
            except _Left as reason:
                reasons[str(reason)].append(path)
        return found, reasons

    def _fold(self, path: str, calls: Sequence[Call]) -> _Fold:
        part = self.parts.get(path)
        if part is None or not isinstance(part, _BatchNorm):
            raise _Left("normalisation is called as a function, and stands in the code of forward")
        if not calls:
            raise _Left("module is not called")
        self._require_alone(path, calls)
        given = [by_name(self.record.schema(call), call) for call in calls]
        numbers = {name: self._held(given[0][name]) for name in _NUMBERS}
        indices = {call.index for call in calls}
        if any(self._users[name] != indices for name in numbers.values() if name):
            raise _Left("statistics are read elsewhere too")
        layers = [self._layer(one) for one in given]
        of = [by_name(self.record.schema(layer), layer) for layer in layers]
        names = {(self._held(one["weight"]), self._held(one["bias"])) for one in of}
        if len(names) > 1:
            raise _Left("input comes from several layers")
        ((weight, bias),) = names
        users = {layer.index for layer in layers}
        for name in filter(None, (weight, bias)):
            if self._users[name] != users:
                raise _Left("layer has weights that are used elsewhere too")
            if name in self._tied:
                raise _Left("layer has weights that are tied")
        owner = self.record.module(layers[0]).path
        if not bias and (owner in self.lent or not self._has_room(owner)):
            raise _Left("layer takes no bias")
        transposed = layers[0].packet in convolution.TRANSPOSED or bool(of[0].get("transposed"))
        epsilon = given[0]["epsilon" if "epsilon" in given[0] else "eps"]
        fold = _Fold(
            part, weight, bias, owner, numbers, epsilon,
            of[0].get("groups", 1), transposed,
        )  # fmt: skip
        self._require_finite(fold)
        return fold

    def _require_alone(self, path: str, calls: Sequence[Call]) -> None:
        """The module does nothing but normalise, by its running statistics."""
        entries = list(self.record.of_module(path))
        if len(entries) != len(calls):
            raise _Left("module does more than normalise")
        for entry, call in zip(entries, calls, strict=True):
            given = by_name(self.record.schema(call), call)
            if given.get("training") or given["running_mean"] is None:
                raise _Left("statistics are those of each batch (track_running_stats=False)")
            alone = (entry.first, entry.stop) == (call.index, call.index + 1)
            if not alone or entry.inputs != call.inputs[:1] or entry.outputs != call.outputs[:1]:
                raise _Left("module does more than normalise")

    def _layer(self, given: Mapping[str, Any]) -> Call:
        """The layer that made what a BatchNorm takes, of which nobody else sees anything."""
        values, taken = self.record.values, given["input"].value
        chain = [taken]
        while values[chain[-1]].base >= 0:
            maker = self.graph.maker(chain[-1])
            if maker is not None and maker.kind != "view":
                raise _Left(f"input is what {maker.name or maker.short} makes")
            chain.append(values[chain[-1]].base)
        layer = self.graph.maker(chain[-1])
        if layer is None:
            raise _Left("input comes from outside")
        if layer.packet != _LINEAR and find(layer.packet) is not convolution:
            raise _Left(f"input is what {layer.name or layer.short} makes")
        if any(len(self.graph.readers(serial)) > 1 for serial in chain) or self._out(chain):
            raise _Left("layer's result goes elsewhere too")
        if self._hooked(chain):
            raise _Left("input is seen by a hook")
        weight = values[by_name(self.record.schema(layer), layer)["weight"].value]
        axis = -1 if layer.packet == _LINEAR else 1 - len(weight.shape)
        if len(weight.shape) < 2:
            raise _Left("layer has no channels")
        if not _shows(values[chain[-1]], axis, values[taken]):
            raise _Left("channels are not those of the layer before it")
        return layer

    def _out(self, chain: Sequence[int]) -> bool:
        """Whether one of these values comes out of the pass."""
        ends = {*self.record.outputs.values(), *self.record.modules[0].outputs}
        values = self.record.values
        return values[chain[-1]].storage in {values[end].storage for end in ends}

    def _has_room(self, owner: str) -> bool:
        """Whether a layer is without a bias, and has a place for one."""
        part = self.parts.get(owner)
        return part is not None and store_of(part, "_parameters").get("bias", part) is None

    def _hooked(self, chain: Sequence[int]) -> bool:
        return any(
            has_hooks(part)
            for entry in self.record.modules[1:]
            if not set(chain).isdisjoint((*entry.inputs, *entry.outputs))
            and (part := self.parts.get(entry.path)) is not None
        )

    def _held(self, argument: Any) -> str:
        """The name under which the module holds an argument; "" for None."""
        if argument is None:
            return ""
        value = self.record.values[argument.value] if isinstance(argument, Ref) else None
        if value is None or value.origin not in _HELD or value.version:
            raise _Left("weights, or those of its layer, are computed in the pass")
        return value.name

    def _require_finite(self, fold: _Fold) -> None:
        held = held_by(self.piece.module)
        spread = held[fold.numbers["running_var"]].double() + fold.epsilon
        if not bool((spread > 0).all()) or not bool(spread.isfinite().all()):
            raise _Left("variances are no positive numbers")

    @cached_property
    def _users(self) -> dict[str, set[int]]:
        """By the name of a tensor that the module holds, the calls that compute with it; -1 where
        it comes out."""
        found: dict[str, set[int]] = defaultdict(set)
        for call in self.record.calls:
            if call.kind != "view":
                for serial in call.inputs:
                    found[self.graph.root(serial).name].add(call.index)
        for serial in self.record.outputs.values():
            found[self.graph.root(serial).name].add(-1)
        return found

    @cached_property
    def _tied(self) -> set[str]:
        return {parameter.name for parameter in self.record.parameters if parameter.aliases}


def _shows(made: Value, axis: int, taken: Value) -> bool:
    """Whether axis 1 of `taken`, a view of `made`, goes along that axis of it.

    The number of the channel is written to where each element of `made` stands, and read by the
    way in which `taken` looks at the memory.
    """
    if taken is made:
        return axis == 1 - len(made.shape)
    if taken.elements != made.elements or made.strides is None or taken.strides is None:
        return False
    if not made.elements or len(taken.shape) < 2:
        return False
    reach = max(
        value.offset
        + sum((n - 1) * s for n, s in zip(value.shape, value.strides or (), strict=True))
        for value in (made, taken)
    )
    memory = torch.full((reach + 1,), -1, dtype=torch.int32)
    channels = torch.arange(made.shape[axis], dtype=torch.int32)
    written = memory.as_strided(made.shape, made.strides, made.offset)
    written.copy_(channels.reshape(-1, *[1] * (-axis - 1)))
    read = memory.as_strided(taken.shape, taken.strides, taken.offset)
    if read.shape[1] != len(channels):
        return False
    return bool((read == channels.reshape(-1, *[1] * (read.dim() - 2))).all())
