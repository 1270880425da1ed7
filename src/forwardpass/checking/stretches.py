"""Stretches: calls of a record that run again, one after the other, on other values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final

import torch

from forwardpass.nouns.calls import Call
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.distances import tolerance
from forwardpass.tensors.dtypes import TORCH
from forwardpass.tensors.modules import device_of, held_by

UNRUNNABLE = (RuntimeError, KeyError, NotImplementedError)
"""What a stretch raises that does not run by itself: an operator has no kernel for float64, refuses
the other numbers, or reads what was made outside of the stretch. Nothing is then claimed of it."""
_AFFINE: Final = {TORCH[name]: tolerance([name]) for name in ("f64", "f32")}
"""Residual below which a stretch is affine, by the dtype in which it is computed: the finest that
its operators have."""


class Stretch:
    """A function of one value: the calls that lead from it to another one.

    What else the calls read are values that the module holds, views of these, or constants.

    Args:
        record: has the calls, and its pass.
        calls: in the order of the pass.
        start, end: serials of the value that goes in and of the one that comes out.
        dtype: in which it is computed; floating values that the module holds are cast.
    """

    def __init__(
        self, record: Recording, calls: Sequence[Call], start: int, end: int, dtype: torch.dtype
    ) -> None:
        self._record = record
        self._calls = calls
        self._start, self._end = start, end
        self._dtype = dtype

    @cached_property
    def _held(self) -> dict[str, torch.Tensor]:
        return held_by(self._record.this.module)

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        """What comes out for `value`. Raises whatever an operator raises, KeyError for a value
        that nobody holds."""
        known = {self._start: value.to(self._dtype, copy=True)}  # which a call may write in place
        with torch.inference_mode(mode=False), torch.no_grad():
            for call in self._calls:
                self._run(call, known)
        return known[self._end]

    def _run(self, call: Call, known: dict[int, torch.Tensor]) -> None:
        args, kwargs = call.given(lambda serial: self._tensor(serial, known))
        result = self._record.operators[call.index](*args, **kwargs)
        made = [result] if isinstance(result, torch.Tensor) else list(result)
        known.update(zip(call.outputs, made, strict=False))

    def _tensor(self, serial: int, known: dict[int, torch.Tensor]) -> torch.Tensor:
        if serial not in known:
            value = self._record.values[serial]
            if value.producer >= 0 and value.origin == "call":
                self._run(self._record.calls[value.producer], known)
            else:
                found = self._held.get(value.name)
                if found is None and value.origin == "constant":
                    found = self._record.constants[serial]
                if found is None:  # what led to an orphan may be the value that goes in
                    raise KeyError(serial)
                floating = found.is_floating_point()
                known[serial] = found.detach().to(self._dtype if floating else found.dtype)
        return known[serial]


def residual(
    record: Recording,
    calls: Sequence[Call],
    start: int,
    end: int,
    *,
    shape: Sequence[int] | None = None,
    scale: float = 1.0,
) -> float | None:
    """f(a) + f(b) − f(a + b) − f(0) of a stretch, as a share of how far f moves from f(0).

    Args:
        shape: of a and b, which are random; that of the value `start` if None.
        scale: their standard deviation.

    Returns None where the stretch is not affine, or does not run by itself.
    """
    shape = record.values[start].shape if shape is None else shape
    device = device_of(record.this.module)
    drawn = torch.Generator().manual_seed(0)
    a, b = (scale * torch.randn(shape, dtype=torch.float64, generator=drawn) for _ in range(2))
    a, b = a.to(device), b.to(device)
    for dtype, most in _AFFINE.items():
        f = Stretch(record, calls, start, end, dtype)
        try:
            zero, at_a, at_b = f(torch.zeros_like(a)), f(a), f(b)
            gap = (at_a + at_b - f(a + b) - zero).abs().max().item()
        except UNRUNNABLE:
            continue
        moves = max((at_a - zero).abs().max().item(), (at_b - zero).abs().max().item())
        return gap / moves if moves and gap <= most * moves else None
    return None
