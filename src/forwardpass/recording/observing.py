"""What is looked at while the pass runs: statistics of its values, and the values themselves."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from math import isfinite

import numpy as np
import torch

from forwardpass.errors import UsageError
from forwardpass.keeping.memories import is_strided
from forwardpass.nouns.calls import Statistics
from forwardpass.operators import kinds
from forwardpass.recording.schemas import schema_of
from forwardpass.recording.tracing import Tracer

_CANCELS = 1e-2
"""A variance below this share of the mean square has lost digits in float32."""
_TINY = 1e-30
_NUMPY = frozenset({torch.float32, torch.float64, torch.float16})
_array = torch.Tensor.numpy
"""As it is outside of a recording, which notes each use of it as a trip to the host."""
_CHUNK = 1 << 16
"""Numbers compared at a time: a larger array of answers would be new memory each time."""
Reading = torch.Tensor | float


class Watching:
    """Observes a pass: computes statistics of floating values, keeps chosen values.

    Statistics are computed where the values are; nothing waits for a device during the pass.

    Args:
        statistics: whether to compute statistics.
        keep: "all", or globs of module paths whose values are kept; None for none.
        limit_bytes: values are kept while they fit.
        called: is told how many calls are made, from 0 on; what it raises ends the pass.
    """

    def __init__(
        self,
        statistics: bool,
        keep: str | Sequence[str] | None,
        limit_bytes: int | None,
        called: Callable[[int], None] | None = None,
    ) -> None:
        self.tracer: Tracer | None = None
        self.kept: dict[int, torch.Tensor] = {}
        self.too_large = 0
        self.unfit = 0
        self._statistics = statistics
        self._globs = _globs(keep)
        self._room = limit_bytes
        self._called = called
        self._measured: dict[int, tuple[Reading, ...]] = {}
        self._sizes: dict[int, int] = {}

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to look at."""
        return self._statistics or bool(self._globs) or self._called is not None

    def given(self, tracer: Tracer, named: dict[str, torch.Tensor]) -> None:
        """Look at the inputs, before the pass that `tracer` sees."""
        self.tracer = tracer
        if self._called is not None:
            self._called(0)
        for path, tensor in named.items():
            self._look(tracer.inputs[path], tensor, whole="*" in self._globs)

    def __call__(self, index: int, made: list[torch.Tensor], serials: tuple[int, ...]) -> None:
        assert self.tracer is not None
        if self._called is not None:
            self._called(index + 1)
        whole = bool(self._globs) and self._wanted(self.tracer)
        if self._statistics:
            self._carry_over(self.tracer, index)
        for serial, tensor in zip(serials, made, strict=True):
            self._look(serial, tensor, whole)

    def _carry_over(self, tracer: Tracer, index: int) -> None:
        """What only rearranges or copies numbers has the statistics of its operand."""
        call = tracer.calls[index]
        if len(call.outputs) != 1 or not kinds.keeps_numbers(schema_of(call.operator).packet):
            return
        before, after = call.inputs[0], call.outputs[0]
        old, new = tracer.values[before], tracer.values[after]
        unwritten = old.storage != new.storage or old.version == new.version
        if before in self._measured and unwritten and old.meta[1] == new.meta[1]:
            self._measured[after] = self._measured[before]
            self._sizes[after] = self._sizes[before]

    def _wanted(self, tracer: Tracer) -> bool:
        path = tracer.modules[tracer.current].path
        return any(fnmatch.fnmatchcase(path, glob) for glob in self._globs)

    def _look(self, serial: int, tensor: torch.Tensor, whole: bool) -> None:
        # Forward-mode derivatives pass zeros around for which there is no memory.
        if tensor.device.type == "meta" or tensor._is_zerotensor():
            return
        if self._statistics and serial not in self._measured and _has_statistics(tensor):
            self._measured[serial] = _measured(tensor.detach())
            self._sizes[serial] = tensor.numel()
        if whole and serial not in self.kept:
            if not _can_be_kept(tensor):
                self.unfit += 1
                return
            if self._room is not None and tensor.nbytes > self._room:
                self.too_large += 1
                return
            if self._room is not None:
                self._room -= tensor.nbytes
            self.kept[serial] = tensor.detach().resolve_conj().resolve_neg().clone()

    def notes(self) -> tuple[str, ...]:
        """Which values were not kept, and why."""
        found: list[str] = []
        if self.too_large:
            found.append(f"{self.too_large} values did not fit into value_bytes: not kept")
        if self.unfit:
            found.append(f"{self.unfit} values were sparse, nested, quantized or c128: not kept")
        return tuple(found)

    def statistics(self) -> dict[int, Statistics]:
        """The statistics of every floating value, by serial."""
        return {
            serial: _read(parts, self._sizes[serial]) for serial, parts in self._measured.items()
        }


def _globs(keep: str | Sequence[str] | None) -> tuple[str, ...]:
    if keep is None:
        return ()
    if isinstance(keep, str):
        return ("*",) if keep == "all" else (keep,)
    if all(isinstance(glob, str) for glob in keep):  # pyright: ignore[reportUnnecessaryIsInstance]
        return tuple(keep)
    raise UsageError(f'record(values=…) takes "all" or globs of module paths, not {keep!r}')


def _can_be_kept(tensor: torch.Tensor) -> bool:
    """Values are kept as safetensors has them: strided, neither quantized nor complex128."""
    if not is_strided(tensor) or tensor.is_quantized:
        return False
    return tensor.dtype != torch.complex128


def _has_statistics(tensor: torch.Tensor) -> bool:
    wide = tensor.is_floating_point() and tensor.dtype.itemsize > 1  # nothing computes in float8
    return is_strided(tensor) and wide and tensor.numel() > 0


def _measured(tensor: torch.Tensor) -> tuple[Reading, ...]:
    """Minimum, maximum, mean, variance, count of non-zeros; where the numbers are not all finite,
    the same of those that are, and the counts of the others.

    In host memory these are floats at once; on a device nothing waits, and tensors are read later.
    """
    if tensor.device.type == "cpu":
        flat = _flat(tensor)
        low, high = (value.item() for value in torch.aminmax(flat))
        if isfinite(low) and isfinite(high):
            return low, high, *_moments(flat, low, high), _filled(flat, low, high)
    nan, inf = tensor.isnan(), tensor.isinf()
    good = ~(nan | inf)
    count = good.sum().double().clamp(min=1)
    finite = torch.where(good, tensor, 0).double()
    mean = finite.sum() / count
    variance = torch.where(good, (finite - mean).square(), 0).sum() / count
    least = torch.where(good, tensor, torch.inf).amin()
    most = torch.where(good, tensor, -torch.inf).amax()
    return least, most, mean, variance, torch.count_nonzero(tensor), nan.sum(), inf.sum()


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers in one dimension, in whatever order they lie in memory; a copy if they are
    scattered."""
    strides = tensor.stride()
    if not tensor.is_contiguous():
        tensor = tensor.permute(sorted(range(tensor.dim()), key=lambda dim: -strides[dim]))
    return tensor.resolve_neg().reshape(-1)


def _filled(flat: torch.Tensor, low: float, high: float) -> int:
    """The count of numbers other than zero."""
    if low > 0 or high < 0:
        return flat.numel()
    if flat.dtype in _NUMPY:  # which compares and counts four times as fast as count_nonzero
        numbers = _array(flat)
        parts = (numbers[start : start + _CHUNK] for start in range(0, len(numbers), _CHUNK))
        return len(numbers) - sum(int(np.count_nonzero(part == 0)) for part in parts)
    return int(torch.count_nonzero(flat).item())


def _moments(flat: torch.Tensor, low: float, high: float) -> tuple[float, float]:
    """Mean and variance. By the sum of squares, which is one fast pass, and where that cancels or
    overflows, in float64."""
    if low == high:
        return low, 0.0
    if flat.dtype == torch.float32:
        mean = flat.sum().item() / flat.numel()
        square = torch.dot(flat, flat).item() / flat.numel()
        variance = square - mean * mean
        if isfinite(variance) and variance > _CANCELS * square and square > _TINY:
            return mean, variance
    spread, middle = torch.var_mean(flat.double(), correction=0)
    return middle.item(), spread.item()


def _read(parts: Sequence[Reading], count: int) -> Statistics:
    low, high, mean, variance, filled, *others = [float(part) for part in parts]
    nan, inf = (int(others[0]), int(others[1])) if others else (0, 0)
    if nan + inf == count:
        return Statistics(None, None, None, None, 0.0, nan, inf)
    return Statistics(low, high, mean, variance**0.5, (count - filled) / count, nan, inf)
