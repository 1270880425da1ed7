"""Modes: train or eval? The same rows in both, and what each does to the model's state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import torch

from forwardpass.checking.draws import arguments, between, noise_used, zeroes
from forwardpass.errors import ForwardpassError, PassError, UsageError
from forwardpass.exploring.arithmetic import Decimal, decimal
from forwardpass.exploring.asking import PageQuestion
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.ledgers import MOMENTS, SEED, TRAIN, StateLedger, ledger
from forwardpass.exploring.predictions import PagePrediction, Settled
from forwardpass.exploring.views import Predictions, View
from forwardpass.keeping.memories import is_strided, same_numbers
from forwardpass.nouns.calls import Call, Ref
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.records import Record
from forwardpass.operators import batch_norm, dropout, find
from forwardpass.probing.changes import Change
from forwardpass.probing.probes import Probe
from forwardpass.recording.passes import Mode
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.modules import held_by

_ROWS: Final = 8
"""Of a batch: statistics of a single row would be none."""
_SEEDS: Final = (SEED, SEED + 1)
_NUMBERS: Final = 16
"""Of a row's output."""
_CELLS: Final = 512
"""Of a row's mask."""
_CHANNELS: Final = 8
_MASKS: Final = 12
"""Layers that drop, and that take statistics, which are shown."""
_ZERO, _KEPT, _DROPPED = "0", "k", "x"


class ModeRuns(msgspec.Struct, frozen=True):
    """Two passes in a mode, which start from different random numbers.

    Attributes:
        numbers: the first of the first row's output, by pass. equal: whether all outputs are, bit
            for bit. apart: how far they are apart, as a share of their scale; null: without bound.
        calls, path: of the first pass. error: what it raised.
    """

    mode: Mode
    numbers: tuple[tuple[Decimal, ...], ...]
    equal: bool
    apart: float
    calls: int
    path: str
    error: str


class DropoutMask(msgspec.Struct, frozen=True):
    """What a dropout did in train mode.

    Attributes:
        shape: of the first row's numbers. zero, kept, dropped: of them.
        grew: the factor by which those that were kept were multiplied.
        cells: a letter for each of the first ones: 0 was zero, k kept, x dropped.
    """

    module: str
    shape: tuple[int, ...]
    zero: int
    kept: int
    dropped: int
    grew: Decimal
    cells: str


class ChannelStatistics(msgspec.Struct, frozen=True):
    """Mean and variance of a channel: of this batch, and those that were kept; None for none."""

    channel: int
    batch_mean: Decimal
    batch_variance: Decimal
    running_mean: Decimal | None
    running_variance: Decimal | None


class NormedBatch(msgspec.Struct, frozen=True):
    """A normalisation that takes its statistics from the batch in train mode.

    Attributes:
        channels: how many. shown: those whose means are farthest from what was kept.
    """

    module: str
    channels: int
    shown: tuple[ChannelStatistics, ...]


class BothModes(msgspec.Struct, frozen=True):
    """The same rows in both modes.

    Attributes:
        output: the path of what `numbers` are of; total: how many a row has.
        apart: how far the first train pass is from the first eval pass; null: without bound.
        masks, norms: in the first train pass; more: those that are not shown.
        notes: what one should know of it.
    """

    rows: tuple[int, ...]
    output: str
    total: int
    eval: ModeRuns
    train: ModeRuns
    apart: float
    masks: tuple[DropoutMask, ...]
    norms: tuple[NormedBatch, ...]
    more: int
    notes: tuple[str, ...]


def both(exploration: Exploration, steps: Steps, *, row: int = 0) -> BothModes:
    """Two passes in each mode, without autograd, over a batch that begins with the row."""
    probe, rows = _batch(exploration, row)
    steps.begin("both modes", 2 * len(_SEEDS))
    found: dict[Mode, list[Recording]] = {"eval": [], "train": []}
    errors: dict[Mode, str] = {"eval": "", "train": ""}
    for mode, made in found.items():
        for seed in _SEEDS:
            steps.advance()
            change = Change(mode=mode, grad="off", seed=seed)
            try:
                made.append(probe.recording(change, values=mode == "train" and seed == SEED))
            except PassError as error:
                errors[mode] = str(error)
                break
    firsts = {mode: made[0] for mode, made in found.items() if made}
    shown = next((path for one in firsts.values() for path in one.returned), "")
    runs = {mode: _runs(mode, made, errors[mode], shown, rows) for mode, made in found.items()}
    evaluated, trained = firsts.get("eval"), firsts.get("train")
    masks = [] if trained is None else list(_masks(trained, rows))
    norms = [] if trained is None else list(_norms(probe, trained))
    notes: list[str] = []
    if len(rows) == 1:
        notes.append("One row goes in alone: several make no batch here.")
    apart = 0.0
    if evaluated is not None and trained is not None:
        apart = between(trained.returned, evaluated.returned)
        if trained.totals.calls != evaluated.totals.calls:
            notes.append("In train mode the code makes other calls than in eval mode.")
    wholes = (one.returned[shown] for one in firsts.values() if shown in one.returned)
    total = next((_first(whole, rows).numel() for whole in wholes), 0)
    return BothModes(
        rows, shown, total, runs["eval"],
        runs["train"], apart, tuple(masks[:_MASKS]), tuple(norms[:_MASKS]),
        max(0, len(masks) - _MASKS) + max(0, len(norms) - _MASKS), tuple(notes),
    )  # fmt: skip


def _batch(exploration: Exploration, row: int) -> tuple[Probe, tuple[int, ...]]:
    """The pass of a row with those after it; of the row alone where they make no batch."""
    count = exploration.count
    rows = tuple((row + place) % count for place in range(min(_ROWS, count)))
    if len(rows) > 1:
        try:
            return exploration.probe(rows), rows
        except (ForwardpassError, RuntimeError, ValueError):  # they differ in size, say
            pass
    return exploration.probe((row,)), (row,)


def _runs(
    mode: Mode, made: list[Recording], error: str, shown: str, rows: tuple[int, ...]
) -> ModeRuns:
    numbers = tuple(
        _numbers(record.returned[shown], rows) for record in made if shown in record.returned
    )
    is_pair = len(made) == len(_SEEDS)
    apart = between(made[1].returned, made[0].returned) if is_pair else 0.0
    equal = is_pair and made[0].returned.keys() == made[1].returned.keys() and all(
        _same(one, made[1].returned[path]) for path, one in made[0].returned.items()
    )  # fmt: skip
    record = made[0] if made else None
    calls, path = (0, "") if record is None else (record.totals.calls, record.path)
    return ModeRuns(mode, numbers, equal, apart, calls, path, error)


def _numbers(tensor: torch.Tensor, rows: tuple[int, ...]) -> tuple[Decimal, ...]:
    return tuple(decimal(x) for x in _first(tensor, rows).reshape(-1)[:_NUMBERS].tolist())


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return same_numbers(one, other) if is_strided(one) else not between({"": one}, {"": other})


def _first(tensor: torch.Tensor, rows: tuple[int, ...]) -> torch.Tensor:
    """What belongs to the first row, as numbers; all of it where no axis has the rows."""
    if not is_strided(tensor) or tensor.device.type == "meta":
        return torch.empty(0)
    first = tensor[0] if tensor.dim() and tensor.shape[0] == len(rows) else tensor
    return (first.abs() if first.is_complex() else first).detach().double()


def _masks(record: Recording, rows: tuple[int, ...]) -> Iterator[DropoutMask]:
    """Where a pass zeroes at random what it computes: dropout, whoever wrote it."""
    for call, before, after in _dropped(record):
        one, other = record.tensors.get(before), record.tensors.get(after)
        if one is None or other is None:
            continue
        was, now = _first(one, rows), _first(other, rows)
        grew = (now / was)[(was != 0) & (now != 0)]
        zero, kept, dropped, cells = _letters(was.reshape(-1) != 0, now.reshape(-1) != 0)
        yield DropoutMask(
            record.module(call).path or "the model", tuple(was.shape), zero, kept, dropped,
            decimal(float(grew.median())) if len(grew) else 1.0, cells,
        )  # fmt: skip


def _dropped(record: Recording) -> Iterator[tuple[Call, int, int]]:
    """The calls that drop, with the serials of what they had and of what they left."""
    masking = {call.index: (call, serial) for draws, call, serial in noise_used(record)
               if draws and call is not None and zeroes(record, call, serial)}  # fmt: skip
    for call in record.calls:
        if call.kind == "random" and find(call.packet) is dropout:  # in one operator
            yield call, call.inputs[0], call.outputs[0]
        elif call.index in masking:
            shape = record.values[call.outputs[0]].shape
            read = [s for s in call.inputs if s != masking[call.index][1]]
            before = next((s for s in read if record.values[s].shape == shape), None)
            if before is not None:
                yield call, before, call.outputs[0]


def _letters(before: torch.Tensor, after: torch.Tensor) -> tuple[int, int, int, str]:
    zero, kept = int((~before).sum()), int((before & after).sum())
    pairs = zip(before[:_CELLS].tolist(), after[:_CELLS].tolist(), strict=True)
    cells = "".join(_ZERO if not b else _KEPT if a else _DROPPED for b, a in pairs)
    return zero, kept, len(before) - zero - kept, cells


def _norms(probe: Probe, record: Recording) -> Iterator[NormedBatch]:
    """What normalisations took from the batch, beside what they had kept."""
    held = held_by(probe.module)
    for call in record.calls:
        if find(call.packet) is not batch_norm:
            continue
        given = arguments(record, call)
        of_batch = given.get(
            "training", given.get("use_input_stats", "with_update" in call.operator)
        )
        numbers = record.tensors.get(call.inputs[0])
        if not of_batch or numbers is None or numbers.dim() < 2:
            continue
        wide = numbers.double().transpose(0, 1).flatten(1)
        kept = [_named(record, given.get(name), held) for name in ("running_mean", "running_var")]
        yield _beside(record, call, wide, kept)


def _named(record: Record, given: Any, held: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """The buffer that an argument was, as the module holds it."""
    return held.get(record.values[given.value].name) if isinstance(given, Ref) else None


def _beside(
    record: Record, call: Call, wide: torch.Tensor, kept: list[torch.Tensor | None]
) -> NormedBatch:
    means, variances = wide.mean(1), wide.var(1, correction=0)
    running_mean, running_variance = kept
    off = means if running_mean is None else means - running_mean.double()
    order = off.abs().argsort(descending=True)[:_CHANNELS].sort().values.tolist()

    def at(tensor: torch.Tensor | None, channel: int) -> Decimal | None:
        return None if tensor is None else decimal(float(tensor[channel]))

    shown = tuple(
        ChannelStatistics(
            channel,
            decimal(float(means[channel])),
            decimal(float(variances[channel])),
            at(running_mean, channel),
            at(running_variance, channel),
        )
        for channel in order
    )
    return NormedBatch(record.module(call).path or "the model", len(means), shown)


def state(exploration: Exploration, steps: Steps, *, row: int = 0) -> StateLedger:
    """Hashes of parameters and buffers, before and after passes and a step of learning."""
    return exploration.once("ledger", row, lambda: ledger(_batch(exploration, row)[0], steps))


_STATES: Final = ("Nothing", "The weights", "Buffers, such as running statistics", "Both")


def predictions(exploration: Exploration, steps: Steps, *, row: int = 0) -> Predictions:
    """What a pass in train mode changes."""
    if exploration.given is None:
        return Predictions(())
    return Predictions(
        (PagePrediction(
            "state", "One forward pass in train mode, under no_grad, and nothing else. What of "
            "the model does it change?", _STATES, ("ledger",),
        ),)
    )  # fmt: skip


def settle(exploration: Exploration, steps: Steps, *, row: int = 0, id: str = "state") -> Settled:
    """What of the state was other after the pass in train mode."""
    if id != "state":
        raise UsageError(f"the prediction {id!r:.40}: there is state")
    found = state(exploration, steps, row=row)
    if TRAIN not in found.moments:
        why = next(one for one in found.missing if one.startswith(TRAIN))
        raise UsageError(f"In train mode the pass raises. {why}")
    at = found.moments.index(TRAIN)
    changed = [entry for entry in found.entries if entry.changed[at]]
    weights = [entry for entry in changed if entry.kind == "parameter"]
    buffers = [entry for entry in changed if entry.kind == "buffer"]
    why = "Each parameter and each buffer has the bytes that it had."
    if weights:
        why = f"forward itself writes {weights[0].name}; a pass should only read weights."
    elif buffers:
        last = buffers[-1].name
        why = (
            f"{buffers[0].name}{f' to {last}' if len(buffers) > 1 else ''}: no gradient is needed."
        )
    learned = [entry for entry in found.entries if entry.changed[-1] and entry.kind == "parameter"]
    if found.moments[-1] == MOMENTS[-1] and learned and not weights:
        why += f" Weights change at optimizer.step(): {len(learned)} of them."
    return Settled(
        ((bool(weights) + 2 * bool(buffers)),),
        f"{len(changed)} of {len(found.entries)} tensors", why,
    )  # fmt: skip


def exported(exploration: Exploration) -> Iterator[PageQuestion]:
    """The first row in both modes."""
    yield PageQuestion("modes.predictions", {"row": 0})
    if exploration.given is not None:
        yield PageQuestion("modes.both", {"row": 0})
        yield PageQuestion("modes.state", {"row": 0})
        yield PageQuestion("modes.settle", {"row": 0, "id": "state"})


VIEW = View("modes", 6, "Modes", "Train mode or eval mode?")
ASKED = (both, state, predictions, settle)
