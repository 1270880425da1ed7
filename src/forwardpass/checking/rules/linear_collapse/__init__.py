"""linear-collapse: affine layers in a row compute no more than one affine layer does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from torch import nn

from forwardpass.checking.examinations import Examination, Inapplicable
from forwardpass.checking.rules.linear_collapse.collapses import (
    Between,
    One,
    Stack,
    data_of,
    features,
    hidden,
    is_own,
    one_for,
    weights,
)
from forwardpass.checking.stretches import residual
from forwardpass.errors import PassError
from forwardpass.nouns.calls import Call
from forwardpass.nouns.findings import Finding
from forwardpass.nouns.records import Layer, Need, Record
from forwardpass.probing.changes import Change
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.modules import parameters_of, parts_of

_MOST_MEASURED: Final = 4
"""Runs of layers that differ in more than their weights' values; a model of more kinds repeats what
was said of these."""
NEEDS: Final[tuple[Need, ...]] = ("edges", "numbers")
MOST_PASSES: Final = _MOST_MEASURED
"""One in train mode for all, or, where that raises, one for each."""
_CHEAPER: Final = 0.9
"""Share of the macs from which on the one layer saves too little for a warning: a product of other
sizes runs at another speed, by a tenth and more."""


def check(probe: Examination) -> Iterable[Finding]:
    """That layers in a row are one affine map, and that one layer does the same with less work.

    The stretch from the first layer's input to the last one's output is computed again on random
    values: f(a) + f(b) − f(a + b) − f(0) is zero, by rounding, for an affine map and for no other.
    A bottleneck, which the factors of a low rank are made for, costs less than the one layer: it
    is not reported.
    """
    record = probe.record
    if len(record.layers) < 2:
        raise Inapplicable("fewer than two affine layers")
    runs = [(run, _form(record, run)) for run in _runs(record)]
    alike = Counter(form for _, form in runs)
    seen: set[tuple[object, ...]] = set()
    for run, form in runs:
        if form in seen or len(seen) >= _MOST_MEASURED:
            continue
        if _is_chosen(record, run) or _is_shared(record, run):
            continue
        seen.add(form)
        one = one_for(record, run)
        share = _residual(record, run) if one is not None else None
        if one is not None and share is not None and not _parted_in_training(probe, run):
            yield _finding(probe, run, one, share, alike[form] - 1)


def _finding(probe: Examination, run: Stack, one: One, residual: float, more: int) -> Finding:
    record = probe.record
    first, last = run.layers[0], run.layers[-1]
    call = record.calls[first.affine]
    names = " → ".join(layer.module or record.calls[layer.affine].name for layer in run.layers)
    numbers = weights(record, run.layers)
    macs = sum(record.calls[layer.affine].macs or 0 for layer in run.layers)
    low_rank = hidden(record, run) < min(features(record, first)[0], features(record, last)[1])
    others = f" ({more} more like these)" if more else ""
    less = f" with {1 - one.macs / macs:.0%} fewer macs" if one.macs < macs else ""
    return probe.finding(
        "note" if low_rank or one.pools or one.macs > _CHEAPER * macs else "warning",
        f"{names}: {len(run.layers)} affine layers and no non-linearity between{others}; "
        f"f(a) + f(b) − f(a + b) − f(0) is {residual:.0e} of the scale. One layer {one.written} "
        f"does the same with {one.weights:,} weights for {numbers:,}",
        f"put a non-linearity after {first.module or 'the first'}, or make them one layer{less}",
        call=call, residual=residual, layers=len(run.layers), weights=numbers,
        weights_of_one=one.weights, macs=macs, macs_of_one=one.macs,
        last_line=str(record.site(record.calls[last.affine])),
    )  # fmt: skip


# -- which layers follow each other ---------------------------------------------------------------


def _runs(record: Recording) -> Iterator[Stack]:
    """Runs of layers of which each two, alone, would do with less work as one."""
    readers = _readers(record)
    given_out = set(record.outputs.values())
    parts = dict(parts_of(record.this.module, every_name=True))
    alone = (one for one in record.layers if _stands_alone(record, one, parts.get(one.module)))
    layers = {layer.affine: layer for layer in alone}
    others = {layer.affine for layer in record.layers} - set(layers)
    after: dict[int, tuple[int, tuple[Between, ...]]] = {}
    for index, layer in layers.items():
        gap: list[Between] = []
        serial = record.calls[index].outputs[0]
        while len(found := readers.get(serial, [])) == 1 and serial not in given_out:
            call = found[0]
            if call.index in layers:
                pair = Stack((layer, layers[call.index]), (), (tuple(gap),))
                if data_of(record, layers[call.index]) == serial and one_for(record, pair):
                    after[index] = (call.index, tuple(gap))
                break
            made = [s for s in call.outputs if s in readers or s in given_out]
            if call.index in others or len(made) != 1 or not _passes_on(record, call, serial):
                break
            gap.append(Between(call, serial, made[0]))
            serial = made[0]
    followers = {follower for follower, _ in after.values()}
    for index in after:
        if index in followers:
            continue
        run, calls, gaps = [layers[index]], [record.calls[index]], list[tuple[Between, ...]]()
        while index in after:
            index, gap_steps = after[index]
            run.append(layers[index])
            calls += [*(step.call for step in gap_steps), record.calls[index]]
            gaps.append(gap_steps)
        yield Stack(tuple(run), tuple(calls), tuple(gaps))


def _readers(record: Record) -> dict[int, list[Call]]:
    """By the serial of a value the calls that compute with it."""
    found: dict[int, list[Call]] = {}
    used = {*record.outputs.values(), *(s for call in record.calls for s in call.inputs)}
    for call in record.calls:
        if call.outputs and call.outputs[0] in call.inputs and not call.writes:
            continue  # it hands its operand through, as dropout does in eval mode
        if call.kind == "view" and not used.intersection(call.outputs):
            continue  # such a view autograd keeps
        for serial in dict.fromkeys(call.inputs):
            found.setdefault(serial, []).append(call)
    return found


def _stands_alone(record: Recording, layer: Layer, part: nn.Module | None) -> bool:
    """Whether a layer multiplies one value, and is no part of a larger layer of PyTorch, one that
    holds more than its weight and bias: the output projection of an attention belongs to it, and
    whatever may follow it."""
    if data_of(record, layer) is None:
        return False
    if part is None:
        return True
    whole = type(part).__module__.startswith("torch.nn.modules")
    return not whole or len(list(parameters_of(part))) <= 1 + bool(layer.bias)


def _passes_on(record: Record, call: Call, serial: int) -> bool:
    """Whether a call computes with this one value, and beside it with what the module holds alone;
    and writes, if anything, that value."""
    value = record.values[serial]
    return (
        call.kind in ("view", "compute", "in-place")
        and call.inputs.count(serial) == 1
        and is_own(record, [s for s in call.inputs if s != serial])
        and {value.storage}.issuperset(call.writes)
        and value.dtype.startswith(("f", "bf"))
    )


# -- the measurement ------------------------------------------------------------------------------


def _parted_in_training(probe: Examination, run: Stack) -> bool:
    """Whether in train mode something of the input comes between the first two layers, as the noise
    of a variational autoencoder does: its width is computed. Dropout brings nothing in."""
    if probe.record.mode != "eval":
        return False
    try:
        # In inference mode dropout is one operator, and not those that it is made of.
        record = probe.recording(Change(mode="train", grad="inference"), values=False)
    except PassError:
        return False
    fed = {v.serial for v in record.values if v.origin in ("input", "parameter", "buffer")}
    for call in record.calls:
        if fed.intersection(call.inputs):
            fed.update(call.outputs)
    readers = _readers(record)
    names = [layer.weight for layer in run.layers[:2]]
    serial = next(
        (record.calls[x.affine].outputs[0] for x in record.layers if x.weight == names[0]), -1
    )
    while len(found := readers.get(serial, [])) == 1:
        call = found[0]
        if any(x.affine == call.index and x.weight == names[1] for x in record.layers):
            return False
        others = [s for s in call.inputs if s != serial and s in fed]
        if not is_own(record, others) or not call.outputs or call.outputs[0] == serial:
            break
        serial = call.outputs[0]
    return True


def _is_chosen(record: Record, run: Stack) -> bool:
    """Whether Python looked at a value between the first layer and the last: what stands between
    them may be chosen by it, and be another thing for other inputs."""
    between = record.calls[run.layers[0].affine : run.layers[-1].affine]
    return any(call.kind == "host" for call in between)


def _is_shared(record: Record, run: Stack) -> bool:
    """Whether a call outside of the run computes with a weight of it, as a derivative or a layer
    that is tied to it does: one layer in place of these would not do for that."""
    names = {layer.weight for layer in run.layers}
    within = {call.index for call in run.calls}
    return any(
        names.intersection(call.parameters) and call.kind != "view" and call.index not in within
        for call in record.calls
    )


def _residual(record: Recording, run: Stack) -> float | None:
    start = data_of(record, run.layers[0])
    assert start is not None
    return residual(record, run.calls, start, record.calls[run.layers[-1].affine].outputs[0])


def _form(record: Record, run: Stack) -> tuple[object, ...]:
    """What runs that differ in their weights' values only have in common."""
    shapes = [(call.operator, record.values[call.outputs[0]].shape) for call in run.calls]
    data = data_of(record, run.layers[0])
    assert data is not None
    return record.values[data].shape, *shapes
