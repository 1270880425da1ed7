"""What comes out: the outputs of an engine, inferred from probes.

A probe repeats one real row: along the batch, and along each named axis, to a size of our choice.
Comparing the shapes of probes tells what each axis of an output is: a constant, the batch, a named
axis, or (name + offset) // divisor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from forwardpass.building.engines import Engine
from forwardpass.errors import UsageError, said
from forwardpass.nouns.signatures import DTYPES, Axis, Extent, Output, is_path
from forwardpass.tensors.arrays import Array, is_tensor, spelled
from forwardpass.tensors.blocks import Block, Numbers, concatenated

Shapes = dict[str, tuple[int, ...]]


def resized(
    block: Block, rows: Sequence[int], sizes: Mapping[str, int]
) -> dict[str, np.ndarray[Any, Any]]:
    """A batch of these rows of `block`, each repeated or cut along its axes to `sizes`."""
    each = [repeated(block, row, 1, sizes) for row in rows]
    return concatenated(each).collate([sizes[name] for name in block.signature.variable])


def repeated(block: Block, row: int, count: int, sizes: Mapping[str, int]) -> Block:
    """`count` copies of one row of `block`, repeated or cut along its axes to `sizes`."""
    values: dict[str, Numbers] = {}
    for item in block.signature.given:
        if item.path not in block.values:
            continue
        value = block.values[item.path][row]
        for place, axis in enumerate(item.row_axes):
            if axis.is_variable:
                value = _along(value, place, sizes[axis.name], item.pad or 0)
        values[item.path] = np.broadcast_to(value, (count, *value.shape))
    own = np.array([sizes[name] for name in block.signature.variable], dtype=np.int64)
    lengths = np.tile(own, (count, 1))
    return Block(block.signature, values, lengths, lengths)


def _along(value: np.ndarray[Any, Any], place: int, size: int, pad: float) -> np.ndarray[Any, Any]:
    """A row repeated or cut along an axis to a size; of a row without any, padding."""
    if not value.shape[place]:
        return np.full((*value.shape[:place], size, *value.shape[place + 1 :]), pad, value.dtype)
    return value.take(np.arange(size) % value.shape[place], place)


def probe(
    block: Block, row: int, count: int, sizes: Mapping[str, int]
) -> dict[str, np.ndarray[Any, Any]]:
    """A batch of such copies: the arrays by input path, derived inputs included."""
    own = [sizes[name] for name in block.signature.variable]
    return repeated(block, row, count, sizes).collate(own)


def infer(engine: Engine, block: Block, row: int) -> tuple[Output, ...]:
    """The outputs that hold one value a row, with every axis explained.

    `row` of `block` is a row that forward accepts. Two probes with coprime sizes tell most axes;
    those that neither is a constant nor fits one name exactly get probes of their own. Outputs
    without a batch axis, and what is no tensor, are left out. Raises UsageError where an axis
    cannot be told, saying what to declare.
    """
    return _Probing(engine, block, row).outputs()


def verify(engine: Engine, block: Block, row: int) -> None:
    """Compute one row and compare its outputs with the declared ones.

    Raises UsageError where a declared output is missing or has another shape.
    """
    assert engine.signature is not None
    sizes = dict(zip(block.signature.variable, map(int, block.sizes[row]), strict=True))
    came = engine(probe(block, row, 2, sizes))
    for output in engine.signature.outputs:
        expected, shape = output.shape(2, sizes), tuple(came[output.path].shape)
        if shape != expected:
            raise UsageError(
                f"output `{output}` is declared so, and forward returned {list(shape)} for 2 rows"
                + (f" with {sizes}" if sizes else "")
                + f", not {list(expected)}; mend the declaration, or leave it out: it is inferred"
            )


class _Probing:
    def __init__(self, engine: Engine, block: Block, row: int) -> None:
        self.engine = engine
        self.block = block
        self.row = row
        self.axes = block.signature.variable
        self.dtypes: dict[str, str] = {}
        real = dict(zip(self.axes, map(int, block.sizes[row]), strict=True))
        self.first: dict[str, int] = {}
        taken: set[int] = set()
        for name, axis in self.axes.items():
            self.first[name] = _free(axis, real[name], taken)
            taken.add(self.first[name])
        self.second = {
            name: _free(axis, self.first[name] + axis.multiple, taken, apart=self.first[name])
            for name, axis in self.axes.items()
        }
        taken |= set(self.second.values())
        self.counts = _counts(taken)

    def shapes(self, count: int, sizes: Mapping[str, int]) -> Shapes:
        try:
            outputs = self.engine(probe(self.block, self.row, count, sizes))
        except Exception as error:
            where = ", ".join(f"{name}={size}" for name, size in sizes.items())
            raise UsageError(
                f"forward raised on a probe of {count} rows{' with ' + where if where else ''}, "
                f"made to tell the axes of its outputs: {said(error)}. Narrow "
                "the axes (tokens=16..512), or declare the outputs: Model(…, outputs=[…])"
            ) from error
        for name, value in outputs.items():
            _require_deliverable(name, value)
        self.dtypes |= {name: spelled(value) for name, value in outputs.items()}
        return {name: tuple(value.shape) for name, value in outputs.items()}

    def outputs(self) -> tuple[Output, ...]:
        one = self.shapes(self.counts[0], self.first)
        two = self.shapes(self.counts[1], self.second)
        found: list[Output] = []
        for name in one:
            if name not in two or len(one[name]) != len(two[name]):
                continue
            pairs = list(zip(one[name], two[name], strict=True))
            batch = [place for place, pair in enumerate(pairs) if pair == self.counts]
            if len(batch) != 1:
                continue  # not one value a row: a loss, a cache, similarities of rows
            extents = tuple(
                Extent("batch") if place == batch[0] else self._extent(name, place, pair)
                for place, pair in enumerate(pairs)
            )
            found.append(Output(name, self.dtypes[name], extents))
        if not found:
            raise UsageError(
                "forward returned no tensor with one value a row: for a batch of "
                f"{self.counts[0]} it returned "
                + (
                    ", ".join(f"{n} {list(shape)}" for n, shape in one.items())
                    or "no tensor at all"
                )
                + "; each output needs exactly one axis as long as the batch"
            )
        return tuple(found)

    def _extent(self, name: str, place: int, pair: tuple[int, int]) -> Extent:
        exact = [a for a in self.axes if pair == (self.first[a], self.second[a])]
        if pair[0] == pair[1] and not any(
            self.first[a] == self.second[a] == pair[0] for a in exact
        ):
            return self._constant(name, place, pair[0])
        if len(exact) == 1:
            return Extent(exact[0])
        return self._strided(name, place, pair)

    def _constant(self, name: str, place: int, size: int) -> Extent:
        """A size that both probes share; a coarse stride may hide in it, so look further away."""
        far = {
            a: _free(axis, 2 * self.first[a] + 8 * axis.multiple, set())
            for a, axis in self.axes.items()
        }
        if self.axes and far != self.first:
            seen = self.shapes(1, far)[name][place]
            if seen != size:
                return self._strided(name, place, (size, size))
        return Extent(size=size)

    def _strided(self, name: str, place: int, pair: tuple[int, int]) -> Extent:
        """Which axis this one follows, and with what offset and divisor."""
        follows = [
            axis
            for axis in self.axes
            if len({self._at(name, place, axis, size) for size in self._spread(axis)}) > 1
        ]
        if len(follows) == 1:
            extent = self._fitted(name, place, follows[0])
            if extent is not None:
                return extent
        cause = (
            f"follows {' and '.join(follows)} together"
            if len(follows) > 1
            else f"is not (name + k) // d of {follows[0]}"
            if follows
            else "changes although no named axis does"
        )
        raise UsageError(
            f"output {name!r}: its axis {place} is {pair[0]} and {pair[1]} in two probes and "
            f"{cause}; declare it, for example outputs={name + ': f32[batch (tokens+1)//2]'!r}, "
            "or give collate= and uncollate="
        )

    def _spread(self, axis: str) -> list[int]:
        bounds, first = self.axes[axis], self.first[axis]
        wanted = {first, self.second[axis], _free(bounds, 2 * first + 8 * bounds.multiple, set())}
        return sorted(wanted)

    def _at(self, name: str, place: int, axis: str, size: int) -> int:
        return self.shapes(1, {**self.first, axis: size})[name][place]

    def _fitted(self, name: str, place: int, axis: str) -> Extent | None:
        """(axis + offset) // divisor, from the two places where the output grows by one."""
        bounds = self.axes[axis]
        known: dict[int, int] = {}

        def at(size: int) -> int:
            if size not in known:
                known[size] = self._at(name, place, axis, size)
            return known[size]

        for size in self._spread(axis):
            at(size)
        low, high = min(known), max(known)
        furthest = 64 * high + 4096
        while at(high) - at(low) < 2:  # too near together: go on until it has grown twice
            further = _free(bounds, 2 * high, set())
            if further <= high or further > furthest:
                return _fit(at, known, bounds)
            high = further
        if bounds.multiple > 1:
            return _fit(at, known, bounds)
        jumps: list[int] = []
        for step in (1, 2):
            a, b = (jumps[-1] if jumps else low), high
            while b - a > 1:  # the smallest size at which the output has grown by `step`
                middle = (a + b) // 2
                a, b = (a, middle) if at(middle) >= at(low) + step else (middle, b)
            jumps.append(b)
        divisor = jumps[1] - jumps[0]
        extent = Extent(axis, 0, (at(low) + 1) * divisor - jumps[0], divisor)
        fits = divisor > 0 and all(extent.of({axis: size}) == seen for size, seen in known.items())
        return extent if fits else None


def _require_deliverable(name: str, value: Array) -> None:
    """Raise UsageError for an output that is no array of numbers under a name that can be
    written."""
    what = ""
    if not is_path(name):
        what, remedy = "under that name", "names are letters, digits and _, with dots between"
    elif is_tensor(value) and value.is_nested:
        what, remedy = "as a nested tensor", "give it one shape: .to_padded_tensor(0.0)"
    elif is_tensor(value) and value.is_quantized:
        what, remedy = f"quantized, as {spelled(value)}", "return .dequantize()"
    elif is_tensor(value) and "strided" not in str(value.layout):
        what, remedy = f"in the layout {value.layout}", "return .to_dense()"
    elif spelled(value) not in DTYPES:
        what, remedy = f"as {spelled(value)}", "return it as another type, .float() or .long()"
    else:
        return
    raise UsageError(
        f"forward returns {name!r} {what}, which cannot be delivered: {remedy}; or declare the "
        "outputs that are wanted, Model(…, outputs=[…])"
    )


def _fit(at: Callable[[int], int], known: dict[int, int], bounds: Axis) -> Extent | None:
    """The (n + k) // d that fits an axis whose sizes come in multiples.

    Probes the permitted sizes on which the candidates differ, until those left agree on all of
    them; then the one of the smallest offset is as true as any.
    """
    step = bounds.multiple
    last = bounds.high if bounds.high is not None else 64 * step
    sizes = range(bounds.rounded(1), min(last, bounds.rounded(1) + 255 * step) + 1, step)
    while True:
        candidates = [
            (abs(offset), divisor, offset)
            for divisor in range(1, 8 * step + len(sizes) + 1)
            for offset in range(
                max(seen * divisor - size for size, seen in known.items()),
                min((seen + 1) * divisor - size for size, seen in known.items()),
            )
        ]
        if not candidates:
            return None
        values = np.array(
            [[(s + offset) // divisor for s in sizes] for _, divisor, offset in candidates]
        )
        differing = np.flatnonzero((values != values[0]).any(axis=0))
        if not len(differing):
            _, divisor, offset = min(candidates)
            return Extent(bounds.name, 0, offset, divisor)
        at(sizes[int(differing[len(differing) // 2])])


def _free(axis: Axis, size: int, taken: set[int], apart: int = 0) -> int:
    """A permitted size of `axis` near `size`; coprime to `apart`, and not `taken`, if possible."""
    step = axis.multiple
    top = axis.high // step * step if axis.high is not None else None
    base = axis.rounded(size if top is None else min(size, top))
    near = [base + step * k for distance in range(64) for k in (distance, -distance)]
    permitted = [s for s in near if s >= axis.rounded(1) and (top is None or s <= top)]
    free = [s for s in permitted if s not in taken and s > 1 and s != apart]
    coprime = [s for s in free if math.gcd(s, apart) == 1]
    return (coprime or free or permitted)[0]


def _counts(taken: set[int]) -> tuple[int, int]:
    """Two batch sizes that no named axis has."""
    primes = [p for p in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37) if p not in taken]
    return primes[0], primes[1]
