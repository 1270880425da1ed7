"""By row: which axis of the values of a pass holds the rows of its batch, by another batch.

The pass is looked at in eval mode where the module trains: there, rows may share statistics by
design. Which axis is the batch is not guessed from sizes: the pass runs with one row more, and what
grows along with it holds rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch

from forwardpass.errors import PassError
from forwardpass.probing.changes import Change
from forwardpass.probing.layouts import Layout, layout_of
from forwardpass.probing.pairs import partners
from forwardpass.probing.probes import Probe
from forwardpass.recording.passes import Mode
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.distances import relative_distance, tolerance

_DEEP = 100
"""Contractions in a row for which `tolerance` was measured; rounding grows by the root of more."""


class ByRow:
    """The rows of a pass in eval mode.

    Attributes:
        probe: of the pass.
        count: how many rows its batch has.
        mode: the mode in which it is looked at; None: as it stands.
    """

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.count = probe.rows
        modules = probe.record.modules
        self.mode: Mode | None = "eval" if modules and modules[0].training else None

    @property
    def too_few(self) -> str:
        """Why nothing can be told of rows, where there are not two of them."""
        if self.count:
            return "one row was given: give two, to see whether they see each other"
        return "nothing says which axis of the inputs is the batch: give a signature"

    @cached_property
    def base(self) -> Recording:
        """The pass itself; its values may be missing."""
        if self.mode is None:
            return self.probe.record
        return self.whole

    @cached_property
    def whole(self) -> Recording:
        """The pass itself with its values."""
        return self.probe.recording(Change(mode=self.mode))

    @cached_property
    def resized(self) -> tuple[int, Recording]:
        """The pass with another number of rows, without values: that number, and its record.

        One row more, the first one twice; where the model refuses that, one row less. Raises
        PassError where it refuses both.
        """
        more = [*range(self.count), 0]
        try:
            return len(more), self._structure(more)
        except PassError:
            if self.count < 3:
                raise
        return self.count - 1, self._structure(range(self.count - 1))

    def _structure(self, rows: Sequence[int]) -> Recording:
        change = Change(rows=tuple(rows), mode=self.mode)
        return self.probe.recording(change, values=False)

    @cached_property
    def outputs(self) -> dict[str, Layout]:
        """The outputs that have one entry a row, with the axis of the rows. What compares rows with
        rows (two axes grow) is not among them, nor is what sums over them (none grows).

        Of those flattened together with another axis there are those in which the row that went in
        twice came out twice.
        """
        other, record = self.resized
        found: dict[str, Layout] = {}
        for path, serial in self.base.outputs.items():
            if path not in record.outputs or path not in self.base.returned:
                continue
            if self.base.values[serial].nested is not None:
                continue  # its rows have a size each, and no axis
            one = self.base.values[serial].shape
            layout = layout_of(one, record.values[record.outputs[path]].shape, self.count, other)
            if layout is None:
                continue
            if layout.inner > 1:
                came = record.returned[path]
                ways = [layout._replace(together=(size,)) for size in layout.together]
                twice = [w for w in ways if w.distance(came, -1, came, 0) <= self.tolerance]
                sizes = (size for way in twice for size in way.together)
                layout = layout._replace(together=tuple(sizes) if other > self.count else ())
            if layout.together:
                found[path] = layout
        return found

    @cached_property
    def partners(self) -> dict[int, int]:
        """Serials of `whole`, and the values of `resized` that the same code made."""
        return partners(self.whole, self.resized[1])

    @cached_property
    def layouts(self) -> dict[int, Layout]:
        """Where values of `whole` hold rows, by serial; those that hold none, or where nobody can
        tell, are left out."""
        other, record = self.resized
        found: dict[int, Layout] = {}
        for mine, its in self.partners.items():
            one, two = self.whole.values[mine].shape, record.values[its].shape
            layout = layout_of(one, two, self.count, other)
            if layout is not None:
                found[mine] = layout
        return found

    def part(self, serial: int, tensor: torch.Tensor, row: int) -> torch.Tensor:
        """What a tensor in the shape of a value of `whole` holds for one row, with the axis of the
        rows; all of it where the value has no such axis."""
        layout = self.layouts.get(serial)
        if layout is None or layout.inner != 1:
            return tensor
        return tensor.narrow(layout.axis, row, 1)

    @cached_property
    def tolerance(self) -> float:
        """The relative distance that another batch shape may cause by rounding."""
        dtypes = {value.dtype for value in self.base.values}
        deep = sum(1 for call in self.base.calls if call.macs)
        return tolerance(dtypes) * max(1.0, (deep / _DEEP) ** 0.5)

    def moved(
        self, outputs: Mapping[str, torch.Tensor], row: int, alone: bool = False
    ) -> dict[str, float]:
        """The outputs whose `row` is another than in the pass, with the relative distance of each.

        `outputs` are of as many rows, or of that row `alone`. One with fewer axes for a row alone
        is infinitely far. One with other sizes than the number of rows explains (as long as the
        longest row, as many as were found) cannot be compared, and is left out.
        """
        found: dict[str, float] = {}
        for path, layout in self.outputs.items():
            mine, came = self.base.returned[path], outputs.get(path)
            if came is None:
                continue
            if came.dim() != mine.dim():
                found[path] = float("inf")
            elif came.shape[layout.axis] == layout.inner * (1 if alone else self.count):
                gap = layout.distance(came, 0 if alone else row, mine, row)
                if gap > self.tolerance:
                    found[path] = gap
        return found

    def is_repeatable(self) -> bool:
        """Whether the same inputs give the same outputs; or some are not all numbers."""
        again = self.whole.returned
        if self.whole is self.base:
            again = self.probe.outputs(Change(mode=self.mode))
        mine = self.base.returned
        return all(
            path in again
            and again[path].shape == tensor.shape
            and relative_distance(again[path], tensor) <= self.tolerance
            for path, tensor in mine.items()
        )
