"""Shifts: a Profile beside an older one, figure by figure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from forwardpass.errors import DataError, UsageError
from forwardpass.nouns.documents import schema_of
from forwardpass.nouns.machines import BUSY, Machine
from forwardpass.nouns.profiles import Estimate, Passed, Profile, Shift, Shifts

_SCHEMA = "forwardpass/profile/"


class Figure(msgspec.Struct, frozen=True):
    """A number of a profile.

    Attributes:
        within: what of it nobody can tell, in its unit, whatever its interval says: a layer that
            moves by less than the noise of its pass has moved nothing that is seen.
    """

    unit: Literal["seconds", "bytes"]
    value: Estimate
    within: float


def opened(path: str | os.PathLike[str]) -> Profile:
    """The Profile in a file. Raises DataError for anything else."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return Profile.from_json(text)
    except msgspec.MsgspecError as error:
        schema = schema_of(text)
        if schema.startswith(_SCHEMA):
            said = f"{path} is {schema}, and damaged or of another version of forwardpass: {error}"
        elif schema:
            said = f"{path} is {schema}, and no profile"
        else:
            said = f"{path} holds no profile ({error})"
        raise DataError(f"{said}; `fwd profile … -o FILE` writes one") from error


def compared(before: Profile, after: Profile) -> Shifts:
    """Each figure of `after` beside that of the same Forward, batch and layer of `before`.

    Raises UsageError where the hardware is another, or what it can do: what is slower then may be
    the machine; and where they have no figure in common.
    """
    notes = list(_require_same(before, after))
    noise = 1.0
    for one, when in ((before, "older"), (after, "newer")):
        noise *= 1 + one.noise
        if one.lost_share > BUSY:  # without other work it would have taken so much less
            noise /= 1 - min(one.lost_share, _MOST_LOST)
            notes.append(
                f"for {one.lost_share:.0%} of the time of the {when} profile its threads were "
                "ready and had no core: what that may have added to seconds is no shift"
            )
    noise -= 1
    shifts: list[Shift] = []
    for one in after.passes:
        other = _counterpart(one.forward, before.passes)
        if other is None:
            notes.append(f"{one.forward}: the older profile has no such Forward")
        elif (one.device, one.dtype) != (other.device, other.dtype):
            notes.append(
                f"{one.forward}: computes in {one.dtype} on {one.device}, then in {other.dtype} on "
                f"{other.device}; not compared"
            )
        else:
            then, now = dict(_figures(other)), dict(_figures(one))
            shifts += [
                _shift(one.forward, name, then[name], now[name], noise)
                for name in now
                if name in then
            ]
            notes += _lone(one.forward, then, now)
    if not shifts:
        then, now = (", ".join(p.forward for p in one.passes) for one in (before, after))
        raise UsageError(
            f"no figure of {now} stands in the older profile, of {then}: profile the same "
            "Forwards, in the same batches"
        )
    return Shifts(shifts=tuple(shifts), noise=noise, notes=tuple(notes))


def _counterpart(forward: str, passes: Sequence[Passed]) -> Passed | None:
    """The same Forward; one of a file may stand in another folder: a checkout elsewhere."""
    same = [one for one in passes if one.forward == forward]
    moved = [one for one in passes if _within_folder(one.forward) == _within_folder(forward)]
    return next(iter(same or (moved if len(moved) == 1 else [])), None)


def _within_folder(forward: str) -> str:
    return forward.rpartition(os.sep)[2] if os.path.isabs(forward) else forward


def _require_same(before: Profile, after: Profile) -> Iterator[str]:
    """What differs besides hardware, which may not differ."""
    if _hardware(before.machine) != _hardware(after.machine):
        raise UsageError(
            f"the older profile is of another machine ({before.machine}), and this is "
            f"{after.machine}: their figures tell of the machines; profile both on one"
        )
    for name in ("os", "python", "library", "threads"):
        then, now = getattr(before.machine, name), getattr(after.machine, name)
        if then != now:
            yield f"{name}: {now}, then {then}"
    known = after.limits.matmul_flops_per_second
    busy = max(before.limits.lost_share, after.limits.lost_share)
    for dtype, then in before.limits.matmul_flops_per_second.items():
        now = known.get(dtype, then)
        if 1 / _SAME_LIMITS < now / then < _SAME_LIMITS:
            continue
        if busy > BUSY:
            yield (
                f"this machine multiplied {dtype} {now / then:.2f} × as fast as when the older "
                f"profile was made, but other work had the cores for {busy:.0%} of that time: it "
                "may be as quick as it was"
            )
        else:
            raise UsageError(
                f"this machine multiplies {dtype} {now / then:.2f} × as fast as when the older "
                "profile was made: what moved since may be the machine (its clock rate, its "
                "neighbours); profile anew when it is as it was"
            )


_MOST_LOST = 0.99
_SAME_LIMITS = 1.25
"""Limits are the best of several and differ little from one measurement to the next."""


def _hardware(machine: Machine) -> tuple[object, ...]:
    return machine.cpu, machine.instructions, machine.cores, machine.devices


def _figures(one: Passed) -> Iterator[tuple[str, Figure]]:
    """The numbers of a pass by name; figures of one name are of the same batch and layer."""
    for curve in one.curves:
        for point in curve.points:
            threads = f", {point.threads} threads" if curve.along == "threads" else ""
            name = f"{_batch(point.rows, point.sizes)}{threads}"
            yield name, Figure("seconds", point.seconds, 0.0)
    for parts in one.parts:
        batch = _batch(parts.rows, parts.sizes)
        within = parts.noise * parts.whole.median
        for layer in parts.layers:
            name = f"{batch}: {layer.path or 'the module itself'} ({layer.kind})"
            yield name, Figure("seconds", layer.seconds, within)
    if one.memory is not None and one.memory.live_bytes:
        peak = float(one.memory.peak_bytes)
        name = f"{_batch(one.memory.rows, one.memory.sizes)}: peak of memory"
        yield name, Figure("bytes", Estimate(peak, peak, peak), 0.0)


def _batch(rows: int, sizes: Mapping[str, int]) -> str:
    along = "".join(f", {name} {size}" for name, size in sorted(sizes.items()))
    return f"batch {rows}{along}"


def _shift(forward: str, name: str, before: Figure, after: Figure, noise: float) -> Shift:
    return Shift(
        forward=forward,
        name=name,
        unit=after.unit,
        before=before.value,
        after=after.value,
        ratio=after.value.over(before.value),
        verdict=(
            "worse" if _beyond(after, before, noise)
            else "better" if _beyond(before, after, noise)
            else "alike"
        ),
    )  # fmt: skip


def _beyond(one: Figure, other: Figure, noise: float) -> bool:
    """Whether `one` is larger whatever both intervals allow, by more than noise."""
    floor = other.value.high * (1 + noise) if one.unit == "seconds" else other.value.high
    return one.value.low > floor and one.value.low - other.value.high > max(
        one.within, other.within
    )


def _lone(forward: str, before: Mapping[str, Figure], after: Mapping[str, Figure]) -> Iterator[str]:
    for fewer, more, where in ((before, after, "then"), (after, before, "now")):
        lone = [name for name in more if name not in fewer]
        if lone:
            rest = f" and {len(lone) - 3:,} more" if len(lone) > 3 else ""
            yield f"{forward}: not measured {where}: {'; '.join(lone[:3])}{rest}"
