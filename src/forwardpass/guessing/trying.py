"""One try: a pass with one form of the inputs, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import nn

from forwardpass.guessing.following import Answer, Following, Met, NoTensor, Unmet, staged
from forwardpass.guessing.forms import CELLS, ROWS, Forms
from forwardpass.measuring.clocks import WALL
from forwardpass.tensors.generators import generators_kept
from forwardpass.tensors.trees import flatten

_SECONDS = 60
_ASKED = 6
"""Answers that are looked at: the first are the nearest."""
_BESIDE = 3
"""Rows that are computed together, to see whether they meet."""
_LEAK = 1e-3
"""What a row may move by rounding when it is computed alone, as a share of its scale."""


class Spent(Exception):
    """No more passes are made: those that a guess may take are used up, or the last one showed
    that there is nothing to guess."""


@dataclass(frozen=True)
class Tried:
    """What became of a pass: its outputs, or what raised and what the calls that did want."""

    forms: Forms
    outputs: Mapping[str, torch.Tensor] | None = None
    error: BaseException | None = None
    answers: tuple[Answer, ...] = ()
    met: tuple[Met, ...] = ()
    calls: int = 0
    graphs: frozenset[str] = frozenset()
    keyed: tuple[str, str] | None = None
    unpacked: str | None = None

    @property
    def why(self) -> str:
        """Why the pass did not go through, in a line."""
        lines = str(self.error).strip().splitlines()
        told = f"{type(self.error).__name__}: {lines[0] if lines else ''}"
        return str(self.answers[0]) if self.answers else told


@dataclass
class Passes:
    """The passes through a module: how many are left."""

    module: nn.Module
    left: int
    furthest: Tried | None = None
    graphs: set[str] = field(default_factory=set[str])
    _began: float = field(default_factory=WALL.now)

    def tried(self, forms: Forms, asked: int = _ASKED) -> Tried:
        """A pass of zeros that is followed; what raises is `asked` for so many answers."""
        if forms.cells(ROWS) > CELLS:
            return Tried(forms, error=MemoryError(f"{forms} has too many cells to try"))
        done = self._passed(forms, forms.zeros(), asked=asked)
        self.graphs |= done.graphs
        if done.graphs or isinstance(done.error, NoTensor):
            self.furthest = done
            raise Spent
        if done.outputs is None and (self.furthest is None or done.calls > self.furthest.calls):
            self.furthest = done
        return done

    def goes(self, forms: Forms, below: Mapping[str, int], rows: int = 2) -> bool:
        """Whether a pass with random numbers goes through."""
        if forms.cells(rows) > CELLS:
            return False
        return self._passed(forms, forms.numbers(rows, below)).outputs is not None

    def rows_apart(self, forms: Forms, below: Mapping[str, int]) -> bool | None:
        """Whether the first and the last of three rows give alone what they give beside others,
        with random numbers. The last tells, too, where a row sees those before it.

        None where no pass goes through.
        """
        if forms.cells(_BESIDE) > CELLS:
            return None
        values = forms.numbers(_BESIDE, below)
        together = self._passed(forms, values).outputs
        compared: dict[str, bool] = {}
        for row in (0, _BESIDE - 1):
            one = {
                path: value if (at := forms.inputs[path].batch_axis) is None
                else value.narrow(at, row, 1)
                for path, value in values.items()
            }  # fmt: skip
            alone = self._passed(forms, one).outputs
            if together is None or alone is None:
                return None
            for path in alone.keys() & together.keys():
                mine = _row(together[path], alone[path], row)
                if mine is not None:
                    near = _is_near(mine, alone[path])
                    compared[path] = near and compared.get(path, True)
        if all(compared.values()):
            return bool(compared)
        with generators_kept():
            torch.manual_seed(1)  # what is drawn differs without any row beside it
            again = self._passed(forms, values).outputs or {}
        drawn = {path for path in again if not _is_near(again[path], together[path])}
        return all(near for path, near in compared.items() if path not in drawn)

    def _passed(
        self, forms: Forms, values: Mapping[str, torch.Tensor], asked: int | None = None
    ) -> Tried:
        """A pass, which is followed if it is to be asked."""
        if self.left <= 0 or WALL.now() - self._began > _SECONDS:
            raise Spent
        self.left -= 1
        outputs, error, answers = None, None, tuple[Answer, ...]()
        with staged(self.module, values) as (inputs, passed):
            watch = Following(self.module, inputs)
            try:
                with nullcontext() if asked is None else watch:
                    outputs = flatten(passed())
            except Unmet as unmet:
                error, answers = unmet, (unmet.answer,)
            except NoTensor as found:
                error = found
            except Exception as raised:  # noqa: BLE001 - the module's own, of any kind
                error = raised.with_traceback(None)
                answers = tuple(islice(_distinct(watch.answers(raised)), asked or 0))
        return Tried(
            forms, outputs, error, answers, tuple(watch.met), watch.calls,
            frozenset(watch.graphs), watch.keyed, watch.unpacked,
        )  # fmt: skip


def _distinct(answers: Iterator[Answer]) -> Iterator[Answer]:
    seen: set[str] = set()
    for answer in answers:
        if str(answer) not in seen:
            seen.add(str(answer))
            yield answer


def _row(together: torch.Tensor, alone: torch.Tensor, row: int) -> torch.Tensor | None:
    """The row in an output of three; None where it has no axis of rows, or scores of each row by
    each, which say nothing of one."""
    both = zip(together.shape, alone.shape, strict=False)
    axes = [axis for axis, sizes in enumerate(both) if sizes == (_BESIDE, 1)]
    return together.narrow(axes[0], row, 1) if len(axes) == 1 else None


def _is_near(mine: torch.Tensor, alone: torch.Tensor) -> bool:
    if mine.shape != alone.shape:
        return False
    one, other = mine.double(), alone.double()
    scale = float(other.nan_to_num().abs().max()) if other.numel() else 0.0
    near = (one - other).abs() <= _LEAK * scale
    return bool((near | (one == other) | (one.isnan() & other.isnan())).all())
