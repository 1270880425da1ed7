"""Shrinking: a module without some of its units, and the proof that it is no other for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Final, NamedTuple

import torch
from torch import nn

from forwardpass.building.copies import copied
from forwardpass.building.replicas import Example, Inputs
from forwardpass.building.steps._parts import put_tensor
from forwardpass.building.steps.prune.units import Units
from forwardpass.building.subjects import outputs_of, truths_of
from forwardpass.errors import contained, said
from forwardpass.nouns.records import Record
from forwardpass.tensors.arrays import spelled
from forwardpass.tensors.distances import apart, tolerance
from forwardpass.tensors.modules import attributes, held_by, parts_of, store_of

_TRIES: Final = 24
"""Ways to set the sizes that modules keep as attributes: none, one, and two of those in doubt."""


class Stated(NamedTuple):
    """An attribute of a kind of module that is as large as an axis which shrinks."""

    kind: str
    attribute: str
    before: int
    after: int


class Shrinking:
    """Takes units out of copies of a module.

    Attributes:
        module: that is not touched.
        refused: why the last try was given up, in words.
    """

    def __init__(
        self,
        module: nn.Module,
        record: Record,
        units: Units,
        fields: Mapping[int, Sequence[torch.Tensor]],
    ) -> None:
        self.module = module
        self.refused = ""
        self._record, self._units, self._fields = record, units, fields
        self._names = {p.name: (p.name, *p.aliases) for p in record.parameters}
        self._readers = {axis for reader in units.readers for axis in reader.weights}

    def without(
        self, gone: Collection[int], example: Example, declared: Collection[str]
    ) -> nn.Module | None:
        """A copy without these units, which computes what the module does when nothing reads them;
        None where there is none, see `refused`."""
        labels = torch.tensor(sorted(gone))
        ignoring = self._ignoring(labels)
        truths = truths_of(ignoring, example)
        self.refused = ""
        for sizes in self._ways(labels):
            smaller = self._smaller(labels, sizes)
            why = ""
            for truth in truths:
                why = why or _differs(
                    smaller, example, truth.inputs, truth.outputs, declared, truth.said
                )
            if not why:
                return smaller
            self.refused = self.refused or why
        return None

    def _ignoring(self, gone: torch.Tensor) -> nn.Module:
        """A copy in which the weights by which units are read are 0."""
        module = copied(self.module)
        for axis, units in self._units.members():
            places = torch.isin(units, gone).nonzero().flatten()
            if axis in self._readers and len(places):
                _change(module, axis.name, partial(_blank, axis=axis.axis, places=places))
        return module

    def _smaller(self, gone: torch.Tensor, sizes: Collection[Stated]) -> nn.Module:
        """A copy without units, in which modules say these sizes."""
        module = copied(self.module)
        for axis, left in self._units.left_out(gone).items():
            _change(module, axis.name, partial(_only, axis=axis.axis, places=left))
        parts = dict(parts_of(module, every_name=True))
        for axis in self._units.left_out(gone):
            for name in self._names.get(axis.name, (axis.name,)):
                _say_sizes(parts[name.rpartition(".")[0]])
        wanted = {(size.kind, size.attribute, size.before): size.after for size in sizes}
        for path in self._shrunk_in(gone):
            part = parts.get(path)
            if part is not None:
                own, kind = attributes(part), type(part).__name__
                for name, value in list(own.items()):
                    if type(value) is int and (kind, name, value) in wanted:
                        own[name] = wanted[kind, name, value]
        return module

    def _ways(self, gone: torch.Tensor) -> Iterator[tuple[Stated, ...]]:
        """Sizes to set: those clearly of an axis that shrinks; none; those in doubt as well."""
        clear, doubtful = self._sizes(gone)
        yield clear
        if clear:
            yield ()
        tries = 0
        for count in range(1, len(doubtful) + 1):
            for more in combinations(doubtful, count):
                tries += 1
                if tries > _TRIES:
                    return
                yield (*clear, *more)

    def _sizes(self, gone: torch.Tensor) -> tuple[tuple[Stated, ...], tuple[Stated, ...]]:
        parts = dict(parts_of(self.module, every_name=True))
        clear: dict[Stated, None] = {}
        doubtful: dict[Stated, None] = {}
        for path, sizes in self._shrunk_in(gone).items():
            part = parts.get(path)
            if part is None:
                continue
            stay = {before for before, after in sizes if before == after}
            for name, value in attributes(part).items():
                for before, after in sizes:
                    if type(value) is int and value == before != after and name != "training":
                        into = doubtful if before in stay else clear
                        into[Stated(type(part).__name__, name, before, after)] = None
        return tuple(clear), tuple(doubtful)

    def _shrunk_in(self, gone: torch.Tensor) -> dict[str, set[tuple[int, int]]]:
        """For each module in which some value shrinks, sizes of the axes of its values before and
        after."""
        shrinks: dict[str, set[tuple[int, int]]] = {}
        record = self._record
        for call in record.calls:
            sizes: set[tuple[int, int]] = set()
            for serial in (*call.inputs, *call.outputs):
                sizes.update(self._resized(serial, gone))
            path = record.module(call).path
            shrinks.setdefault(path, set()).update(sizes)
        return {path: sizes for path, sizes in shrinks.items() if any(a != b for a, b in sizes)}

    def _resized(self, serial: int, gone: torch.Tensor) -> Iterator[tuple[int, int]]:
        shape = self._record.values[serial].shape
        after = list(shape)
        for field in self._fields.get(serial, ()):
            goes = torch.isin(self._units.of(field), gone)
            for axis, size in enumerate(goes.shape):
                if size > 1 and goes.any():
                    first = goes.movedim(axis, 0).reshape(size, -1)
                    if bool((first == first[:, :1]).all()):
                        after[axis] = int((~first[:, 0]).sum())
                        break
        yield from zip(shape, after, strict=True)


def _change(module: nn.Module, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    put_tensor(module, name, change(held_by(module)[name].detach()))


def _blank(tensor: torch.Tensor, *, axis: int, places: torch.Tensor) -> torch.Tensor:
    return tensor.clone().index_fill_(axis, places.to(tensor.device), 0)


def _only(tensor: torch.Tensor, *, axis: int, places: torch.Tensor) -> torch.Tensor:
    return tensor.index_select(axis, places.to(tensor.device))


def _say_sizes(part: nn.Module) -> None:
    """The layers of PyTorch keep their sizes beside their weights."""
    weight = getattr(part, "weight", None)
    if isinstance(part, nn.Linear):
        part.out_features, part.in_features = part.weight.shape
    elif isinstance(part, nn.modules.conv._ConvNd):  # pyright: ignore[reportPrivateUsage]
        first, second = part.weight.shape[:2]
        if part.groups > 1 and second == 1:  # each channel for itself
            times = part.out_channels // part.groups
            part.groups = part.in_channels = first if part.transposed else first // times
            part.out_channels = part.groups * times
        elif part.transposed:
            part.in_channels, part.out_channels = first, second * part.groups
        else:
            part.out_channels, part.in_channels = first, second * part.groups
    elif isinstance(part, nn.modules.batchnorm._NormBase):  # pyright: ignore[reportPrivateUsage]
        held = next((t for t in (weight, part.running_mean) if t is not None), None)
        part.num_features = part.num_features if held is None else len(held)
    elif isinstance(part, nn.Embedding):
        part.num_embeddings, part.embedding_dim = part.weight.shape
    elif isinstance(part, nn.RNNBase):
        part.input_size = store_of(part, "_parameters")["weight_ih_l0"].shape[1]


def _differs(
    module: nn.Module,
    example: Example,
    inputs: Inputs,
    before: Mapping[str, torch.Tensor],
    declared: Collection[str],
    text: str,
) -> str:
    """Why a module does not give the same for a batch; "" where it does."""
    try:
        with contained():
            now = outputs_of(module, example.signature, inputs)
    except Exception as error:  # noqa: BLE001 - whatever its code refuses other sizes by
        return f"with fewer of them its code raises {said(error)}"
    for name in [name for name in before if name in declared] or before:
        if name not in now:
            return f"with fewer of them {name} is gone"
        if apart(now[name], before[name]) > tolerance({spelled(now[name])}):
            return (
                f"with fewer of them it does not compute {name} of {text} as if they were ignored"
            )
    return ""
