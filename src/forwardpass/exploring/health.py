"""Health: what the numbers of a pass look like over all rows, and where they go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
import torch

from forwardpass.errors import UsageError, contained, said
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.tallies import Histogram, Tally
from forwardpass.keeping.memories import is_strided
from forwardpass.nouns.calls import Call
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.records import Record
from forwardpass.operators import activation, batch_norm, convolution, find, linear, softmax
from forwardpass.recording.costs import by_name
from forwardpass.recording.passes import Pass
from forwardpass.recording.schemas import Schema, flattened
from forwardpass.recording.walking import Walk
from forwardpass.tensors.trees import flatten

_ROWS: Final = 1024
"""That are looked at, at most."""
_FEWEST_ROWS: Final = 16
_MACS: Final = 1_000_000_000_000
"""Of all passes together, about half a minute of a small machine: of large models fewer rows."""
_CALLS: Final = 200_000
"""The same, of passes of many calls, each of which is looked at."""
_NEAR: Final = 32
"""Calls back from an activation, within which the layer before it is looked for."""
_FLAT: Final = 0.01
"""Share of its steepest slope, below which a sigmoid or tanh counts as saturated; and what is left
to all other choices where softmax has made up its mind."""


class Vital(msgspec.Struct, frozen=True):
    """An activation, or an output: a place in the code of one module, with all its calls.

    Attributes:
        call: index of its first call, -1 for an output. calls: how many a pass has.
        path, kind: of the module. name: what the code wrote, or the path of the output.
        rows: that went through it.
        before: what it read, or the output itself. after: what it made; None for an output.
        channels: share of exact zeros by channel; empty where nothing says which axis that is.
        dead: channels that are zero everywhere, on every row.
        units: numbers that a call makes, None where rows have different sizes; `dead_units` of
            them are zero on every row.
        saturated: share that is, None where the activation cannot be; `saturation` says what that
            means here.
    """

    call: int
    calls: int
    path: str
    kind: str
    name: str
    rows: int
    before: Histogram
    after: Histogram | None
    channels: tuple[float, ...] = ()
    dead: tuple[int, ...] = ()
    units: int | None = None
    dead_units: int | None = None
    saturated: float | None = None
    saturation: str = ""


class NotFinite(msgspec.Struct, frozen=True):
    """Where the first of these numbers came from.

    Attributes:
        row: the first that has one, and `rows` how many do.
        call: its first call that made one, -1 where it was given. where: the call in words, with
            its line. count: how many there were.
    """

    what: Literal["NaN", "Inf"]
    row: int
    rows: int
    call: int
    where: str
    count: int


class Health(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        rows: that went in, each alone, of `of`.
        parted: rows that took another way through the code than the first one: what they made from
            there on is not counted. raised: what rows raised, by row.
    """

    rows: int
    of: int
    watched: tuple[Vital, ...]
    nan: NotFinite | None
    inf: NotFinite | None
    parted: int
    raised: dict[int, str]

    @property
    def first(self) -> Vital | None:
        """What is asked about: the first activation that made zeros, the first one, an output; None
        where none of them has a number."""
        made = [each for each in self.watched if each.after is not None]
        zeros = [each for each in made if each.after is not None and each.after.zeros]
        return next(iter([*zeros, *made, *self.watched]), None)


def surveyed(exploration: Exploration, steps: Steps) -> Health:
    """Send the rows through the model, one by one, and look at every number.

    Raises PassError where the first row's pass raises, UsageError where nothing can be run.
    """
    probe = exploration.probe()
    if lacking := probe.record.lacks("numbers"):
        raise UsageError(lacking)
    given = exploration.given
    assert given is not None
    totals = probe.record.totals
    few = min(_MACS // max(1, totals.macs), _CALLS // max(1, totals.calls))
    most = max(_FEWEST_ROWS, few)
    rows = min(exploration.count, _ROWS, most)
    survey = Survey(probe.record)
    steps.begin("rows", rows)
    for row in range(rows):
        survey.send(row, given.passed((row,)), probe.writes_parameters)
        steps.advance()
    return survey.health(rows, exploration.count)


class Survey(Walk):
    """Looks at the numbers while passes run, row after row."""

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._row = 0
        self._parted = 0
        self._raised: dict[int, str] = {}
        self._faults: dict[str, _Sighting] = {what: _Sighting() for what in ("NaN", "Inf")}
        self._places: dict[tuple[int, str, str], _Valve] = {}
        self._of_call: dict[int, _Valve] = {}
        for call in record.calls:
            if find(call.packet) in (activation, softmax):
                key = (call.site, record.module(call).path, call.operator)
                if key not in self._places:
                    self._places[key] = _Valve(record, call)
                place = self._places[key]
                place.calls += 1
                self._of_call[call.index] = place
        self._outputs = {path: Tally() for path in record.outputs}

    def send(self, row: int, this: Pass, writes_parameters: bool) -> None:
        """Look at the pass of a row."""
        self._row, self.parted = row, False
        self.again()
        with this.staged(contents=writes_parameters) as (_, args, kwargs):
            for path, tensor in this.named(args, kwargs).items():
                self._look(tensor, -1, f"{path}, which was given")
            try:
                with contained(), self:
                    came = this.module(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - said beside what was found
                self._raised[row] = said(error)
                return
            for path, tensor in flatten(came).items():
                if path in self._outputs and _has_numbers(tensor):
                    self._outputs[path].add(tensor)
        self._parted += bool(self.parted or self.next is not None)

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        place = self._of_call.get(call.index)
        read: list[torch.Tensor] = []
        if place is not None:
            flattened((args, kwargs), read)
            place.reads(read[0])
        result = func(*args, **kwargs)
        made = schema.made(result, args, kwargs)
        if place is not None:
            place.makes(self._row, made[0], by_name(schema, call))
        for tensor in made:
            self._look(tensor, call.index, "")
        return result

    def health(self, rows: int, of: int) -> Health:
        """What was found."""
        watched = [place.watched() for place in self._places.values() if place.before.count]
        watched += [
            Vital(-1, 1, "", "output", path, rows - len(self._raised), tally.histogram(), None)
            for path, tally in self._outputs.items()
            if tally.count
        ]
        faults = {what: fault.found(what) for what, fault in self._faults.items()}
        return Health(
            rows, of, tuple(watched), faults["NaN"], faults["Inf"], self._parted, self._raised
        )

    def _look(self, tensor: torch.Tensor, call: int, where: str) -> None:
        if not _has_numbers(tensor) or bool(tensor.isfinite().all()):
            return
        if call >= 0:
            made = self.record.calls[call]
            module = self.record.module(made)
            inside = f" in {module.path} {module.kind}" if module.path else ""
            where = f"{made.name or made.short}{inside}, {self.record.site(made)}"
        for what, count in (("NaN", tensor.isnan().sum()), ("Inf", tensor.isinf().sum())):
            if count:
                self._faults[what].note(self._row, call, where, int(count))


class _Sighting:
    """Numbers of one kind that are not finite: the first, and in how many rows."""

    def __init__(self) -> None:
        self._first: tuple[int, int, str, int] | None = None
        self._rows: set[int] = set()

    def note(self, row: int, call: int, where: str, count: int) -> None:
        self._rows.add(row)
        if self._first is None:
            self._first = (row, call, where, count)

    def found(self, what: Any) -> NotFinite | None:
        if self._first is None:
            return None
        row, call, where, count = self._first
        return NotFinite(what, row, len(self._rows), call, where, count)


class _Valve:
    """What goes in and out of an activation."""

    def __init__(self, record: Record, call: Call) -> None:
        self._call, self._module = call, record.module(call)
        self._operator = call.packet.removesuffix("_")
        self._axis = _channel_axis(record, call)
        self.calls = 0
        self.before, self._after = Tally(), Tally()
        self._rows: set[int] = set()
        self._zeros: torch.Tensor | None = None
        self._by_channel = 0
        self._alive: torch.Tensor | None = None
        self._has_units = True
        self._saturated = self._asked = 0

    def reads(self, tensor: torch.Tensor) -> None:
        if _has_numbers(tensor):
            self.before.add(tensor)

    def makes(self, row: int, tensor: torch.Tensor, arguments: dict[str, Any]) -> None:
        if not _has_numbers(tensor):
            return
        self._rows.add(row)
        made = tensor.detach().to("cpu")
        self._after.add(made)
        self._count_zeros(made)
        flat = _saturated(self._operator, made, arguments)
        if flat is not None:
            self._saturated += int(flat.sum())
            self._asked += flat.numel()

    def _count_zeros(self, made: torch.Tensor) -> None:
        zero = made == 0
        if self._axis is not None and zero.dim() >= -self._axis:
            by_channel = zero.movedim(self._axis, 0).flatten(1) if zero.dim() > 1 else zero[:, None]
            counts = by_channel.sum(1)
            if self._zeros is None:
                self._zeros = torch.zeros_like(counts)
            if self._zeros.shape != counts.shape:  # channels are not what that axis holds
                self._axis = self._zeros = None
            else:
                self._zeros += counts
                self._by_channel += by_channel.shape[1]
        if self._alive is None:
            self._alive = ~zero
        elif self._alive.shape == zero.shape:
            self._alive |= ~zero
        else:
            self._has_units = False

    def watched(self) -> Vital:
        """What was found."""
        shares: list[float] = []
        if self._zeros is not None and self._by_channel:
            shares = (self._zeros.double() / self._by_channel).tolist()
        has_units = self._has_units and self._alive is not None
        return Vital(
            self._call.index, self.calls, self._module.path, self._module.kind,
            self._call.name or self._call.short, len(self._rows),
            self.before.histogram(self._after), self._after.histogram(self.before),
            channels=tuple(shares),
            dead=tuple(n for n, share in enumerate(shares) if share == 1.0),
            units=self._alive.numel() if has_units and self._alive is not None else None,
            dead_units=int((~self._alive).sum()) if has_units and self._alive is not None else None,
            saturated=self._saturated / self._asked if self._asked else None,
            saturation=_SATURATION.get(self._operator, "") if self._asked else "",
        )  # fmt: skip


_SIGMOIDS: Final = ("aten.sigmoid", "aten.hardsigmoid")
_SATURATION: Final = {
    **dict.fromkeys(_SIGMOIDS, "within 0.25 % of 0 or 1, where the slope is next to none"),
    "aten.tanh": "within 0.5 % of −1 or 1, where the slope is next to none",
    **dict.fromkeys(softmax.COVERS, "distributions with one choice above 99 %"),
}


def _saturated(operator: str, made: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor | None:
    """Which numbers of a sigmoid or tanh, or which distributions of a softmax, are saturated; None
    for activations that cannot be."""
    y = made.double()
    if operator in _SIGMOIDS:
        return 4 * y * (1 - y) < _FLAT  # the slope is y (1 − y), 1/4 at most
    if operator == "aten.tanh":
        return 1 - y * y < _FLAT  # the slope
    if operator not in softmax.COVERS or not y.dim():
        return None
    largest = y.amax(arguments["dim"])
    return (largest.exp() if operator in softmax.LOGARITHMIC else largest) > 1 - _FLAT


def _channel_axis(record: Record, call: Call) -> int | None:
    """The axis, from the last one, -1, that holds the channels of the layer before an activation;
    None where there is no such layer, or the axes are moved in between."""
    serial = call.inputs[0]
    rank = len(record.values[serial].shape)
    kept = True  # whether all axes are as the activation has them, or only the last one
    for _ in range(_NEAR):
        made = record.graph.maker(serial)
        if made is None:
            return None
        file, now = find(made.packet), record.values[serial].shape
        if file is linear and made.parameters:
            return -1
        if file is convolution and made.parameters:
            spatial = max(len(record.values[s].shape) for s in made.inputs[1:]) - 2
            return -1 - spatial if kept else None
        if file is batch_norm and kept:
            return 1 - rank if rank > 1 else None
        alike = [s for s in made.inputs if record.values[s].shape == now]
        last = [s for s in made.inputs[:1] if made.kind == "view" and _share_last(record, s, now)]
        if not alike and not last:
            return None
        kept = kept and bool(alike)
        serial = (alike or last)[0]
    return None


def _share_last(record: Record, serial: int, shape: Sequence[int]) -> bool:
    return bool(shape) and record.values[serial].shape[-1:] == tuple(shape[-1:])


def _has_numbers(tensor: torch.Tensor) -> bool:
    plain = is_strided(tensor) and not tensor.is_quantized and tensor.device.type != "meta"
    wide = tensor.is_floating_point() and tensor.dtype.itemsize > 1  # nothing computes in float8
    return plain and wide and tensor.numel() > 0
