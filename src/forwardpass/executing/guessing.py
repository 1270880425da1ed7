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
from forwardpass.executing.following import Following, Met, Unmet, bounds, staged
from forwardpass.executing.forms import (
    CELLS,
    PRIMES,
    ROWS,
    Forms,
    Sizes,
    fixed,
    form_of,
    listed,
    names_of,
    numbers,
    shape_of,
    signature_of,
    sizes_apart,
    with_axes,
    zeros,
)
from forwardpass.executing.mending import mended, misfit, said
from forwardpass.executing.wanting import Want, taken
from forwardpass.loading.programs import ModuleProgram
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.signatures import Axis, Signature
from forwardpass.tensors.modules import parameters_of, parts_of
from forwardpass.tensors.trees import flatten

_SIZES = (32, 64, 28, 128, 224, 256)
"""Sizes of pictures that are tried where a pass fails and no layer says why."""
_LENGTHS = (256, 2048)
"""Sizes of one axis that are tried where a pass fails behind the first layer: sound is long."""
_DRAWN = 16
"""The size that examples have, with which every guess is tried."""
_OTHERS = (48, 64, 32, 80)
"""Other sizes that must go through if axes are said to vary, and apart from each other."""
_LARGEST = 1024
_PASSES = 120
_BESIDE = 3
"""Rows that are computed together, to see whether they meet."""
_LEAK = 1e-3
"""What a row may move by rounding when it is computed alone, as a share of its scale."""


@dataclass
class _Outcome:
    """What became of a pass: outputs, a layer that cannot take its input, or an error."""

    outputs: Mapping[str, torch.Tensor] | None = None
    unmet: Unmet | None = None
    error: Exception | None = None
    watch: Following | None = None


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
    if not paths or any(is_lazy(p) for _, p in parameters_of(module)):
        raise _unknown(forward, paths)
    search = _Search(module, paths)
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = search.found()
    if found is None:
        raise _unknown(forward, paths, search)
    return found


def _wanted(module: nn.Module) -> list[str]:
    """The arguments to guess: those that forward cannot do without, else the main one."""
    program = ModuleProgram(module)
    needed, names = list(program.required()), program.arguments()
    main = getattr(module, "main_input_name", None)  # transformers
    if not needed and names:
        needed = [main] if main in names else list(names[:1])
    return needed or ["0"]


def _unknown(forward: Forward, paths: list[str], search: _Search | None = None) -> UsageError:
    forms = {} if search is None else search.furthest
    dtypes = {path: forms[path].dtype if path in forms else "f32" for path in paths or ["NAME"]}
    lines = " ".join(f'--signature "{path}: {of}[batch …]"' for path, of in dtypes.items())
    why = "" if search is None else f" (what came furthest: {listed(forms)}: {search.why})"
    return UsageError(
        f"{forward.model.name} has no signature, and what {type(forward.model.module).__name__}."
        f"forward({', '.join(paths)}) takes could not be guessed{why}. Say it, with the dtype and "
        f"the axes of each input: {lines}; in Python Model(module, inputs=[…]). Or give "
        "--inputs FILE (.npz, .safetensors), or --data SOURCE"
    )


class _Search:
    """Passes through a module with one form of its inputs after the other."""

    def __init__(self, module: nn.Module, paths: list[str]) -> None:
        self.furthest: Forms = {}
        self.why = ""
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
                if len(through) == len(PRIMES):
                    break
        except _Spent:
            pass
        return through[0] if through else None

    # -- one pass --------------------------------------------------------------------------------

    def _tried(self, forms: Forms, sizes: Sizes, *, watched: bool = True, rows: int = ROWS,
               values: Mapping[str, torch.Tensor] | None = None) -> _Outcome:  # fmt: skip
        if self._left <= 0:
            raise _Spent
        self._left -= 1
        if any(math.prod(shape_of(form, rows, sizes)) > CELLS for form in forms.values()):
            return _Outcome()
        values = values or {path: zeros(form, rows, sizes) for path, form in forms.items()}
        done = _Outcome()
        watch: Following | None = None
        try:
            with staged(self._module, values) as (inputs, passed):
                watch = Following(inputs, rows) if watched else None
                with watch or nullcontext():
                    if watch is not None:
                        watch.called(self._module, tuple(inputs.values()))
                    done.outputs = flatten(passed())
        except Unmet as unmet:
            done.unmet = unmet
            self._missed(forms, watch, f"a layer wants {said(unmet)}")
        except Exception as error:  # noqa: BLE001 - the module's own, of any kind: not this form
            done.error = error
            lines = str(error).strip().splitlines()
            self._missed(forms, watch, f"{type(error).__name__}: {lines[0] if lines else ''}")
        done.watch = watch
        return done

    def _missed(self, forms: Forms, watch: Following | None, why: str) -> None:
        """Remember why a pass did not go through, if none came further."""
        layers = 0 if watch is None else len(watch.met)
        if layers > self._layers:
            self.furthest, self.why, self._layers = forms, why, layers

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
            yield {path: form_of(path, "f32", 2 + more) for path, more in self._offsets.items()}
        self._offsets = dict.fromkeys(self._paths, 0)
        for want in self._first():
            form = form_of(self._paths[0], want.dtype or "f32", want.rank or 2)
            for place, size in want.sizes.items():
                form = fixed(form, place, size)
            yield {path: form_of(path, "f32", 2) for path in self._paths} | {self._paths[0]: form}

    def _first(self) -> Iterator[Want]:
        """What the layers take that stand first in the module."""
        layers = (taken(part) for _, part in parts_of(self._module))
        yield from itertools.islice((want for want in layers if want is not None), 2)

    def _refined(self, forms: Forms) -> tuple[Signature, bool] | None:
        """Run and mend until a pass goes through. None where it does not."""
        seen: set[str] = set()
        while listed(forms) not in seen:
            seen.add(listed(forms))
            sizes = sizes_apart(forms)
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
        rank = max(len(form.axes) for form in forms.values())
        if not free or (rank < 4 and len(free) < 2 and not self._layers):
            return None
        few = (32,) if len(free) > 1 else _LENGTHS
        for size in self._sizes if rank > 3 else few:
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
        found = mended(forms, sizes, unmet, self._offsets)
        wrong = misfit(unmet)
        if found is not None or wrong is None:
            return found
        mine = {path: form for path, form in forms.items() if path in unmet.sources}
        return self._solved(forms, mine, unmet, *wrong)

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
                done = self._tried(forms, {**sizes_apart(forms), **dict.fromkeys(free, size)})
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
            path: with_axes(
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
            return None if apart is None else (signature_of(forms, {}), apart)
        names = names_of(forms, sizes, _met(done))
        drawn = dict.fromkeys(free, _DRAWN)
        apart = self._rows_apart(forms, drawn, below)
        if apart is not None:
            named = {name: Axis(names[name]) for name in free}
            if self._goes(forms, dict(zip(free, _OTHERS, strict=False)), below):
                return signature_of(forms, named), apart
            one = Axis(next(iter(names.values())))
            if len(free) > 1 and self._goes(forms, dict.fromkeys(free, _OTHERS[0]), below):
                return signature_of(forms, dict.fromkeys(free, one)), apart
            if self._goes(forms, dict.fromkeys(free, _DRAWN // 2), below):
                beyond = _least(
                    lambda n: not self._goes(forms, dict.fromkeys(free, n), below),
                    _DRAWN, _OTHERS[0],
                )  # fmt: skip
                bound = {n: Axis(axis.name, 0, 1, beyond - 1) for n, axis in named.items()}
                return signature_of(forms, bound), apart
        apart = self._rows_apart(forms, sizes, below)
        size = {name: Axis(size=sizes[name]) for name in free}
        return None if apart is None else (signature_of(forms, size), apart)

    def _goes(self, forms: Forms, sizes: Sizes, below: Mapping[str, int]) -> bool:
        values = numbers(forms, 2, sizes, below)
        return self._tried(forms, sizes, watched=False, rows=2, values=values).outputs is not None

    def _rows_apart(self, forms: Forms, sizes: Sizes, below: Mapping[str, int]) -> bool | None:
        """Whether the first and the last of three rows give alone what they give beside others,
        with random numbers. The last tells, too, where a row sees those before it.

        None where no pass goes through.
        """
        values = numbers(forms, _BESIDE, sizes, below)
        together = self._tried(forms, sizes, watched=False, rows=_BESIDE, values=values).outputs
        compared: list[bool] = []
        for row in (0, _BESIDE - 1):
            one = {
                path: value if (at := forms[path].batch_axis) is None else value.narrow(at, row, 1)
                for path, value in values.items()
            }
            alone = self._tried(forms, sizes, watched=False, rows=1, values=one).outputs
            if together is None or alone is None:
                return None
            for path in alone.keys() & together.keys():
                mine = _row(together[path], alone[path], row)
                if mine is not None:
                    compared.append(_is_near(mine, alone[path]))
        return bool(compared) and all(compared)


def _row(together: torch.Tensor, alone: torch.Tensor, row: int) -> torch.Tensor | None:
    """The row in an output of three; None where the output has no axis of rows."""
    for axis in range(min(alone.dim(), together.dim())):
        if together.shape[axis] == _BESIDE and alone.shape[axis] == 1:
            return together.narrow(axis, row, 1)
    return None


def _is_near(mine: torch.Tensor, alone: torch.Tensor) -> bool:
    if mine.shape != alone.shape:
        return False
    one, other = mine.double(), alone.double()
    scale = float(other.nan_to_num().abs().max()) if other.numel() else 0.0
    near = (one - other).abs() <= _LEAK * scale
    return bool((near | (one == other) | (one.isnan() & other.isnan())).all())


def _least(fits: Callable[[int], bool], below: int, above: int) -> int:
    """The least size in (below, above] that fits, where all larger ones do; else above + 1."""
    if not fits(above):
        return above + 1
    while above - below > 1:
        middle = (above + below) // 2
        below, above = (below, middle) if fits(middle) else (middle, above)
    return above


def _met(done: _Outcome) -> list[Met]:
    return [] if done.watch is None else done.watch.met
