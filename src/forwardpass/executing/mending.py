"""Forms of inputs, changed into what a layer wants that could not take what came."""

from __future__ import annotations

from collections.abc import Mapping

from forwardpass.executing.following import Unmet
from forwardpass.executing.forms import (
    ROWS,
    Forms,
    Sizes,
    fixed,
    form_of,
    moved_batch,
    of_dtype,
    shape_of,
)  # fmt: skip
from forwardpass.nouns.signatures import Input
from forwardpass.tensors.dtypes import TORCH

_PLAINEST = {"i64": 1, "bool": 2}
"""Axes that whole numbers and masks begin with; floats begin with two, and keep what they have."""


def mended(forms: Forms, sizes: Sizes, unmet: Unmet, more: Mapping[str, int]) -> Forms | None:
    """The forms with what the layer wants of dtype, axes or sizes; None where none is to change.

    `more` says how many axes each input has beyond the plainest form.
    """
    mine = {path: form for path, form in forms.items() if path in unmet.sources}
    if _is_of_another_dtype(mine, unmet):
        changed = _of_dtype(mine, unmet, more)
    elif _missing(unmet):
        changed = {
            path: form_of(path, form.dtype, len(form.axes) + _missing(unmet))
            for path, form in mine.items()
            if len(form.axes) == len(unmet.shape) or len(mine) == 1
        }
    elif _batch_elsewhere(unmet):
        changed = {
            path: moved_batch(form, unmet.want.batch or 0)
            for path, form in mine.items()
            if len(form.axes) == len(unmet.shape)
        }
    else:
        wrong = misfit(unmet)
        changed = {} if wrong is None else _resized(mine, sizes, unmet, *wrong)
    if not changed or not all(form.axes for form in changed.values()):
        return None
    return {**forms, **changed}


def misfit(unmet: Unmet) -> tuple[int, int] | None:
    """The place of an axis, and the size that the layer wants there, if only that is wrong."""
    if _missing(unmet) or _batch_elsewhere(unmet):
        return None
    for place, size in unmet.want.sizes.items():
        if unmet.shape[place] != size:
            return place, size
    return None


def said(unmet: Unmet) -> str:
    """What the layer wants, and what it got."""
    want = unmet.want
    sizes = ", ".join(f"{size} along axis {place}" for place, size in want.sizes.items())
    rank = f"{want.rank} axes" if want.rank else ""
    parts = ", ".join(part for part in (want.dtype, rank, sizes) if part)
    return f"{parts or 'another form'}, and got {list(unmet.shape)}"


def _is_of_another_dtype(mine: Forms, unmet: Unmet) -> bool:
    floating = any(TORCH[form.dtype].is_floating_point for form in mine.values())
    rows = unmet.want.below is not None and floating  # made whole by forward: `table[x.long()]`
    return rows or bool(unmet.want.dtype and unmet.dtype != unmet.want.dtype)


def _of_dtype(mine: Forms, unmet: Unmet, more: Mapping[str, int]) -> dict[str, Input]:
    dtype = unmet.want.dtype
    axes = _PLAINEST.get(dtype, 0)
    meant = {path: form for path, form in mine.items() if form.dtype == unmet.dtype} or mine
    return {
        path: of_dtype(form, dtype, axes and axes + more.get(path, 0))
        for path, form in meant.items()
        if form.dtype != dtype
    }


def _missing(unmet: Unmet) -> int:
    """How many axes the tensor lacks, or has too many."""
    came, want = len(unmet.shape), unmet.want
    beyond = max((-place - came for place in want.sizes), default=0)
    return beyond if beyond > 0 else want.rank - came if want.rank else 0


def _batch_elsewhere(unmet: Unmet) -> bool:
    place = unmet.want.batch
    return place is not None and ROWS in unmet.shape and unmet.shape[place] != ROWS


def _resized(mine: Forms, sizes: Sizes, unmet: Unmet, place: int, size: int) -> dict[str, Input]:
    """The inputs with `size` where the layer has the axis `place`; empty where none has it."""
    came = unmet.shape[place]
    changed: dict[str, Input] = {}
    for path, form in mine.items():
        shape = shape_of(form, ROWS, sizes)
        at = [i for i, n in enumerate(shape) if n == came and not form.axes[i].is_batch]
        near = len(shape) + (place if place < 0 else place - len(unmet.shape))
        if near in at:
            at = [near]  # several have that size: the same place
        if at:
            changed[path] = fixed(form, at[-1], size)
    if changed:
        return changed
    last = [shape_of(form, ROWS, sizes)[-1] for form in mine.values() if len(form.axes) > 1]
    if len(last) > 1 and sum(last) == came and size % len(last) == 0:  # put together by cat
        return {path: fixed(form, -1, size // len(last)) for path, form in mine.items()}
    if all(len(form.axes) == 1 for form in mine.values()):
        return {path: form_of(path, form.dtype, 2) for path, form in mine.items()}
    return {}
