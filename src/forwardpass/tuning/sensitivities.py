"""What each layer makes wrong at the outputs, were it alone in int8.

The pass of a copy is recorded, and goes along its record once more for each layer, with the calls
of that layer on rounded numbers: weights by channel, symmetric; what they meet by one scale and one
zero of the batch. That is what ONNX Runtime does in each batch, and about what OpenVINO and
PyTorch's PT2E do with ranges from data. Nothing here is a kernel in int8: a layer costs a pass in
floats.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from forwardpass.building.copies import copied
from forwardpass.building.subjects import arguments_of
from forwardpass.measuring.clocks import WALL
from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.nouns.signatures import Signature
from forwardpass.nouns.tunings import Sensitivity
from forwardpass.probing.probes import Probe
from forwardpass.recording.passes import Pass
from forwardpass.recording.recordings import recorded
from forwardpass.recording.schemas import Schema
from forwardpass.recording.walking import Walk
from forwardpass.tensors.errors import error
from forwardpass.tensors.modules import parameters_of, parts_of
from forwardpass.tensors.trees import flatten

_ROWS: Final = 8
"""Rows of a batch: a few, since ranges are of the whole batch, as they are where it is used."""
_PLACES: Final = (0.6, 0.2, 0.9, 0.4)
"""Which of all batches are looked at; they are sorted by the sizes of their rows."""
_LONG_SECONDS: Final = 10.0
"""After so long no further batch is begun: the first one tells layers apart by factors."""
_EITHER: Final = " or "
"""How layers are spelled of which nobody knows which it is."""
_NAMED: Final = 3
"""Layers that a sentence names."""
_BROKEN: Final = 1e9
"""The error of a layer by which outputs are no longer finite."""
_BY_COLUMN: Final = {
    "aten.mm", "aten.addmm", "aten.matmul", "aten.bmm", "aten.baddbmm", "aten._addmm_activation",
}  # fmt: skip
"""Operators of which a column of the second matrix makes one unit."""

Arrays = Mapping[str, np.ndarray[Any, Any]]


class Looked(NamedTuple):
    """What was looked at.

    Attributes:
        layers: one by one, the most harmful first.
        others: paths of quantized layers that were not: a split leaves them quantized.
        notes: why not, and on how many rows the layers were, a sentence each.
    """

    layers: tuple[Sensitivity, ...]
    others: tuple[str, ...]
    notes: tuple[str, ...]


def sensitivities(
    module: nn.Module,
    signature: Signature,
    data: Iterable[Arrays],
    quantized: Iterable[str],
    *,
    outputs: Collection[str] = (),
    until: float = math.inf,
) -> Looked:
    """Quantize one layer after the other, in simulation, on some of the rows.

    Args:
        module: computed on a copy; it stays as it is.
        data: batches, as steps and backends are fitted to.
        quantized: the layers, as `Applied.layers` has them of a plan that quantizes all.
        outputs: the paths of the outputs that count; all if empty.
        until: the instant, by `WALL.now()`, after which no further pass is made.

    Raises what the module raises, as PassError.
    """
    spoken = tuple(dict.fromkeys(quantized))
    paths = {path for path, _ in parts_of(module, every_name=True)} - {""}
    known = {text for text in spoken if text in paths}
    either = [text.split(_EITHER) for text in spoken if _EITHER in text]
    alike = tuple(path for several in either for path in several)
    nameless = sum(text not in paths and _EITHER not in text for text in spoken)
    twin, rows, total, began = copied(module), 0, 0, WALL.now()
    errors: dict[str, float] = defaultdict(float)
    macs: dict[str, int] = defaultdict(int)
    for batch in _spread(data, signature):
        if rows and WALL.now() >= min(until, began + _LONG_SECONDS):
            break
        count = _rows_of(batch, signature)
        studied = _Studied(twin, signature, batch, known, outputs)
        found: dict[str, float] = {}
        for path, calls in studied.layers.items():
            if WALL.now() >= until:
                break
            found[path] = studied.error(calls)
        if rows and len(found) < len(studied.layers):
            break  # what some layers do on other rows cannot be set beside what all do on these
        rows, total = rows + count, total + studied.record.totals.macs
        for path, made in found.items():
            errors[path] += made * count
            macs[path] += studied.macs(path)
    layers = [
        Sensitivity(
            layer=path, error=errors[path] / rows, share=macs[path] / max(1, total), full=False
        )
        for path in errors
    ]
    layers.sort(key=lambda one: (-one.error, one.layer))
    unseen = tuple(path for path in spoken if path in known and path not in errors)
    notes = [f"{len(layers)} layers were looked at one by one, on {rows} rows"]
    if alike:
        notes.append(
            f"{_named(alike)}: not looked at one by one, since layers of equal weights cannot be "
            "told apart"
        )
    if nameless:
        notes.append(
            f"{nameless} quantized products have weights of no module that has a path: `where` "
            "cannot name them, and a split that names the layers to quantize leaves them out"
        )
    if unseen:
        why = "there was no time" if WALL.now() >= until else "the pass does not multiply by them"
        notes.append(f"{_named(unseen)}: not looked at one by one: {why}")
    return Looked(tuple(layers), (*alike, *unseen), tuple(notes))


class _Studied:
    """One batch, computed again and again with some calls in int8.

    Attributes:
        record: of the pass as it is.
        layers: indices of the calls of each layer, by the path of its module.
    """

    def __init__(
        self,
        module: nn.Module,
        signature: Signature,
        batch: Arrays,
        known: Container[str],
        outputs: Collection[str],
    ) -> None:
        args, kwargs = arguments_of(module, signature, batch)
        # A fused fast path hides layers, and outside of inference mode one is several operators
        this = Pass.of(module, args, kwargs, grad="inference", mode="eval", expanded=True)
        recording = recorded(type(module).__name__, this, ())
        self.record: Record = recording
        self._probe = Probe(recording)
        came = recording.returned
        self._before = {path: came[path] for path in came if not outputs or path in outputs}
        self._weights = _weights(recording)
        self.layers: dict[str, set[int]] = defaultdict(set)
        owners = _owners(module)
        for call in recording.calls:
            if call.macs and any(serial in self._weights for serial in call.inputs):
                path = _path(recording, call, owners)
                if path in known:
                    self.layers[path].add(call.index)

    def macs(self, path: str) -> int:
        """Multiplications of a layer, in all of its calls."""
        return sum(self.record.calls[index].macs or 0 for index in self.layers[path])

    def error(self, calls: Collection[int]) -> float:
        """Of the outputs, with these calls in int8: the mean square of what they move by ÷ that of
        what they hold, of the output for which it is largest."""
        rounding = _Rounding(self.record, calls, self._weights)
        came = flatten(self._probe.walk(rounding))
        largest = 0.0
        for path, before in self._before.items():
            off = error(before, came[path])
            largest = max(largest, _BROKEN if off.unlike else off.relative**2)
        return min(largest, _BROKEN)


class _Rounding(Walk):
    """Computes some calls with what int8 keeps of their operands."""

    def __init__(self, record: Record, calls: Collection[int], weights: Collection[int]) -> None:
        super().__init__(record)
        self._wanted, self._held = calls, weights

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if call.index not in self._wanted:
            return func(*args, **kwargs)
        serials = iter(call.inputs)
        given = {**dict(zip(schema.names, args, strict=False)), **kwargs}

        def rounded(leaf: object) -> object:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            serial = next(serials, -1)
            if leaf.dim() < 2 or not leaf.is_floating_point():  # biases are added in full
                return leaf
            if serial in self._held:
                return _by_channel(leaf, _units(schema.packet, given, leaf))
            return _by_range(leaf)

        args, kwargs = tree_map(rounded, (args, kwargs))
        return func(*args, **kwargs)


def _units(packet: str, given: Mapping[str, Any], weight: torch.Tensor) -> int:
    """Along which axis of its weight the units of a layer lie."""
    if packet in _BY_COLUMN:
        return weight.dim() - 1
    return 1 if "transpose" in packet or given.get("transposed") else 0


def _by_channel(weight: torch.Tensor, axis: int) -> torch.Tensor:
    """A weight, with each unit as whole numbers from -127 to 127 and one scale."""
    others = [n for n in range(weight.dim()) if n != axis]
    scale = (weight.abs().amax(others, keepdim=True) / 127).clamp_min(
        torch.finfo(weight.dtype).tiny
    )
    return (weight / scale).round_() * scale


def _by_range(values: torch.Tensor) -> torch.Tensor:
    """Values as whole numbers from 0 to 255 with one scale and one zero, by their range."""
    if not values.numel() or not bool(values.isfinite().all()):
        return values
    low, high = values.aminmax()
    low, high = low.clamp_max(0), high.clamp_min(0)
    scale = ((high - low) / 255).clamp_min(torch.finfo(values.dtype).tiny)
    zero = (-low / scale).round()
    return ((values / scale).round() + zero).clamp_(0, 255).sub_(zero).mul_(scale)


def _weights(record: Record) -> set[int]:
    """The values that do not depend on what went in: parameters, and what is made of them."""
    moved = set(record.inputs.values())
    storages = {record.values[serial].storage for serial in moved} - {-1}
    for call in record.calls:
        if any(s in moved or record.values[s].storage in storages for s in call.inputs):
            moved.update(call.outputs)
            storages.update({record.values[s].storage for s in call.outputs} - {-1})
    return {value.serial for value in record.values} - moved


def _owners(module: nn.Module) -> dict[str, tuple[str, ...]]:
    """By the name under which a record has a parameter, the paths of all modules that hold it."""
    named = dict(parameters_of(module, every_name=True))
    by_tensor: dict[int, list[str]] = defaultdict(list)
    for name, tensor in named.items():
        by_tensor[id(tensor)].append(
            name.split(".parametrizations.")[0]
            if ".parametrizations." in name
            else name.rpartition(".")[0]
        )
    return {name: tuple(by_tensor[id(tensor)]) for name, tensor in named.items()}


def _path(record: Record, call: Call, owners: Mapping[str, Sequence[str]]) -> str:
    """Whose layer a call is: the module that holds its weight, or that computes it."""
    running = record.modules[call.module].path
    held = [path for name in call.parameters for path in owners.get(name, ())]
    return running if running in held or not held else held[0]


def _spread(data: Iterable[Arrays], signature: Signature) -> Iterable[Arrays]:
    """Of some batches, as different as there are, the first rows."""
    there = list(data)
    places = dict.fromkeys(round(place * (len(there) - 1)) for place in _PLACES)
    return (_first(there[place], signature) for place in places)


def _first(batch: Arrays, signature: Signature) -> Arrays:
    axes = {item.path: item.batch_axis for item in signature.inputs}
    return {
        path: value
        if (axis := axes[path]) is None
        else value.take(range(min(_ROWS, value.shape[axis])), axis)
        for path, value in batch.items()
    }


def _rows_of(batch: Arrays, signature: Signature) -> int:
    axes = {item.path: item.batch_axis for item in signature.inputs}
    return next((v.shape[a] for path, v in batch.items() if (a := axes[path]) is not None), 1)


def _named(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(paths[:_NAMED]) + more
