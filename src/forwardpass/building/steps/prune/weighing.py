"""Weighing: what units give on all of the user's data, at the calls that read them."""

from __future__ import annotations

from typing import Any

import torch

from forwardpass.building.steps.prune.units import Reader, Units
from forwardpass.building.workpieces import Workpiece
from forwardpass.recording.interception import Interception
from forwardpass.recording.passes import Pass
from forwardpass.recording.schemas import Schema, flattened


class Weighed:
    """What was seen at one reader: [positions], the largest magnitude and the sum of squares."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.calls = 0
        self.largest = torch.zeros(len(reader.labels), dtype=torch.float64)
        self.squares = torch.zeros(len(reader.labels), dtype=torch.float64)

    def saw(self, given: list[torch.Tensor]) -> bool:
        """Look at the operands of a call; whether the units lie where they lay before."""
        reader = self.reader
        tensor = given[reader.operand] if reader.operand < len(given) else None
        if (
            tensor is None
            or tensor.dim() <= reader.axis
            or tensor.shape[reader.axis] != len(reader.labels)
        ):
            return False
        by_unit = tensor.detach().movedim(reader.axis, 0).reshape(len(reader.labels), -1).double()
        if by_unit.shape[1]:
            self.calls += 1
            self.largest = self.largest.maximum(by_unit.abs().amax(1).cpu())
            self.squares += by_unit.square().sum(1).cpu()
        return True


class _Scales(Interception):
    """Looks at the calls that read a parameter which weighs units."""

    def __init__(self, readers: list[Weighed], seen: set[tuple[str, int]]) -> None:
        super().__init__()
        self._seen = seen
        self.strange: set[int] = set()
        self._by_storage: dict[int, list[Weighed]] = {}
        for weighed in readers:
            self._by_storage.setdefault(weighed.reader.storage, []).append(weighed)

    def intercepted(
        self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        result = func(*args, **kwargs)
        given: list[torch.Tensor] = []
        flattened((args, kwargs), given)
        for tensor in given:
            if tensor.layout is not torch.strided:
                continue
            storage = tensor.untyped_storage().data_ptr()
            for weighed in self._by_storage.get(storage, ()):
                if weighed.reader.operator == schema.name:
                    known = weighed.saw(given)
                else:
                    known = (schema.name, storage) in self._seen
                if not known:
                    self.strange.add(storage)
        return result


def weighed(piece: Workpiece, units: Units, seen: set[tuple[str, int]]) -> list[Weighed]:
    """What is seen at each reader of units on all data; units that are read in another way there,
    or not at all, are kept.

    Raises BuildError where there are no data.
    """
    scales = [Weighed(reader) for reader in _once(units.readers)]
    watch = _Scales(scales, seen)
    for args, kwargs in piece.batches():
        Pass.of(piece.module, args, kwargs, grad="off", expanded=True).plain(watch)
    for one in scales:
        if one.reader.storage in watch.strange:
            units.keep(one.reader.labels, "on some of the data another call reads them")
        elif not one.calls:
            units.keep(one.reader.labels, "none of the data came to what reads them")
    return scales


def _once(readers: list[Reader]) -> list[Reader]:
    """Each way to read a parameter once: a module may be called often."""
    found: dict[tuple[str, int, int, int], Reader] = {}
    for reader in readers:
        found.setdefault((reader.operator, reader.storage, reader.operand, reader.axis), reader)
    return list(found.values())
