"""io-mismatch: what goes in and comes out fits the signature, and the range the model knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import permutations
from typing import Final

import msgspec
import torch

from forwardpass.checking.examinations import Examination, Inapplicable
from forwardpass.checking.rules.io_mismatch.ranges import fitted, normalised
from forwardpass.checking.uses import Span
from forwardpass.nouns.calls import Call
from forwardpass.nouns.findings import Finding
from forwardpass.nouns.plans import Plan
from forwardpass.nouns.records import Need
from forwardpass.nouns.signatures import Input, Signature
from forwardpass.tensors.dtypes import TORCH

NEEDS: Final[tuple[Need, ...]] = ()
MOST_PASSES: Final = 1
"""None where nothing is suspicious; else the pass with its values, which other rules share."""

_MOST_AXES = 6
"""Axes whose orders are tried: 6 have 720."""


def check(probe: Examination) -> Iterable[Finding]:
    """That dtypes, axes and ranges are those that the model was made for.

    Dtypes, sizes and axis order are held against the signature. The range is held against what the
    model itself carries: the running statistics of its first BatchNorm, once they have settled, and
    the mean and scale by which it standardises an input; in a script also against what it gave the
    model where that learned. Beyond ten times the spread, or less than
    a fiftieth of it, the numbers are in another unit.
    """
    signature = probe.signature
    found = list(_ranges(probe)) or list(_between_lines(probe))
    if signature is not None:
        inputs = list(_inputs(probe, signature))
        found += inputs
        if not any(finding.severity == "error" for finding in inputs):
            found += _outputs(probe, signature)
    elif not found and not _has_range(probe):
        raise Inapplicable("no signature, and no settled BatchNorm or scaling to tell the range by")
    return found


def _has_range(probe: Examination) -> bool:
    if fitted(probe) is not None or _learned(probe):
        return True
    return any(True for _ in normalised(probe))


# Ranges


def _ranges(probe: Examination) -> Iterator[Finding]:
    found = fitted(probe)
    if found is not None and found.is_off:
        yield probe.finding(
            "error",
            f"what reaches the first BatchNorm has {found.spread:.3g} × the spread of its running "
            f"statistics, and is off by {found.shift:.3g} spreads (inputs: {_range(probe)})",
            "give inputs in the unit of the training data (0 to 1 or 0 to 255, mean and scale)",
            call=found.call, spread=found.spread, shift=found.shift, channels=found.channels,
        )  # fmt: skip
    for scaled in normalised(probe):
        if scaled.is_off:
            yield probe.finding(
                "error",
                f"standardised, {scaled.path} has mean {scaled.mean:.3g} and spread "
                f"{scaled.spread:.3g} in place of 0 and 1: it comes in another unit "
                f"({_range(probe)})",
                "give it in the unit of the mean and scale that it is standardised by",
                call=scaled.call, mean=scaled.mean, spread=scaled.spread, input=scaled.path,
            )  # fmt: skip


def _learned(probe: Examination) -> dict[str, Span]:
    """The ranges of the inputs at the lines of the script where the model learned, by path."""
    given: dict[str, list[Span]] = {}
    for line in probe.lines:
        for path, span in line.spans.items() if line.learned else ():
            if not span.is_empty:
                given.setdefault(path, []).append(span)
    return {path: Span.joined(spans) for path, spans in given.items()}


def _between_lines(probe: Examination) -> Iterator[Finding]:
    """Lines of the script that give, in the setting of this pass, another unit than those where the
    model learned."""
    learned = _learned(probe)
    for line in probe.lines:
        for path, span in line.spans.items():
            seen = learned.get(path)
            if seen is None or span.is_empty or line.learned or not line.is_like(probe.record):
                continue
            times = span.times(seen)
            if times == 1.0 or not seen.floating:
                continue
            finding = probe.finding(
                "warning",
                f"{path} is {span} here, and {seen} where the model learned: {times:.3g} × the "
                "spread, so it comes in another unit",
                "give inputs in the unit of the training data (0 to 1 or 0 to 255, mean and scale)",
                spread=times, input=path,
            )  # fmt: skip
            yield msgspec.structs.replace(finding, site=line.site)


def _range(probe: Examination) -> str:
    """Least and greatest number of each input, for people."""
    found = [
        f"{path} {float(tensor.min()):.3g} to {float(tensor.max()):.3g}"
        for path, tensor in probe.inputs.items()
        if tensor.numel() and not tensor.is_complex() and not tensor.is_nested
    ]
    return ", ".join(found[:4])


# The signature


def _inputs(probe: Examination, signature: Signature) -> Iterator[Finding]:
    sizes: dict[str, tuple[int, str]] = {}
    for item in signature.inputs:
        tensor = probe.inputs.get(item.path)
        if tensor is None:
            continue
        reader = _reader(probe, item.path)
        yield from _dtype(probe, item, tensor, reader)
        came = tuple(tensor.shape)
        if (why := _misfit(item, came)) is not None:
            order = _order(item, came)
            remedy = (
                f"permute{order} it: its axes stand in another order" if order
                else f"give it as {item}"
            )  # fmt: skip
            said = f"{item.path} has shape {_shape(came)}, declared `{item}`: {why}"
            yield probe.finding("error", said, remedy, call=reader, input=item.path)
            continue
        for axis, size in zip(item.axes, came, strict=True):
            if not axis.name:
                continue
            known, by = sizes.setdefault(axis.name, (size, item.path))
            if known != size:
                yield probe.finding(
                    "error",
                    f"`{axis.name}` is {known} in {by} and {size} in {item.path}: one is spread "
                    "over the other, or its axes stand in another order",
                    "give both the same rows and cells, in the declared order",
                    call=reader, input=item.path,
                )  # fmt: skip


def _dtype(
    probe: Examination, item: Input, tensor: torch.Tensor, reader: Call | None
) -> Iterator[Finding]:
    declared = TORCH[item.dtype]
    if tensor.dtype == declared:
        return
    came = str(tensor.dtype).removeprefix("torch.")
    kinds = {_kind(declared), _kind(tensor.dtype)}
    yield probe.finding(
        "error" if kinds == {"whole", "floating"} else "warning",
        f"{item.path} is {came}, declared `{item.dtype}`",
        f"give it as {item.dtype}: the model computes other numbers, or slower, with {came}",
        call=reader, input=item.path,
    )  # fmt: skip


def _kind(dtype: torch.dtype) -> str:
    if dtype == torch.bool:
        return "bool"
    if dtype.is_complex:
        return "complex"
    return "floating" if dtype.is_floating_point else "whole"


def _misfit(item: Input, came: Sequence[int]) -> str | None:
    """Why a shape does not fit; None where it does."""
    if len(came) != len(item.axes):
        return f"it has {len(came)} axes in place of {len(item.axes)}"
    for place, (axis, size) in enumerate(zip(item.axes, came, strict=True)):
        if axis.size and size != axis.size:
            return f"axis {place} has {size} in place of {axis.size}"
        if axis.is_variable and (size < axis.low or size > (axis.high or size)):
            return f"`{axis}` does not permit {size}"
        if axis.is_variable and size % axis.multiple:
            return f"`{axis}` does not permit {size}"
    return None


def _order(item: Input, came: Sequence[int]) -> str:
    """The order of axes in which a shape would fit, "" where there is none."""
    if len(came) != len(item.axes) or len(came) > _MOST_AXES:
        return ""
    if not any(axis.size and axis.size != size for axis, size in zip(item.axes, came, strict=True)):
        return ""  # what varies says nothing of order
    for order in permutations(range(len(came))):
        if _misfit(item, [came[place] for place in order]) is None:
            return str(order)
    return ""


def _outputs(probe: Examination, signature: Signature) -> Iterator[Finding]:
    record = probe.record
    sizes = {
        axis.name: size
        for item in signature.inputs
        if item.path in probe.inputs
        for axis, size in zip(item.axes, probe.inputs[item.path].shape, strict=True)
        if axis.name
    }
    for output in signature.outputs:
        serial = record.outputs.get(output.path)
        if serial is None:
            came = ", ".join(record.outputs) or "nothing"
            yield probe.finding(
                "error", f"`{output.path}` is declared, and {came} came out",
                "declare the outputs by the paths they have", output=output.path,
            )  # fmt: skip
            continue
        value = record.values[serial]
        maker = record.graph.maker(serial)
        expected = output.shape(probe.rows, sizes)
        if value.shape != expected:
            yield probe.finding(
                "error",
                f"{output.path} has shape {_shape(value.shape)}, by `{output}` it would have "
                f"{_shape(expected)}",
                "declare what comes out, or return what is declared", call=maker,
                output=output.path,
            )  # fmt: skip
        elif value.dtype != output.dtype and probe.forward.plan == Plan():
            yield probe.finding(
                "warning", f"{output.path} is {value.dtype}, declared `{output.dtype}`",
                "declare what comes out, or cast it at the end of forward", call=maker,
                output=output.path,
            )  # fmt: skip


def _reader(probe: Examination, path: str) -> Call | None:
    """The first call that reads an input."""
    readers = probe.record.graph.readers(probe.record.inputs.get(path, -1))
    return next(iter(readers), None)


def _shape(shape: Sequence[int]) -> str:
    return f"[{' '.join(map(str, shape))}]"
