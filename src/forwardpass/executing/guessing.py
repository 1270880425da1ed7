"""A guess at what a module takes, where nobody says: tried, and said to be guessed.

Each argument begins as a small tensor whose axes have sizes of their own. Passes run until one
goes through: the first layer that cannot take what reached it says what it wants, and the size of
the axis there tells which axis of which argument is meant. Sizes that an argument has only after
other layers (a flattened picture) are found by bisection.
"""

from __future__ import annotations

import io
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from forwardpass.errors import UsageError
from forwardpass.executing.examples import random
from forwardpass.executing.wanting import Met, Unmet, Want, Watch, bounds, staged, taken
from forwardpass.loading.calling import arguments, required
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.signatures import Axis, Input, Signature
from forwardpass.tensors.dtypes import TORCH
from forwardpass.tensors.trees import flatten

_ROWS = 5
_PRIMES = (17, 19, 23, 29)
"""Sizes of the axes of which nothing is known: which one reached a layer, its size tells."""
_SIZES = (32, 64, 28, 128, 224, 256)
"""Sizes of pictures that are tried where a pass fails and no layer says why."""
_DRAWN = 16
"""The size that examples have, with which every guess is tried."""
_OTHERS = (48, 64, 32, 80)
"""Other sizes that must go through if axes are said to vary, and apart from each other."""
_LARGEST = 1024
_CELLS = 2**22
"""Elements that an input has at most: more would take memory."""
_PASSES = 120
_LEAK = 1e-3
"""What a row may move by rounding when it is computed alone, as a share of its scale."""

Forms = Mapping[str, Input]
Sizes = Mapping[str, int]


@dataclass
class _Outcome:
    """What became of a pass: outputs, a layer that cannot take its input, or an error."""

    outputs: Mapping[str, torch.Tensor] | None = None
    unmet: Unmet | None = None
    error: Exception | None = None
    watch: Watch | None = None


class _Spent(Exception):
    """The passes that a guess may take are used up."""


def guess(forward: Forward) -> Signature:
    """A signature with which passes through the module of `forward` went, found by trying.

    The module is left as it was; what it prints and warns of meanwhile is dropped. Raises
    UsageError with the line to write, where no pass goes through.
    """
    module = forward.model.module
    try:
        paths = _wanted(module)
    except (TypeError, ValueError):
        paths = []
    if not paths or any(is_lazy(p) for p in nn.Module.parameters(module)):
        raise _unknown(forward, paths, None)
    search = _Search(module, paths)
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = search.found()
    if found is None:
        raise _unknown(forward, paths, search.furthest)
    return found


def _wanted(module: nn.Module) -> list[str]:
    """The arguments to guess: those that forward cannot do without, else the main one."""
    needed = required(module)
    names, _ = arguments(module)
    main = getattr(module, "main_input_name", None)  # transformers
    if not needed and names:
        needed = [main] if main in names else names[:1]
    return needed or ["0"]


def _unknown(forward: Forward, paths: list[str], furthest: str | None) -> UsageError:
    lines = " ".join(f'--signature "{path}: f32[batch …]"' for path in paths or ["NAME"])
    why = "" if furthest is None else f" (what came furthest: {furthest})"
    return UsageError(
        f"{forward.model.name} has no signature, and what {type(forward.model.module).__name__}."
        f"forward({', '.join(paths)}) takes could not be guessed{why}. Say it, with the dtype and "
        f"the axes of each input: {lines}; in Python Model(module, inputs=[…]). Or give "
        "--inputs FILE (.npz, .safetensors), or --data SOURCE"
    )


class _Search:
    """Passes through a module with one form of its inputs after the other."""

    def __init__(self, module: nn.Module, paths: list[str]) -> None:
        self.furthest: str | None = None
        self._layers = -1
        self._module = module
        self._paths = paths
        self._left = _PASSES
        size = getattr(getattr(module, "config", None), "image_size", None)
        self._sizes = (size, *_SIZES) if isinstance(size, int) else _SIZES

    def found(self) -> Signature | None:
        """The first form that goes through with rows that do not meet; else the first at all."""
        through: list[Signature] = []
        try:
            for forms in self._starts():
                done = self._refined(forms)
                if done is None:
                    continue
                signature, apart = done
                if apart:
                    return signature
                through.append(signature)
                if len(through) == len(_PRIMES):
                    break
        except _Spent:
            pass
        return through[0] if through else None

    # -- one pass --------------------------------------------------------------------------------

    def _tried(self, forms: Forms, sizes: Sizes, *, watched: bool = True, rows: int = _ROWS,
               values: Mapping[str, torch.Tensor] | None = None) -> _Outcome:  # fmt: skip
        if self._left <= 0:
            raise _Spent
        self._left -= 1
        if any(math.prod(_shape(form, rows, sizes)) > _CELLS for form in forms.values()):
            return _Outcome()
        values = values or {path: _zeros(form, rows, sizes) for path, form in forms.items()}
        done = _Outcome()
        watch: Watch | None = None
        try:
            with staged(self._module, values) as (inputs, passed):
                watch = Watch(inputs, rows) if watched else None
                with watch or nullcontext():
                    if watch is not None:
                        watch.called(self._module, tuple(inputs.values()))
                    done.outputs = flatten(passed())
        except Unmet as unmet:
            done.unmet = unmet
            self._missed(forms, watch, f"a layer wants {_said(unmet)}")
        except Exception as error:  # noqa: BLE001 - the module's own, of any kind: not this form
            done.error = error
            said = str(error).strip().splitlines()
            self._missed(forms, watch, f"{type(error).__name__}: {said[0] if said else ''}")
        done.watch = watch
        return done

    def _missed(self, forms: Forms, watch: Watch | None, why: str) -> None:
        """Remember why a pass did not go through, if none came further."""
        layers = 0 if watch is None else len(watch.met)
        if self.furthest is None or layers > self._layers:
            self.furthest, self._layers = f"{_listed(forms)}: {why}", layers

    # -- forms -----------------------------------------------------------------------------------

    def _starts(self) -> Iterator[Forms]:
        """Forms to begin with: the plainest first, then others with more or fewer axes."""
        offsets = sorted(
            itertools.product((0, 1, 2, -1, 3), repeat=min(len(self._paths), 3)),
            key=lambda offset: (sum(map(abs, offset)), [o < 0 for o in offset]),
        )
        for offset in offsets[:24]:
            self._offsets = dict.fromkeys(self._paths, 0)
            self._offsets.update(zip(self._paths, offset, strict=False))
            yield {path: _form(path, "f32", 2 + more) for path, more in self._offsets.items()}
        self._offsets = dict.fromkeys(self._paths, 0)
        for want in self._first():
            form = _form(self._paths[0], want.dtype or "f32", want.rank or 2)
            for place, size in want.sizes.items():
                form = _fixed(form, place, size)
            yield {path: _form(path, "f32", 2) for path in self._paths} | {self._paths[0]: form}

    def _first(self) -> Iterator[Want]:
        """What the layers take that stand first in the module."""
        layers = (taken(part) for part in nn.Module.modules(self._module))
        yield from itertools.islice((want for want in layers if want is not None), 2)

    def _refined(self, forms: Forms) -> tuple[Signature, bool] | None:
        """Run and mend until a pass goes through. None where it does not."""
        seen: set[str] = set()
        while _listed(forms) not in seen:
            seen.add(_listed(forms))
            sizes = _apart(forms)
            done = self._tried(forms, sizes)
            if done.outputs is not None:
                return self._settled(forms, sizes, done)
            if done.unmet is None:
                return self._sized(forms)
            mended = self._mended(forms, sizes, done.unmet)
            if mended is None:
                return None
            forms = mended
        return None

    def _sized(self, forms: Forms) -> tuple[Signature, bool] | None:
        """The same form with one size for all its free axes: squares, multiples of two."""
        free = Signature(tuple(forms.values())).variable
        if len(free) < 2:
            return None
        pictures = any(len(form.axes) > 3 for form in forms.values())
        for size in self._sizes if pictures else _SIZES[:1]:
            sizes = dict.fromkeys(free, size)
            done = self._tried(forms, sizes)
            while done.unmet is not None:
                mended = self._mended(forms, sizes, done.unmet)
                if mended is None:
                    return None
                forms = mended
                done = self._tried(forms, sizes)
            if done.outputs is not None:
                return self._settled(forms, sizes, done)
        return None

    def _mended(self, forms: Forms, sizes: Sizes, unmet: Unmet) -> Forms | None:
        """The forms with what a layer wants; None where it cannot be had."""
        want, shape = unmet.want, unmet.shape
        mine = {path: form for path, form in forms.items() if path in unmet.sources}
        other = {path: form for path, form in mine.items() if form.dtype == unmet.dtype} or mine
        whole = want.dtype == "i64"
        if (want.dtype and unmet.dtype != want.dtype) or (want.below is not None and any(
            TORCH[form.dtype].is_floating_point for form in mine.values())):  # fmt: skip
            rank = {"i64": 1, "bool": 2}.get(want.dtype, 0)
            changed = {
                path: _of_dtype(form, want.dtype, rank and rank + self._offsets.get(path, 0))
                for path, form in other.items()
                if form.dtype != want.dtype
            }
            return {**forms, **changed} if changed else None
        if whole and want.below is not None:
            return None
        missing = max((-place - len(shape) for place in want.sizes), default=0)
        if (want.rank and len(shape) != want.rank) or missing > 0:
            more = missing if missing > 0 else want.rank - len(shape)
            changed = {
                path: _form(path, form.dtype, len(form.axes) + more)
                for path, form in mine.items()
                if len(form.axes) == len(shape) or len(mine) == 1
            }
            return None if any(not form.axes for form in changed.values()) or not changed else {
                **forms, **changed}  # fmt: skip
        if want.batch is not None and _ROWS in shape and shape[want.batch] != _ROWS:
            moved = {
                path: _moved(form, want.batch)
                for path, form in mine.items()
                if len(form.axes) == len(shape)
            }
            return {**forms, **moved} if moved else None
        for place, size in want.sizes.items():
            if shape[place] != size:
                return self._resized(forms, mine, sizes, unmet, place, size)
        return None

    def _resized(
        self, forms: Forms, mine: Forms, sizes: Sizes, unmet: Unmet, place: int, size: int
    ) -> Forms | None:
        """The forms with `size` where the layer has the axis `place`."""
        came = unmet.shape[place]
        changed: dict[str, Input] = {}
        for path, form in mine.items():
            shape = _shape(form, _ROWS, sizes)
            at = [i for i, n in enumerate(shape) if n == came and not form.axes[i].is_batch]
            near = place if place < 0 else place - len(unmet.shape)
            if len(at) > 1 and len(shape) + near in at:
                at = [len(shape) + near]  # sizes were made equal: the same place
            if at:
                changed[path] = _fixed(form, at[-1], size)
        if changed:
            return {**forms, **changed}
        last = [_shape(form, _ROWS, sizes)[-1] for form in mine.values() if len(form.axes) > 1]
        if len(mine) > 1 and sum(last) == came and size % len(last) == 0:  # concatenated
            return {
                **forms,
                **{path: _fixed(form, -1, size // len(last)) for path, form in mine.items()},
            }
        if all(len(form.axes) == 1 for form in mine.values()):
            return {**forms, **{path: _form(path, f.dtype, 2) for path, f in mine.items()}}
        return self._solved(forms, mine, unmet, place, size)

    def _solved(
        self, forms: Forms, mine: Forms, unmet: Unmet, place: int, wanted: int
    ) -> Forms | None:
        """The forms with one size for the free axes with which the layer gets what it wants.

        What reaches it grows with that size, so it is found by bisection; of several that fit,
        the one is taken that two divides most often: 224 of 224 … 255.
        """
        free = {axis.name for form in mine.values() for axis in form.axes if axis.is_variable}
        if not free:
            return None
        known: dict[int, int] = {}

        def compared(size: int) -> int:
            """-1 where the layer gets too little, 0 what it wants, 1 too much."""
            if size not in known:
                done = self._tried(forms, {**_apart(forms), **dict.fromkeys(free, size)})
                if done.unmet is not None and done.unmet.want.layer == unmet.want.layer:
                    came = done.unmet.shape[place]
                    known[size] = (came > wanted) - (came < wanted)
                else:
                    layers = [met.want.layer for met in _met(done)]
                    known[size] = 0 if unmet.want.layer in layers else -1
            return known[size]

        top = 1
        while compared(top) < 0:
            top *= 2
            if top > _LARGEST:
                return None
        first = _least(lambda n: compared(n) >= 0, top // 2, top)
        if compared(first) != 0:
            return None
        beyond = _least(lambda n: compared(n) > 0, first, 2 * first)
        size = max(range(first, beyond), key=lambda n: (n & -n, -n))
        return {
            path: _with(
                form, [Axis(size=size) if axis.name in free else axis for axis in form.axes]
            )
            for path, form in forms.items()
        }

    # -- what went through -----------------------------------------------------------------------

    def _settled(self, forms: Forms, sizes: Sizes, done: _Outcome) -> tuple[Signature, bool] | None:
        """The guess, and whether its rows are apart. An axis varies only if two sizes go through;
        else it keeps the size with which a pass did."""
        below = {} if done.watch is None else bounds(done.watch)
        free = dict.fromkeys(name for form in forms.values() for name in form.variable)
        if not free:
            apart = self._rows_apart(forms, {}, below)
            return None if apart is None else (_signature(forms, {}), apart)
        names = _names(forms, sizes, done)
        drawn = dict.fromkeys(free, _DRAWN)
        apart = self._rows_apart(forms, drawn, below)
        if apart is not None:
            named = {name: Axis(names[name]) for name in free}
            if self._goes(forms, dict(zip(free, _OTHERS, strict=False)), below):
                return _signature(forms, named), apart
            one = Axis(next(iter(names.values())))
            if len(free) > 1 and self._goes(forms, dict.fromkeys(free, _OTHERS[0]), below):
                return _signature(forms, dict.fromkeys(free, one)), apart
            if self._goes(forms, dict.fromkeys(free, _DRAWN // 2), below):
                beyond = _least(
                    lambda n: not self._goes(forms, dict.fromkeys(free, n), below),
                    _DRAWN, _OTHERS[0],
                )  # fmt: skip
                bound = {n: Axis(axis.name, 0, 1, beyond - 1) for n, axis in named.items()}
                return _signature(forms, bound), apart
        apart = self._rows_apart(forms, sizes, below)
        size = {name: Axis(size=sizes[name]) for name in free}
        return None if apart is None else (_signature(forms, size), apart)

    def _goes(self, forms: Forms, sizes: Sizes, below: Mapping[str, int]) -> bool:
        values = _numbers(forms, 2, sizes, below)
        return self._tried(forms, sizes, watched=False, rows=2, values=values).outputs is not None

    def _rows_apart(self, forms: Forms, sizes: Sizes, below: Mapping[str, int]) -> bool | None:
        """Whether the first of three rows gives alone what it gives beside the others, with random
        numbers. None where no pass goes through."""
        values = _numbers(forms, 3, sizes, below)
        together = self._tried(forms, sizes, watched=False, rows=3, values=values).outputs
        first = {
            path: value if (axis := forms[path].batch_axis) is None else value.narrow(axis, 0, 1)
            for path, value in values.items()
        }
        alone = self._tried(forms, sizes, watched=False, rows=1, values=first).outputs
        if together is None or alone is None:
            return None
        compared = [_same_row(together[path], alone[path]) for path in alone.keys() & together]
        return bool(compared) and all(compared)


def _same_row(together: torch.Tensor, alone: torch.Tensor) -> bool:
    for axis in range(alone.dim()):
        if together.shape[axis] == 3 and alone.shape[axis] == 1:
            mine = together.narrow(axis, 0, 1)
            if mine.shape != alone.shape:
                return False
            scale = float(alone.abs().max()) if alone.numel() else 0.0
            return bool(torch.allclose(mine.double(), alone.double(), rtol=0, atol=_LEAK * scale,
                                       equal_nan=True))  # fmt: skip
    return False


def _least(fits: Callable[[int], bool], below: int, above: int) -> int:
    """The least size in (below, above] that fits, where all larger ones do; else above + 1."""
    if not fits(above):
        return above + 1
    while above - below > 1:
        middle = (above + below) // 2
        below, above = (below, middle) if fits(middle) else (middle, above)
    return above


def _names(forms: Forms, sizes: Sizes, done: _Outcome) -> dict[str, str]:
    """What to call the free axes: by the layers that took them, else by the input's name."""
    named: dict[str, str] = {}
    for sources, shape, want, _ in _met(done):
        for path in sources & forms.keys():
            for place, name in want.names.items():
                axes = forms[path].axes
                if len(axes) == len(shape):
                    axes = axes[place:][:1]
                for axis in axes if len(shape) >= -place else ():
                    if axis.is_variable and sizes[axis.name] == shape[place]:
                        named.setdefault(axis.name, name)
    used: dict[str, str] = {}
    for path, form in forms.items():
        for place, axis in enumerate(form.axes):
            if axis.is_variable and axis.name not in used:
                name = named.get(axis.name, "")
                used[axis.name] = name if name and name not in used.values() else f"{path}{place}"
    return {old: new if not new[0].isdigit() else f"axis{new}" for old, new in used.items()}


def _met(done: _Outcome) -> list[Met]:
    return [] if done.watch is None else done.watch.met


def _apart(forms: Forms) -> dict[str, int]:
    """A size of its own for each free axis."""
    return {
        name: _PRIMES[int(name.removeprefix("free"))]
        for form in forms.values()
        for name in form.variable
    }


def _form(path: str, dtype: str, rank: int) -> Input:
    """An input of `rank` axes, the batch first, of whose other sizes nothing is known."""
    free = [Axis(f"free{place}") for place in range(min(rank - 1, len(_PRIMES)))]
    return Input(path, dtype, (Axis("batch"), *free) if rank > 0 else ())


def _signature(forms: Forms, axes: Mapping[str, Axis]) -> Signature:
    """The forms with these axes in the place of the free ones."""
    return Signature(
        tuple(
            _with(form, [axes.get(axis.name, axis) for axis in form.axes])
            for form in forms.values()
        )
    )


def _with(form: Input, axes: list[Axis]) -> Input:
    return Input(form.path, form.dtype, tuple(axes))


def _of_dtype(form: Input, dtype: str, rank: int) -> Input:
    return _form(form.path, dtype, rank) if rank > 0 else Input(form.path, dtype, form.axes)


def _fixed(form: Input, place: int, size: int) -> Input:
    axes = list(form.axes)
    axes[place] = Axis(size=size)
    return _with(form, axes)


def _moved(form: Input, place: int) -> Input:
    axes = [axis for axis in form.axes if not axis.is_batch]
    axes.insert(place, Axis("batch"))
    return _with(form, axes)


def _shape(form: Input, rows: int, sizes: Sizes) -> list[int]:
    return [rows if a.is_batch else sizes[a.name] if a.is_variable else a.size for a in form.axes]


def _zeros(form: Input, rows: int, sizes: Sizes) -> torch.Tensor:
    return torch.zeros(_shape(form, rows, sizes), dtype=TORCH[form.dtype])


def _numbers(
    forms: Forms, rows: int, sizes: Sizes, below: Mapping[str, int]
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    values: dict[str, torch.Tensor] = {}
    for path, form in forms.items():
        shape, dtype = _shape(form, rows, sizes), TORCH[form.dtype]
        if math.prod(shape) > _CELLS:
            shape = [rows, *[1] * (len(shape) - 1)]  # not run: `_tried` sees the sizes
        values[path] = random(path, dtype, shape, below.get(path, 2), generator)
    return values


def _listed(forms: Forms) -> str:
    return ", ".join(str(form) for form in forms.values()).replace("free", "n")


def _said(unmet: Unmet) -> str:
    want = unmet.want
    sizes = ", ".join(f"{size} along axis {place}" for place, size in want.sizes.items())
    rank = f"{want.rank} axes" if want.rank else ""
    parts = ", ".join(part for part in (want.dtype, rank, sizes) if part)
    return f"{parts or 'another form'}, and got {list(unmet.shape)}"
